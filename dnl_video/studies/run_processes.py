"""Commands of several runs side by side, each in a process of its own, with a log file a run."""

from __future__ import annotations

import contextlib
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

_PROGRAM = [sys.executable, "-m", "dnl_video"]
_POLL_S = 0.1
_GRACE_S = 10.0

Steps = Generator[list[str], None, dict[str, Any]]
"""Yields a command line of `dnl-video` at a time, goes on when it has succeeded, and returns a result."""


@dataclass
class Job:
    """A run under way.

    Args:
        name: What messages call it.
        steps: Its commands, and in the end its result.
        log: Where the commands' output goes; emptied at the start.
    """

    name: str
    steps: Steps
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)


def run_side_by_side(
    jobs: Sequence[Job], at_once: int, *, keep_open: Sequence[int] = ()
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Carry out jobs, some at a time; yield each with its result as it ends.

    When the caller stops, or a job fails, the processes are ended.

    Args:
        jobs: What to do.
        at_once: How many at a time; they share the cores.
        keep_open: File descriptors that the processes hold open as well.

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
                    job.process = _start(next(job.steps), job.log, at_once, keep_open)
                except StopIteration as end:
                    active.remove(job)
                    yield job, end.value
            time.sleep(_POLL_S)
    finally:
        _end([job.process for job in active if job.process is not None])


def _start(command: list[str], log: Path, at_once: int, keep_open: Sequence[int]) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    # Waiting OpenMP threads of one run would take the cores of another.
    environment.setdefault("OMP_NUM_THREADS", str(max(available_cores() // at_once, 1)))
    with log.open("ab") as output:
        return subprocess.Popen(
            [*_PROGRAM, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=tuple(keep_open),
        )


def _check(job: Job) -> None:
    if job.process is None or job.process.returncode == 0:
        return
    lines = [line for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    raise InputError(
        f"run {job.name} ended with status {job.process.returncode}: {last} (all it said: {job.log}); mend that and "
        "give the same command again: finished runs are kept"
    )


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with contextlib.suppress(OSError):
            process.terminate()
    deadline = time.monotonic() + _GRACE_S
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
