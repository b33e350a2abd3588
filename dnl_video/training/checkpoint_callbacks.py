"""Which checkpoints a run keeps, when it writes them, and that each is whole or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from dnl_video.errors import InputError
from dnl_video.models.weights.checkpoint import LAST_NAME, PREVIOUS_NAME
from dnl_video.training.stopping import StopRequest


def best_checkpoint(output: Path) -> ModelCheckpoint:
    """Return the callback that keeps the checkpoint with the highest validation top-1."""
    return ModelCheckpoint(
        dirpath=output / "checkpoints",
        monitor="val/top1",
        mode="max",
        filename="best-epoch{epoch:03d}-top1_{val/top1:.4f}",
        auto_insert_metric_name=False,
        # A validation that is repeated, because the run was killed after it, writes the same file again.
        enable_version_counter=False,
    )


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after each epoch, before each validation, every so many steps, and when asked to stop.

    Always between optimiser steps: what is accumulated of a step is in no checkpoint. One that is written before a
    validation says so in Lightning's own terms, so that the resumed run validates before it goes on.

    Args:
        output: The run's folder.
        every_n_steps: Steps between checkpoints; None writes those around validation and epochs only.
        request: Asks to stop.
    """

    def __init__(self, output: Path, every_n_steps: int | None, request: StopRequest) -> None:
        self.path = output / "checkpoints" / f"{LAST_NAME}.ckpt"
        self.every_n_steps = every_n_steps
        self.request = request
        self._step = 0
        self._before_validation = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count steps from here."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after a step where it is time to, and stop where that is asked."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        due = self.every_n_steps is not None and self._step % self.every_n_steps == 0
        if trainer.is_last_batch:
            every_n_epochs = trainer.check_val_every_n_epoch or 1
            self._before_validation = trainer.enable_validation and (trainer.current_epoch + 1) % every_n_epochs == 0
            if not self._before_validation:
                return  # the end of the epoch follows at once
            due = True
        stop = self.request.agreed(trainer)
        if stop or due:
            self._save(trainer)
        self._before_validation = False
        if stop:
            self._end(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and stop where that is asked."""
        self._save(trainer)
        if self.request.agreed(trainer):
            self._end(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say that validation comes next: all batches are done, and the first of validation has begun."""
        if self._before_validation:
            loops = checkpoint["loops"]["fit_loop"]
            for count in ("total", "current"):
                batches = loops["epoch_loop.batch_progress"][count]
                batches["completed"] = batches["processed"]
                loops["epoch_loop.val_loop.batch_progress"][count] |= {
                    "ready": 1,
                    "started": 1,
                    "processed": 0,
                    "completed": 0,
                }

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)

    def _end(self, trainer: Trainer) -> NoReturn:
        self.request.end(f"epoch {trainer.current_epoch + 1}, step {self._step} saved in {self.path}")


class WholeFiles(TorchCheckpointIO):
    """Writes beside, down to the disk, and renames; `previous.ckpt` keeps what `last.ckpt` was before.

    Lightning's own writes to the system's temporary folder and moves, which copies where that is another disk.

    Args:
        intact: The checkpoint that was read to resume from. A `last.ckpt` that this process has neither read nor
            written may be damaged, and takes no good one's place.
    """

    def __init__(self, intact: Path | None = None) -> None:
        self._intact = intact and intact.resolve()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            InputError: It cannot be written; what was there is as it was.
        """
        path = Path(path)
        # No .ckpt, and always the same: what a kill leaves is taken for no checkpoint, and written over by the next.
        beside = path.with_name(f"{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.stem == LAST_NAME and path.resolve() == self._intact and path.exists():
                _keep(path, path.with_name(f"{PREVIOUS_NAME}.ckpt"))
            beside.replace(path)
            _sync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise InputError(
                f"{path}: cannot be written ({reason}); the checkpoints before it are kept: make room, and go on with "
                "--resume"
            ) from error
        if path.stem == LAST_NAME:
            self._intact = path.resolve()


def _keep(path: Path, name: Path) -> None:
    """Give a file another name as well, or where a file system knows one name only, instead."""
    link = name.with_name(f"{name.name}.part")
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
        link.replace(name)
        # Renaming one name of a file to another of it does nothing.
        link.unlink(missing_ok=True)
    except OSError:
        path.replace(name)


def _sync_folder(folder: Path) -> None:
    # The new name outlives a power failure, too. Windows opens no folders.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
