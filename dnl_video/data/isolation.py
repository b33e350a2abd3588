"""A function run over many files in processes that a file may crash or hang, without taking the caller along."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

_START_S = 300.0
_ATTEMPTS = 2
"""A crash may come from what an earlier file did to the process's memory, so it counts in a fresh process only."""


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Args:
        index: Its place among the jobs.
        value: What the function returned; None where it failed.
        error: Why it failed, in one line; None where it did not.
    """

    index: int
    value: Any
    error: str | None


def run_isolated(
    function: Callable[[Any], Any], jobs: Sequence[Any], *, workers: int, deadline_s: float
) -> Iterator[Outcome]:
    """Call ``function(job)`` for every job in worker processes; yield outcomes as they come, one for each job.

    A process that crashes is replaced and its job tried once more; one that does not answer in time is killed and its
    job given up. When the caller stops or dies, the processes end, hanging ones included.

    Args:
        function: Importable by name, as are its argument and result (they are pickled).
        jobs: Its arguments.
        workers: Processes at most.
        deadline_s: Seconds a job may take.

    Raises:
        RuntimeError: Processes cannot be started.
    """
    waiting = deque((index, _ATTEMPTS) for index in range(len(jobs)))
    crew: list[_Worker] = []
    try:
        while waiting or crew:
            while len(crew) < workers and sum(worker.is_starting for worker in crew) < len(waiting):
                crew.append(_Worker(function, deadline_s))
            for worker in _answered(crew):
                outcome = worker.take()
                if outcome is not None and outcome.error == _CRASHED and worker.attempts > 1:
                    waiting.appendleft((outcome.index, worker.attempts - 1))
                elif outcome is not None:
                    crash = outcome.error == _CRASHED
                    yield Outcome(outcome.index, outcome.value, worker.cause_of_death() if crash else outcome.error)
                if worker.is_lost or not waiting:
                    worker.end()
                    crew.remove(worker)
                else:
                    index, attempts = waiting.popleft()
                    worker.give(index, jobs[index], attempts)
    finally:
        for worker in crew:
            worker.end()


_CRASHED = "crashed"


def _answered(crew: list[_Worker]) -> list[_Worker]:
    """Wait until workers have an answer, died, or ran out of time."""
    left = max(min(worker.due for worker in crew) - time.monotonic(), 0.0)
    ready = wait([worker.connection for worker in crew], timeout=left)
    now = time.monotonic()
    return [worker for worker in crew if worker.connection in ready or worker.due <= now]


class _Worker:
    """A process that takes one job at a time."""

    def __init__(self, function: Callable[[Any], Any], deadline_s: float) -> None:
        # Not forked: the caller has threads (a progress bar), whose locks a forked process may find taken for ever.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self._process.start()
        theirs.close()
        self._deadline_s = deadline_s
        self._job: int | None = None  # None: it is starting
        self.attempts = 0
        self.is_lost = False
        self.due = time.monotonic() + _START_S

    @property
    def is_starting(self) -> bool:
        return self._job is None

    def give(self, index: int, job: Any, attempts: int) -> None:
        self._job, self.attempts = index, attempts
        self.due = time.monotonic() + self._deadline_s
        with contextlib.suppress(OSError):  # it died meanwhile: `take` finds out
            self.connection.send(job)

    def take(self) -> Outcome | None:
        """Return the outcome of its job, or None when it has just started."""
        try:
            if not self.connection.poll():
                self.is_lost = True
                return self._lost(f"no answer within {self._deadline_s:g} s: decoding hangs, or the file is long")
            value, error = self.connection.recv()
        except (EOFError, OSError):
            self.is_lost = True
            return self._lost(_CRASHED)
        return None if self._job is None else Outcome(self._job, value, error)

    def _lost(self, error: str) -> Outcome:
        if self._job is None:
            raise RuntimeError(f"a worker process {self.cause_of_death()} before its first file")
        return Outcome(self._job, None, error)

    def cause_of_death(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"the decoder ended the process (exit status {code})"
        with contextlib.suppress(ValueError):
            return f"the decoder crashed ({signal.Signals(-code).name})"
        return f"the decoder crashed (signal {-code})"

    def end(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller ends its workers
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # What the C libraries print in their last moments belongs to no one.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    connection.send((None, None))  # ready
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            answer: tuple[Any, str | None]
            try:
                answer = function(job), None
            except Exception as error:
                answer = None, f"{type(error).__name__}: {' '.join(str(error).split())}"
            connection.send(answer)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
