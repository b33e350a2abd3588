"""Runs a function over many files in processes that a file may crash or hang without stopping the caller."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

_START_S = 300.0
_ATTEMPTS = 2
"""An earlier file may have damaged the process's memory, so only a crash in a new process counts."""
_CRASHED = "crashed"


class Outcome(NamedTuple):
    """Index of a job, the return value of the function, and why it failed (in one line, None if it did not)."""

    job: int
    value: Any
    error: str | None


def run_isolated(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], *, workers: int, deadline_s: float
) -> Iterator[Outcome]:
    """Call ``function(*job)`` for every job in worker processes; yield one outcome per job, in order of completion.

    A process that crashes is replaced and its job tried once more. A process that exceeds the deadline is killed and
    its job fails. If the caller stops or dies, the processes end too, hanging ones included.

    Args:
        function: The function; it, its arguments and its result must be picklable.
        jobs: Arguments of each call.
        workers: Largest number of processes.
        deadline_s: Seconds a job may take.

    Raises:
        RuntimeError: Processes cannot be started.
    """
    waiting = deque((index, _ATTEMPTS) for index in range(len(jobs)))
    workers_alive: list[_Worker] = []
    try:
        while waiting or workers_alive:
            while len(workers_alive) < workers and sum(w.index is None for w in workers_alive) < len(waiting):
                workers_alive.append(_Worker(function, deadline_s))
            for worker in _ready(workers_alive):
                outcome = worker.take()
                if outcome is not None and outcome.error == _CRASHED:
                    if worker.attempts > 1:
                        waiting.appendleft((outcome.job, worker.attempts - 1))
                    else:
                        yield Outcome(outcome.job, None, worker.exit_reason())
                elif outcome is not None:
                    yield outcome
                if worker.is_lost or not waiting:
                    worker.end()
                    workers_alive.remove(worker)
                else:
                    index, attempts = waiting.popleft()
                    worker.give(index, jobs[index], attempts)
    finally:
        for worker in workers_alive:
            worker.end()


def _ready(workers: list[_Worker]) -> list[_Worker]:
    """Wait until workers have answered, died or exceeded their deadline, and return them."""
    left = max(min(worker.due for worker in workers) - time.monotonic(), 0.0)
    ready = wait([worker.connection for worker in workers], timeout=left)
    now = time.monotonic()
    return [worker for worker in workers if worker.connection in ready or worker.due <= now]


class _Worker:
    """A process that runs one job at a time; `index` is None while it starts."""

    def __init__(self, function: Callable[..., Any], deadline_s: float) -> None:
        # Not forked: the caller has threads (a progress bar), and a forked process would inherit their held locks.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self._process.start()
        theirs.close()
        self._deadline_s = deadline_s
        self.index: int | None = None
        self.attempts = 0
        self.is_lost = False
        self.due = time.monotonic() + _START_S

    def give(self, index: int, job: tuple[Any, ...], attempts: int) -> None:
        self.index, self.attempts = index, attempts
        self.due = time.monotonic() + self._deadline_s
        with contextlib.suppress(OSError):  # the process has died, which `take` reports
            self.connection.send(job)

    def take(self) -> Outcome | None:
        """Return the outcome of its job; None if the process has just started."""
        value = None
        try:
            self.is_lost = not self.connection.poll()
            if self.is_lost:
                error = f"no answer within {self._deadline_s:g} s: decoding hangs, or the file is long"
            else:
                value, error = self.connection.recv()
        except (EOFError, OSError):
            self.is_lost, error = True, _CRASHED
        if self.index is not None:
            return Outcome(self.index, value, error)
        if self.is_lost:
            raise RuntimeError(f"a worker process {self.exit_reason()} before its first file")
        return None

    def exit_reason(self) -> str:
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


def _serve(connection: Connection, function: Callable[..., Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller ends its workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hides messages of crashing C libraries
    connection.send((None, None))  # ready
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            answer: tuple[Any, str | None]
            try:
                answer = function(*job), None
            except Exception as error:
                answer = None, f"{type(error).__name__}: {' '.join(str(error).split())}"
            connection.send(answer)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
