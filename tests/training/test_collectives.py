"""Values that processes exchange, and the end of the other processes when one fails."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dnl_video.launcher import wait_or_kill
from dnl_video.training import collectives, stopping
from tests.conftest import TinyRun


def test_single_process_gets_its_own_values() -> None:
    own = torch.tensor([1.0, float("nan")])
    mean = collectives.all_reduce_mean(own)
    assert mean is not own
    torch.testing.assert_close(mean, own, equal_nan=True)
    assert collectives.all_gather_dict({"a.mp4": "x"}) == {"a.mp4": "x"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:8607. "), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Read timeout"), True),
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), True),
        (RuntimeError("shape '[2]' is invalid for input of size 3"), False),
        (ValueError("closed by peer"), False),
    ],
)
def test_lost_connection_is_recognised(error: Exception, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not collectives.another_process_ended(error), "there is no other process"
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert collectives.another_process_ended(error) == expected


def test_children_that_do_not_exit_are_killed() -> None:
    ending = subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"])
    ending.wait()
    waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    launcher = SimpleNamespace(procs=[waiting, ending])
    wait_or_kill(stopping.take_children(launcher), timeout_s=0.5)
    assert launcher.procs == []
    assert waiting.wait() == -signal.SIGKILL
    assert ending.returncode == 2
    assert stopping.take_children(None) == []


FAILING = """
import os, sys
from lightning.fabric.strategies.launchers import subprocess_script
from dnl_video.cli.main import main
from dnl_video.errors import InputError
from dnl_video.training.module import VideoTrainingModule

def alone(self, batch, index):
    raise InputError("this process alone failed")

# Lightning checks its children every few seconds, and might kill the first process before it ends by itself.
subprocess_script._ChildProcessObserver.__init__.__defaults__ = (600,)
if os.environ.get("LOCAL_RANK") == "1":
    VideoTrainingModule.training_step = alone
sys.exit(main(sys.argv[1:]))
"""


def test_one_failed_process_ends_the_run_with_its_message(tiny: TinyRun, tmp_path: Path) -> None:
    """Lightning's launcher runs the same script again for the second process."""
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "failing.py"), "train", "--config", str(tiny.config)]
    command += ["--output_dir", str(tmp_path / "run"), "--trainer.devices", "2"]
    # Returns when both processes have ended, because both hold the pipe.
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if "error" in line] == [
        "dnl-video: error: this process alone failed",
        "dnl-video: error: process 0 of 2 stops, because another one has ended; its message says why",
    ]
