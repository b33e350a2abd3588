"""Videos that could not be read, accounted for: counted over all processes, logged once, and a limit.

The run folder's `failed_videos.jsonl` names each once, over all parts of a resumed run:

    {"path": "...", "reason": "...", "split": "train", "epoch": 3}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from dnl_video.data.dataset import VideoViews
from dnl_video.data.loaders import VideoDataModule, allowed_failures
from dnl_video.errors import InputError
from dnl_video.training.collectives import of_all_processes

LOG_NAME = "failed_videos.jsonl"


class FailureMonitor(Callback):
    """Log every video that could not be decoded once, and stop when too many training videos fail.

    Several processes tell each other what failed every `log_every_n_steps` steps and after an epoch; one alone knows
    at once.

    Args:
        max_failed_share: Share of the training videos, those missing on disk included, that may fail.
        folder: The run's folder, for the log; None writes none.
    """

    def __init__(self, max_failed_share: float, folder: Path | None = None) -> None:
        self.max_failed_share = max_failed_share
        self.failed: dict[str, str] = {}
        self._log = None if folder is None else folder / LOG_NAME
        self._logged: set[str] = set()
        self._new: dict[str, str] = {}
        self._new_in_validation: dict[str, str] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the log of a resumed run; a new run starts a new one."""
        if self._log is None or not self._log.exists():
            return
        if trainer.ckpt_path is None:
            if trainer.is_global_zero:
                self._log.unlink()
            return
        for line in self._log.read_text(encoding="utf-8").splitlines():
            try:
                self._logged.add(json.loads(line)["path"])
            except (ValueError, KeyError, TypeError):  # half a line of a killed run
                continue

    def note(self, failures: Iterable[tuple[str, str]]) -> None:
        """Take note of training videos that failed, (path, reason) each; `settle` counts them."""
        for path, reason in failures:
            if path not in self.failed:
                self._new.setdefault(path, reason)

    def settle(self, trainer: Trainer) -> None:
        """Count what all processes noted, log it, and stop when it is too much; all processes call it together.

        Raises:
            InputError: More training videos failed or are missing than `max_failed_share` allows.
        """
        new = {path: reason for path, reason in of_all_processes(self._new).items() if path not in self.failed}
        self.failed |= new
        self._new = {}
        self._tell(trainer, "train", new, "another video takes its place")
        datamodule: VideoDataModule = trainer.datamodule  # type: ignore[attr-defined]
        listed, lost = len(datamodule.train.records), self._lost(trainer)
        if lost > allowed_failures(listed, self.max_failed_share):
            files = ", ".join(sorted(self.failed)[:10])
            where = "" if self._log is None else f" (all are in {self._log})"
            raise InputError(
                f"{lost} of {listed} training videos failed or are missing, more than data.max_failed_share "
                f"{self.max_failed_share:g} allows: {files}{where}; repair or unlist them, or raise the share"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take note of the failures that came with the batch."""
        self.note(batch["failures"])
        every = trainer.log_every_n_steps if trainer.world_size > 1 else 1  # type: ignore[attr-defined]
        if (batch_idx + 1) % every == 0:
            self.settle(trainer)
        pl_module.log("train/failed_videos", float(self._lost(trainer)), on_step=True, batch_size=1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the rest."""
        self.settle(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count failures of validation anew."""
        self._new_in_validation = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: list[VideoViews],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take note of videos without views."""
        records = trainer.datamodule.val.records  # type: ignore[attr-defined]
        for item in batch:
            if item.error is not None:
                self._new_in_validation[records[item.index].path] = item.error

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log validation videos that failed; nothing takes their place, and accuracy is over the others."""
        failed = of_all_processes(self._new_in_validation)
        self._tell(trainer, "val", failed, "left out of the validation")
        pl_module.log("val/failed_videos", float(len(failed)), batch_size=1, sync_dist=True)

    def state_dict(self) -> dict[str, Any]:
        """Keep the list over a resume."""
        return {"failed": dict(self.failed)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the list."""
        self.failed = dict(state_dict["failed"])

    def _lost(self, trainer: Trainer) -> int:
        return len(self.failed) + len(trainer.datamodule.train_missing)  # type: ignore[attr-defined]

    def _tell(self, trainer: Trainer, split: str, failures: dict[str, str], consequence: str) -> None:
        """Print and log what was not yet."""
        new = {path: reason for path, reason in failures.items() if path not in self._logged}
        self._logged |= set(new)
        if not trainer.is_global_zero or not new:
            return
        for path, reason in new.items():
            print(f"warning: {path}: {reason}; {consequence}", file=sys.stderr)
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            entries = [{"path": p, "reason": r, "split": split, "epoch": trainer.current_epoch} for p, r in new.items()]
            with self._log.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in entries)
