"""The checkpoints of a run: which are kept, when they are written, and how (atomically)."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from dnl_video.errors import InputError
from dnl_video.files import atomic_path, list_folder, make_folder
from dnl_video.models.weights.find import LAST_NAME, PREVIOUS_NAME
from dnl_video.training.stopping import StopRequest


class BestCheckpoint(Checkpoint):
    """Keeps the checkpoint of the best validation: the highest top-1, then the lowest loss, then the latest epoch.

    It also stops the run after ``patience`` validations that were not better; all processes have the same metrics.
    Its state names the file without its folder, so a copied run knows its best checkpoint.

    Args:
        output: The run's folder.
        patience: Validations without a better one before the run stops; None: it does not stop.
    """

    def __init__(self, output: Path, patience: int | None = None) -> None:
        self.folder = output / "checkpoints"
        self.name: str | None = None
        self._score = (0.0, 0.0)  # top-1, negative loss
        self._patience = patience
        self._improved = self._waited = 0  # epoch (from 1) of the last better validation, and validations since

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if no validation was better, and remove the best checkpoint before."""
        top1, loss = (float(trainer.callback_metrics[f"val/{name}"]) for name in ("top1", "loss"))
        before, epoch = self.name, trainer.current_epoch + 1
        if before is None or not self._improved or (top1, -loss) > self._score:
            self._improved = epoch
        self._waited = (epoch - self._improved) // (trainer.check_val_every_n_epoch or 1)
        if self._patience is not None and self._waited >= self._patience:
            trainer.should_stop = True
        if before is not None and (top1, -loss) < self._score:
            return
        # A run killed after validation repeats it when resumed, and writes the same file.
        self.name, self._score = f"best-epoch-{epoch:03d}-top1_{top1:.4f}.ckpt", (top1, -loss)
        trainer.save_checkpoint(self.folder / self.name, weights_only=False)
        if before not in (None, self.name) and trainer.is_global_zero:
            (self.folder / str(before)).unlink(missing_ok=True)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the best checkpoint of a run that is continued in another folder; forget one that is gone."""
        if self.name is None or (self.folder / self.name).is_file():
            return
        source = Path(str(trainer.ckpt_path)).with_name(self.name)
        if not source.is_file():
            self.name = None
        elif trainer.is_global_zero:
            make_folder(self.folder)
            with atomic_path(self.folder / self.name) as temporary:
                shutil.copyfile(source, temporary)

    def state_dict(self) -> dict[str, Any]:
        """Store the best checkpoint's name and score, and the count of `patience`, in every checkpoint."""
        return {"name": self.name, "score": self._score, "improved": self._improved, "waited": self._waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` stored."""
        self.name, self._score = state_dict["name"], tuple(state_dict["score"])
        self._improved, self._waited = state_dict.get("improved", 0), state_dict.get("waited", 0)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the best checkpoint of a run of version 0.1, which has Lightning's ModelCheckpoint and no loss."""
        for key, state in checkpoint["callbacks"].items():
            if key.startswith("ModelCheckpoint") and state["best_model_path"]:
                self.name, self._score = (
                    Path(state["best_model_path"]).name,
                    (float(state["best_model_score"]), -math.inf),
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
            InputError: It cannot be written; the checkpoints before it, if any, are unchanged.
        """
        path = Path(path)
        advice = "no checkpoint was kept: free disk space, and start again"
        if list_folder(path.parent, "[!.]*.ckpt"):
            advice = "the checkpoints before it are kept: free disk space, and continue with --resume"
        with atomic_path(path, advice=advice) as temporary:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())  # last.ckpt must be on the disk before previous.ckpt changes
            except RuntimeError as error:
                # torch's own words hide the system's error, for example a full disk.
                cause = error.__context__
                raise cause if isinstance(cause, OSError) else OSError(" ".join(str(error).split())) from error
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
