"""Videos that cannot be read: count them over all processes, log each once, and stop when there are too many.

`failed_videos.jsonl` in the run's folder names each video once, also over the parts of a resumed run:

    {"path": "...", "reason": "...", "split": "train", "epoch": 3}  (from 1)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from dnl_video.data.dataset import VideoViews
from dnl_video.data.loaders import VideoDataModule, allowed_failures
from dnl_video.errors import InputError, visible
from dnl_video.files import append_json_lines, read_json_lines
from dnl_video.training.collectives import all_gather_dict

LOG_NAME = "failed_videos.jsonl"


class FailureMonitor(Callback):
    """Log every video that cannot be decoded once, and stop when too many training videos fail.

    Several processes exchange their failures every `log_every_n_steps` steps and after each epoch; a single process
    counts them after each batch.

    Args:
        max_failed_share: Share of the training videos that may fail or be missing on disk.
        folder: The run's folder, for the log; None writes no log.
    """

    def __init__(self, max_failed_share: float, folder: Path | None = None) -> None:
        self.max_failed_share = max_failed_share
        self.failed: dict[str, str] = {}
        self._log = None if folder is None else folder / LOG_NAME
        self._logged: set[str] = set()
        self._new: dict[str, str] = {}
        self._new_in_validation: dict[str, str] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the log of a resumed run; delete that of an earlier run."""
        if self._log is None:
            return
        if trainer.ckpt_path is not None:
            entries = read_json_lines(self._log)
            self._logged |= {entry["path"] for entry in entries if isinstance(entry, dict) and "path" in entry}
        elif trainer.is_global_zero:
            self._log.unlink(missing_ok=True)

    def note(self, failures: Iterable[tuple[str, str]]) -> None:
        """Record failed training videos, (path, reason) each; `settle` counts them."""
        for path, reason in failures:
            if path not in self.failed:
                self._new.setdefault(path, reason)

    def settle(self, trainer: Trainer) -> None:
        """Count and log the failures of all processes, which call this together; stop when there are too many.

        Raises:
            InputError: More training videos failed or are missing than `max_failed_share` allows.
        """
        new = {path: reason for path, reason in all_gather_dict(self._new).items() if path not in self.failed}
        self.failed |= new
        self._new = {}
        self._report(trainer, "train", new, "replaced by another video")
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
        """Record the failures of the batch."""
        self.note(batch["failures"])
        every = trainer.log_every_n_steps if trainer.world_size > 1 else 1  # type: ignore[attr-defined]
        if (batch_idx + 1) % every == 0:
            self.settle(trainer)
        pl_module.log("train/failed_videos", float(self._lost(trainer)), on_step=True, batch_size=1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the failures since the last exchange."""
        self.settle(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: list[VideoViews],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Record the videos without views."""
        records = trainer.datamodule.val.records  # type: ignore[attr-defined]
        for item in batch:
            if item.error is not None:
                self._new_in_validation[records[item.index].path] = item.error

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log failed validation videos. They are not replaced; accuracy is over the others."""
        failed = all_gather_dict(self._new_in_validation)
        self._new_in_validation = {}
        self._report(trainer, "val", failed, "left out of the validation")
        pl_module.log("val/failed_videos", float(len(failed)), batch_size=1, sync_dist=True)

    def state_dict(self) -> dict[str, Any]:
        """Store the failed videos in the checkpoint."""
        return {"failed": dict(self.failed)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the failed videos."""
        self.failed = dict(state_dict["failed"])

    def _lost(self, trainer: Trainer) -> int:
        return len(self.failed) + len(trainer.datamodule.train_missing)  # type: ignore[attr-defined]

    def _report(self, trainer: Trainer, split: str, failures: dict[str, str], consequence: str) -> None:
        """Print and log the failures that are not logged yet."""
        new = {path: reason for path, reason in failures.items() if path not in self._logged}
        self._logged |= set(new)
        if not trainer.is_global_zero or not new:
            return
        for path, reason in new.items():
            print(visible(f"warning: {path}: {reason}; {consequence}"), file=sys.stderr)
        if self._log is not None:
            append_json_lines(
                self._log,
                *({"path": p, "reason": r, "split": split, "epoch": trainer.current_epoch + 1} for p, r in new.items()),
            )
