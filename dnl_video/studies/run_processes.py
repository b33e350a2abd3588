"""Run the commands of several training runs at the same time, each in its own process with its own log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnl_video.cores import available_cores
from dnl_video.errors import InputError
from dnl_video.launcher import wait_or_kill

# `python -m dnl_video` that holds a lock: the commands of a killed study may still run when the study is started again.
_PROGRAM = [
    sys.executable,
    "-c",
    "import pathlib, runpy, sys\n"
    "from dnl_video.files import locked\n"
    "with locked(pathlib.Path(sys.argv.pop(1))):\n"
    "    runpy.run_module('dnl_video', run_name='__main__', alter_sys=True)",
]
_POLL_S = 0.1
_GRACE_S = 10.0

Steps = Generator[list[str], None, dict[str, Any]]
"""Yields one command line of `dnl-video` at a time, continues after it succeeded, and returns a result."""


@dataclass
class Job:
    """The commands of one run.

    Args:
        name: Its name in messages.
        steps: Its commands, and its result.
        log: File for the output of the commands; emptied at the start.
        lock: File that each command locks while it runs.
    """

    name: str
    steps: Steps
    log: Path
    lock: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)


def run_side_by_side(jobs: Sequence[Job], at_once: int) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Run jobs, ``at_once`` at a time; yield each job with its result when it ends.

    When the caller stops, or a job fails, all processes are terminated.

    Raises:
        InputError: A command failed; the message names its log.
    """
    waiting, active = list(jobs), list[Job]()
    try:
        while waiting or active:
            while waiting and len(active) < at_once:
                job = waiting.pop(0)
                job.log.parent.mkdir(parents=True, exist_ok=True)
                job.log.write_bytes(b"")
                active.append(job)
            for job in list(active):
                if job.process is not None and job.process.poll() is None:
                    continue
                _check(job)
                try:
                    job.process = _start(job, next(job.steps), at_once)
                except StopIteration as end:
                    active.remove(job)
                    yield job, end.value
            time.sleep(_POLL_S)
    finally:
        running = [job.process for job in active if job.process is not None]
        for process in running:
            process.terminate()  # does nothing after the end of the process
        wait_or_kill(running, _GRACE_S)


def _start(job: Job, command: list[str], at_once: int) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    # Idle OpenMP threads of one run would take the cores of another.
    environment.setdefault("OMP_NUM_THREADS", str(max(available_cores() // at_once, 1)))
    words = [*_PROGRAM, str(job.lock), *command]
    with job.log.open("ab") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _check(job: Job) -> None:
    if job.process is None or job.process.returncode == 0:
        return
    lines = [line for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    raise InputError(
        f"run {job.name} ended with status {job.process.returncode}: {last} (its output: {job.log}); fix the cause and "
        "give the same command again: finished runs are kept"
    )
