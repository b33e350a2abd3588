"""The checkpoints of a run: which are kept, when they are written, and how (atomically)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from dnl_video.errors import InputError
from dnl_video.files import atomic_path
from dnl_video.models.weights.find import LAST_NAME, PREVIOUS_NAME
from dnl_video.training.stopping import StopRequest


def best_checkpoint(output: Path) -> ModelCheckpoint:
    """Return the callback that keeps the checkpoint with the highest validation top-1."""
    return ModelCheckpoint(
        dirpath=output / "checkpoints",
        monitor="val/top1",
        mode="max",
        filename="best-epoch{epoch:03d}-top1_{val/top1:.4f}",
        auto_insert_metric_name=False,
        # A run killed after validation repeats it when resumed, and must write the same file.
        enable_version_counter=False,
    )


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after each epoch, before each validation, every N steps, and on a request to stop.

    It writes between optimiser steps only, so accumulated gradients are in no checkpoint. A checkpoint written before a
    validation marks it as started in Lightning's progress counters, so the resumed run validates first.

    Args:
        output: The run's folder.
        every_n_steps: Steps between checkpoints; None: only before validation and after epochs.
        request: The run's request to stop.
    """

    def __init__(self, output: Path, every_n_steps: int | None, request: StopRequest) -> None:
        self.path = output / "checkpoints" / f"{LAST_NAME}.ckpt"
        self.every_n_steps = every_n_steps
        self.request = request
        self._step = 0
        self._before_validation = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the step to count from."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimiser step: save if it is time, stop if requested."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        due = self.every_n_steps is not None and self._step % self.every_n_steps == 0
        if trainer.is_last_batch:
            every_n_epochs = trainer.check_val_every_n_epoch or 1
            self._before_validation = trainer.enable_validation and (trainer.current_epoch + 1) % every_n_epochs == 0
            if not self._before_validation:
                return  # on_train_epoch_end follows immediately
            due = True
        stop = self.request.any_process(trainer)
        if stop or due:
            self._save(trainer)
        self._before_validation = False
        if stop:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; stop if requested."""
        self._save(trainer)
        if self.request.any_process(trainer):
            self._stop(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Before a validation: mark all batches as completed and the first validation batch as started."""
        if self._before_validation:
            loops = checkpoint["loops"]["fit_loop"]
            for count in ("total", "current"):
                batches = loops["epoch_loop.batch_progress"][count]
                batches["completed"] = batches["processed"]
                validation = loops["epoch_loop.val_loop.batch_progress"][count]
                validation |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)

    def _stop(self, trainer: Trainer) -> NoReturn:
        self.request.stop(f"epoch {trainer.current_epoch + 1}, step {self._step} saved in {self.path}")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically; `previous.ckpt` keeps the `last.ckpt` before.

    Lightning writes to the system's temporary folder and moves the file; between disks that is a copy, not atomic.

    Args:
        intact: The checkpoint that was read to resume. A `last.ckpt` that this process neither read nor wrote may be
            damaged, and does not replace `previous.ckpt`.
    """

    def __init__(self, intact: Path | None = None) -> None:
        self._intact = intact and intact.resolve()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            InputError: It cannot be written; the checkpoints before it are unchanged.
        """
        path = Path(path)
        advice = "the checkpoints before it are kept: free disk space, and continue with --resume"
        with atomic_path(path, advice=advice) as temporary:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())  # last.ckpt must be on the disk before previous.ckpt changes
            except RuntimeError as error:
                raise OSError(" ".join(str(error).split())) from error
            if path.stem == LAST_NAME and path.resolve() == self._intact and path.exists():
                _keep(path, path.with_name(f"{PREVIOUS_NAME}.ckpt"))
        if path.stem == LAST_NAME:
            self._intact = path.resolve()


def _keep(path: Path, other: Path) -> None:
    """Give a file a second name, or rename it on a file system without hard links."""
    try:
        with atomic_path(other) as temporary:
            os.link(path, temporary)
    except InputError:
        path.replace(other)
