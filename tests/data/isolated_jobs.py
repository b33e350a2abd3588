"""Function that the tests of `run_isolated` run; each process imports this module, so it imports little."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def work(job: str) -> str:
    """Do the action of the job's first word."""
    verb, _, rest = job.partition(" ")
    if verb == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if verb == "crash-once" and not Path(rest).exists():
        Path(rest).touch()
        os.kill(os.getpid(), signal.SIGABRT)
    if verb == "exit":
        os._exit(3)
    if verb == "hang":
        if rest:
            Path(rest).write_text(str(os.getpid()))
        while True:
            time.sleep(1)
    if verb == "noise":
        os.write(2, b"a message of a C library")
    if verb == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    if verb == "raise":
        raise ValueError("two\nlines")
    return job.upper()
