"""Run `dnl-video` in another process, to kill or interrupt it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from dnl_video.cli.main import main


class CommandProcess:
    """A running command in its own process group, like a job of a terminal; its output goes to files.

    At the end of its context, all its processes are killed.

    The process is a fork of the test, because starting an interpreter and loading torch takes longer than most
    commands. It is a new interpreter on request, and with a GPU (autograd's GPU threads do not survive a fork).
    """

    def __init__(self, words: list[str], folder: Path, *, new_interpreter: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self._stdout, self._stderr = folder / "stdout.txt", folder / "stderr.txt"
        can_fork = "fork" in multiprocessing.get_all_start_methods() and not torch.cuda.is_available()
        self._process: multiprocessing.context.ForkProcess | subprocess.Popen[bytes]
        if can_fork and not new_interpreter:
            self._process = multiprocessing.get_context("fork").Process(target=self._run, args=(words,))
            self._process.start()
        else:
            with self._stdout.open("wb") as out, self._stderr.open("wb") as errors:
                command = [sys.executable, "-m", "dnl_video", *words]
                self._process = subprocess.Popen(command, stdout=out, stderr=errors, preexec_fn=_become_a_terminal_job)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def __enter__(self) -> CommandProcess:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def _run(self, words: list[str]) -> None:
        _become_a_terminal_job()
        for number, path in ((1, self._stdout), (2, self._stderr)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        sys.exit(main(words))

    def returncode(self) -> int | None:
        """Return the exit status, a negative signal number, or None while it runs."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode

    def wait(self, timeout: float = 300) -> int:
        if isinstance(self._process, subprocess.Popen):
            return self._process.wait(timeout)
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"still running after {timeout} s"
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(encoding="utf-8") if self._stdout.exists() else ""

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(encoding="utf-8") if self._stderr.exists() else ""


def _become_a_terminal_job() -> None:
    os.setsid()
    # A test runner in the background ignores SIGINT, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
