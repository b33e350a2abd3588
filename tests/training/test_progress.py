"""The values beside the progress bar and the line of an epoch, computed by hand."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dnl_video.config import TrainConfig
from dnl_video.spec import ModelSpec
from dnl_video.training import progress as progress_module
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.progress import ClipProgress
from tests.conftest import TinyRun
from tests.training.runs import configured, train

BATCH = {"label": torch.zeros(8)}


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> VideoTrainingModule:
    """Its epoch so far: loss 1.25; 3 of 8 clips right in the metric, 2 of 5 in the running value."""
    config = TrainConfig(model=ModelSpec("slow_r50", "none", 3, stem_channels=8))
    module = VideoTrainingModule(config, ["a", "b", "c"])
    module.train_loss.update(torch.tensor(1.0))
    module.train_loss.update(torch.tensor(1.5))
    module.train_top1.update(torch.tensor([0, 0, 0, 0, 0, 0, 0, 0]), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]))
    module._right, module._seen = torch.tensor(2.0), 5
    module.logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **options: module.logged.update({name: value}))
    return module


def trainer_at(epoch: int, **metrics: float) -> Any:
    """A trainer of two processes in the given epoch of four, each of five batches."""
    values = {name.replace("_", "/", 1): torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(
        current_epoch=epoch,
        max_epochs=4,
        num_training_batches=5,
        world_size=2,
        is_global_zero=True,
        enable_validation=True,
        check_val_every_n_epoch=2,
        callback_metrics=values,
    )


def started(trainer: Any, module: VideoTrainingModule) -> ClipProgress:
    progress = ClipProgress(bar=False)
    progress.setup(trainer, module, "fit")
    progress.on_train_start(trainer, module)
    return progress


def test_rate_and_time_left_of_a_run_resumed_in_its_second_epoch(
    clock: Clock, module: VideoTrainingModule, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trainer_at(1)
    progress = started(trainer, module)
    progress.on_train_epoch_start(trainer, module)
    assert progress.fields(trainer, module) == {
        "loss": "-",
        "top1": "-",
        "clips_per_s": "0",
        "left": "-:--:--",
    }
    clock.now = 104
    for batch in range(2):
        progress.on_train_batch_end(trainer, module, None, BATCH, batch)
    trainer.callback_metrics = trainer_at(1, train_loss=0.98765).callback_metrics
    # 2 x 8 clips of 2 processes in 4 s. Two of five batches in 4 s make 10 s an epoch, and 2.6 of 3 epochs are left.
    shown = {"loss": "0.988", "top1": "40.0%", "clips_per_s": "8", "left": "0:00:26"}
    assert progress.fields(trainer, module) == shown
    clock.now = 110
    for batch in range(2, 5):
        progress.on_train_batch_end(trainer, module, None, BATCH, batch)
    clock.now = 120  # after the validation
    trainer.callback_metrics = trainer_at(1, val_top1=0.625, val_failed_videos=3).callback_metrics
    progress.notes.append("block 3: collapsed")
    progress.on_train_epoch_end(trainer, module)
    line = "epoch 2/4  loss 1.250  top1 37.5%  8 clips/s  left 0:00:40"
    assert capsys.readouterr().out == f"{line}  val top1 62.5%  (3 val videos failed)  block 3: collapsed\n"
    assert module.logged == {"train/clips_per_s": 8.0}
    # Lightning keeps the metrics of the last validation; the third epoch has none.
    metrics = trainer.callback_metrics
    # The third epoch: its rate counts its own time only, the time left all epochs since the start.
    trainer = trainer_at(2)
    progress.on_train_epoch_start(trainer, module)
    clock.now = 124
    progress.on_train_batch_end(trainer, module, None, BATCH, 0)
    # 1.2 epochs in 24 s, 1.8 left.
    assert progress.fields(trainer, module) == {
        "loss": "-",
        "top1": "-",
        "clips_per_s": "4",
        "left": "0:00:36",
    }
    clock.now = 140
    for batch in range(1, 5):
        progress.on_train_batch_end(trainer, module, None, BATCH, batch)
    trainer.callback_metrics = metrics
    progress.on_train_epoch_end(trainer, module)
    assert capsys.readouterr().out == "epoch 3/4  loss 1.250  top1 37.5%  4 clips/s  left 0:00:20\n"
    trainer = trainer_at(3, val_top1=0.5)
    progress.on_train_batch_end(trainer, module, None, BATCH, 4)
    progress.on_train_epoch_end(trainer, module)
    assert capsys.readouterr().out.endswith("  left 0:00:00  val top1 50.0%\n")


def test_run_resumed_in_the_middle_of_an_epoch(
    clock: Clock, module: VideoTrainingModule, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trainer_at(0)
    progress = started(trainer, module)  # without the start of the epoch
    clock.now = 102
    progress.on_train_batch_end(trainer, module, None, BATCH, 4)
    # The fifth of five batches in 2 s makes 10 s an epoch; 3 epochs are left.
    shown = {"loss": "-", "top1": "-", "clips_per_s": "8", "left": "0:00:30"}
    assert progress.fields(trainer, module) == shown
    progress.on_train_epoch_end(trainer, module)
    assert capsys.readouterr().out == "epoch 1/4  loss 1.250  top1 37.5%  8 clips/s  left 0:00:30\n"


def test_time_left_of_a_run_resumed_before_a_validation_is_that_of_the_epochs_trained_since(
    clock: Clock, module: VideoTrainingModule, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trainer_at(0, val_top1=0.5)
    trainer.check_val_every_n_epoch = 1
    progress = started(trainer, module)
    clock.now = 107
    progress.on_train_epoch_end(trainer, module)  # only the validation was left
    assert capsys.readouterr().out == "epoch 1/4  val top1 50.0%\n"
    trainer = trainer_at(1)
    progress.on_train_epoch_start(trainer, module)
    clock.now = 109
    progress.on_train_batch_end(trainer, module, None, BATCH, 0)
    # One of five batches in 2 s; 2.8 epochs are left.
    assert progress.fields(trainer, module)["left"] == "0:00:28"


def test_a_line_longer_than_the_terminal_is_broken_between_words(
    clock: Clock, module: VideoTrainingModule, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    trainer = trainer_at(0, val_top1=0.5)
    trainer.check_val_every_n_epoch = 1
    progress = started(trainer, module)
    clock.now = 102
    progress.on_train_batch_end(trainer, module, None, BATCH, 4)
    progress.on_train_epoch_end(trainer, module)
    lines = ["epoch 1/4  loss 1.250  top1 37.5%  8 clips/s  left 0:00:30", "  val top1 50.0%"]
    assert capsys.readouterr().out.splitlines() == lines


def test_each_part_of_an_epoch_has_a_bar_that_is_removed(
    tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    config = configured(tiny, tmp_path / "run", optim={"precise_bn_batches": 1})
    config.trainer.progress_bar = True
    train(config)
    printed = capsys.readouterr().err
    bars = [
        "epoch 1/1 .* loss .* top1 .* clips/s left ",
        "precise batch norm .* 0/1 .* left ",
        "validate epoch 1/1 .* left ",
    ]
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", printed)
    assert [i for i, bar in enumerate(bars) if re.search(bar, plain)] == [0, 1, 2]
    # The last bar is erased, and the cursor is shown again.
    assert printed.endswith("\r\x1b[1A\x1b[2K")
    assert printed.rindex("\x1b[?25h") > printed.rindex("validate")


def test_other_processes_print_no_line(
    clock: Clock, module: VideoTrainingModule, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trainer_at(0)
    trainer.is_global_zero = False
    progress = started(trainer, module)
    progress.on_train_epoch_end(trainer, module)
    assert capsys.readouterr().out == ""
