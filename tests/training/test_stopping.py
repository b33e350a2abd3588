"""Signals: when they stop a run, when they are deferred, and repeated signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from dnl_video.errors import Terminated
from dnl_video.training import stopping
from dnl_video.training.stopping import StopRequest


def send(signum: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_signal_ends_the_block_and_the_old_handlers_return(name: str) -> None:
    signum = signal.Signals[name]
    before = signal.getsignal(signum)
    with pytest.raises(Terminated) as stopped, StopRequest():
        send(signum)
    assert (stopped.value.signum, stopped.value.saved, str(stopped.value)) == (signum, "", name)
    assert signal.getsignal(signum) == before


def test_ctrl_c_is_a_keyboard_interrupt_with_the_saved_checkpoint() -> None:
    with pytest.raises(KeyboardInterrupt) as interrupted, StopRequest():
        send(signal.SIGINT)
    assert str(interrupted.value) == ""
    request = StopRequest()
    request.received = signal.SIGINT
    with pytest.raises(KeyboardInterrupt) as interrupted, request:
        request.stop("step 3 saved")
    assert str(interrupted.value) == "step 3 saved"


def test_deferred_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_SAME_REQUEST_S", 0.0)
    alone = SimpleNamespace(strategy=SimpleNamespace(root_device="cpu"))
    with StopRequest() as request:
        request.deferred = True
        assert not request.any_process(alone)  # type: ignore[arg-type]
        send()
        send()
        assert request.any_process(alone)  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        with pytest.raises(Terminated) as stopped:
            request.stop("step 3 saved")
        assert (stopped.value.signum, stopped.value.saved) == (signal.SIGTERM, "step 3 saved")


@pytest.mark.parametrize(("share", "stops"), [(0.0, False), (1 / 8, True), (1.0, True)])
def test_a_signal_of_one_process_stops_all(share: float, stops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "all_reduce_mean", lambda own: own + share)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device="cpu"))
    assert StopRequest().any_process(trainer) is stops
    with pytest.raises(Terminated, match=r"^SIGTERM$"):
        StopRequest().stop()


def test_signals_wait_during_steps_and_stop_validation_immediately() -> None:
    callback: Any
    waited = False
    with pytest.raises(Terminated), StopRequest() as callback:  # noqa: PT012
        callback.on_train_start(None, None)
        callback.on_validation_start(None, None)
        callback.on_validation_end(None, None)
        with contextlib.suppress(BaseException):
            send()
            waited = True
        callback.on_validation_start(None, None)
        raise AssertionError("not stopped")
    assert waited
    with pytest.raises(Terminated), StopRequest() as callback:  # noqa: PT012
        callback.on_train_start(None, None)
        callback.on_validation_start(None, None)
        send()
        raise AssertionError("not stopped")


def test_same_ctrl_c_twice_is_one_request() -> None:
    with StopRequest() as request:
        request.deferred = True
        send(signal.SIGINT)
        send(signal.SIGINT)
        assert request.received == signal.SIGINT


def test_lost_signal_stops_at_the_next_validation_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closing:
        def __del__(self) -> None:
            send()

    with StopRequest() as request:
        callback: Any = request
        callback.on_validation_start(None, None)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "unraisablehook", lambda _: None)
            Closing()
        with pytest.raises(Terminated):
            callback.on_validation_batch_start(None, None, None, 0)


@pytest.mark.parametrize(("name", "error"), [("SIGTERM", Terminated), ("SIGINT", KeyboardInterrupt)])
def test_every_signal_reaches_children_as_sigterm(name: str, error: type[BaseException]) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"
    code += "; print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    launcher = SimpleNamespace(procs=[child])
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))
    with pytest.raises(error), StopRequest() as request:  # noqa: PT012
        request.forward_to_children(trainer)
        send(signal.Signals[name])
    assert child.returncode == 7
    # With the child in this list, Lightning's observer would kill this process because of status 7.
    assert launcher.procs == []
    child.stdout.close()


def test_forked_processes_ignore_the_signal() -> None:
    with StopRequest() as request:
        child = os.fork()
        if child == 0:
            send(signal.SIGINT)
            os._exit(0 if request.received is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
