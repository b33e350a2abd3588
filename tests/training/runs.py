"""Helpers for tests of whole training runs."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from dnl_video.cli.main import main
from dnl_video.config import TrainConfig
from dnl_video.data.loaders import VideoDataModule
from dnl_video.errors import Terminated
from dnl_video.models.weights.find import find_checkpoint
from dnl_video.results.reader import Predictions, read_predictions
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.run import train
from tests.conftest import TinyRun
from tests.test_recipes import load


class Killed(RuntimeError):
    """Ends a run in the middle of a step; it leaves the same files as a real kill."""


def kill() -> None:
    raise Killed


def interrupted(config: TrainConfig, owner: type, method: str, call: int, how: Callable[[], None] = kill) -> str | None:
    """Continue a run until the given call of a method; return what a stopped run reports as saved, None if killed."""
    original, calls = getattr(owner, method), iter(range(call + 1))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if next(calls, None) == call:
            how()
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, wrapped)
        with pytest.raises((Killed, Terminated)) as error:
            train(config, resume="auto")
    return error.value.saved if isinstance(error.value, Terminated) else None


def configured(tiny: TinyRun, output: Path, **changes: dict[str, Any]) -> TrainConfig:
    """Return the tiny recipe with another output folder, no progress bar, and changed values by section."""
    config = load(tiny.config)
    config.output_dir = str(output)
    for section, values in ({"trainer": {}} | changes).items():
        extra = {"progress_bar": False} if section == "trainer" else {}
        setattr(config, section, dataclasses.replace(getattr(config, section), **extra, **values))
    return config


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run's last checkpoint."""
    return torch.load(find_checkpoint(output, last=True), weights_only=True)["state_dict"]


def logged(output: Path, column: str, log: str = "csv") -> dict[int, float]:
    """Return the values of a column of a run's CSV log by step; of several rows of a step, the last."""
    with (output / "logs" / log / "metrics.csv").open(encoding="utf-8") as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row.get(column)}


def data_of(config: TrainConfig) -> VideoDataModule:
    return VideoDataModule(config.data, config.preprocessing, config.augment, config.validation, seed=config.seed)


def fit(config: TrainConfig, *callbacks: Callback, **options: Any) -> VideoTrainingModule:
    """Train one epoch with these callbacks only."""
    torch.manual_seed(0)
    module = VideoTrainingModule(config, [str(i) for i in range(config.model.num_classes)])
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(module, datamodule=data_of(config))
    return module


def check_logged_top1(run: Path, tiny: TinyRun, output: Path, clips: int = 1, crops: int = 1) -> Predictions:
    """Evaluate the best checkpoint like the validation did; compare top-1 with that in the checkpoint's name."""
    words = ["--checkpoint", str(run), "--manifest", str(tiny.val), "--output", str(output)]
    views = ["--num-clips", str(clips), "--num-crops", str(crops), "--num-workers", "0", "--device", "cpu"]
    assert main(["evaluate", *words, *views]) == 0
    predictions = read_predictions(output)
    top1 = (predictions.scores.argmax(axis=1) == predictions.label).mean()
    assert float(find_checkpoint(run).stem.rpartition("_")[2]) == pytest.approx(top1, abs=1e-4)
    return predictions
