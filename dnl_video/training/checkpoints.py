"""Which checkpoints a run keeps."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.callbacks import ModelCheckpoint

from dnl_video.config import TrainerConfig
from dnl_video.models.weights.checkpoint import LAST_NAME


def checkpoint_callbacks(settings: TrainerConfig, output: Path) -> list[ModelCheckpoint]:
    """Return the callbacks that write the best checkpoint (the first of them) and the last one."""
    best = ModelCheckpoint(
        dirpath=output / "checkpoints",
        monitor="val/top1",
        mode="max",
        filename="best-epoch{epoch:03d}-top1_{val/top1:.4f}",
        auto_insert_metric_name=False,
    )
    last = ModelCheckpoint(
        dirpath=output / "checkpoints",
        filename=LAST_NAME,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    callbacks = [best, last]
    if settings.save_every_n_steps is not None:
        callbacks.append(
            ModelCheckpoint(
                dirpath=output / "checkpoints",
                filename=LAST_NAME,
                every_n_train_steps=settings.save_every_n_steps,
                enable_version_counter=False,
            )
        )
    return callbacks
