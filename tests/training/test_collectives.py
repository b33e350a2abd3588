"""What processes tell each other, and what becomes of those that are left."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dnl_video.training import collectives, stopping
from tests.conftest import TinyRun


def test_one_process_has_all_there_is() -> None:
    own = torch.tensor([1.0, float("nan")])
    mean = collectives.all_reduce_mean(own)
    assert mean is not own
    torch.testing.assert_close(mean, own, equal_nan=True)
    assert collectives.all_gather_dict({"a.mp4": "x"}) == {"a.mp4": "x"}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:8607. "), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Read timeout"), True),
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), True),
        (RuntimeError("shape '[2]' is invalid for input of size 3"), False),
        (ValueError("closed by peer"), False),
    ],
)
def test_a_lost_connection_is_told_from_other_errors(
    error: Exception, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not collectives.another_process_ended(error), "there is no other process"
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert collectives.another_process_ended(error) == told


def test_children_that_do_not_exit_are_killed() -> None:
    ending = subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"])
    ending.wait()
    waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    launcher = SimpleNamespace(procs=[waiting, ending])
    stopping.wait_for_children(stopping.take_children(launcher), timeout_s=0.5)
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
    raise InputError("this process alone cannot go on")

# Lightning looks after its children every few seconds, and would kill the first process if it came before its own end.
subprocess_script._ChildProcessObserver.__init__.__defaults__ = (600,)
if os.environ.get("LOCAL_RANK") == "1":
    VideoTrainingModule.training_step = alone
sys.exit(main(sys.argv[1:]))
"""


def test_a_process_that_fails_alone_ends_the_run_with_its_line(tiny: TinyRun, tmp_path: Path) -> None:
    """Started by Lightning's launcher, which runs the same script again for the second process."""
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "failing.py"), "train", "--config", str(tiny.config)]
    command += ["--output_dir", str(tmp_path / "run"), "--trainer.devices", "2"]
    # Returns when both have ended, since both hold the pipe.
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if "error" in line] == [
        "dnl-video: error: this process alone cannot go on",
        "dnl-video: error: process 0 of 2 stops, because another one has ended; its message says why",
    ]
