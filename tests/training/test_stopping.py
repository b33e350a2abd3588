"""What a request to stop does, where, and how often."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dnl_video.errors import Terminated
from dnl_video.training import stopping
from dnl_video.training.stopping import StopRequest


def ask(signum: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_request_ends_the_block_and_the_handlers_return(name: str) -> None:
    signum = signal.Signals[name]
    before = signal.getsignal(signum)
    with pytest.raises(Terminated) as stopped, StopRequest():
        ask(signum)
    assert (stopped.value.signum, stopped.value.saved, str(stopped.value)) == (signum, "", name)
    assert signal.getsignal(signum) == before


def test_ctrl_c_is_a_keyboard_interrupt_that_says_what_was_saved() -> None:
    with pytest.raises(KeyboardInterrupt) as interrupted, StopRequest():
        ask(signal.SIGINT)
    assert str(interrupted.value) == ""
    request = StopRequest()
    request.received = signal.SIGINT
    with pytest.raises(KeyboardInterrupt) as interrupted, request:
        request.stop("step 3 saved")
    assert str(interrupted.value) == "step 3 saved"


def test_a_request_waits_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_SAME_REQUEST_S", 0.0)
    alone = SimpleNamespace(strategy=SimpleNamespace(root_device="cpu"))
    with StopRequest() as request:
        request.deferred = True
        assert not request.any_process(alone)  # type: ignore[arg-type]
        ask()
        ask()
        assert request.any_process(alone)  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            ask(signal.SIGINT)
        with pytest.raises(Terminated) as stopped:
            request.stop("step 3 saved")
        assert (stopped.value.signum, stopped.value.saved) == (signal.SIGTERM, "step 3 saved")


def test_the_same_ctrl_c_twice_is_one() -> None:
    with StopRequest() as request:
        request.deferred = True
        ask(signal.SIGINT)
        ask(signal.SIGINT)
        assert request.received == signal.SIGINT


def test_a_request_that_was_lost_ends_the_next_batch_of_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closing:
        def __del__(self) -> None:
            ask()

    with StopRequest() as request:
        callback: Any = request
        callback.on_validation_start(None, None)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "unraisablehook", lambda _: None)
            Closing()
        with pytest.raises(Terminated):
            callback.on_validation_batch_start(None, None, None, 0)


@contextlib.contextmanager
def _attached(launcher: Any) -> Iterator[None]:
    with StopRequest() as request:
        request.forward_to_children(SimpleNamespace(strategy=SimpleNamespace(launcher=launcher)))  # type: ignore[arg-type]
        yield


def test_children_are_asked_too_and_waited_for() -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"
    code += "; print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    launcher = SimpleNamespace(procs=[child])
    with pytest.raises(Terminated), _attached(launcher):
        ask()
    assert child.returncode == 7
    # Lightning's observer of this list would kill this process when it sees the 7.
    assert launcher.procs == []
    child.stdout.close()


def test_processes_that_are_forked_meanwhile_leave_it_to_their_parent() -> None:
    with StopRequest() as request:
        child = os.fork()
        if child == 0:
            ask(signal.SIGINT)
            os._exit(0 if request.received is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
