"""What a person sees while a network trains: a bar for each part of an epoch, and one line per epoch."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.progress import Progress

from dnl_video.progress_bar import is_quiet, progress_bar
from dnl_video.training.module import VideoTrainingModule

_REFRESH_S = 0.1
_Item = TypeVar("_Item")


class ClipProgress(Callback):
    """A bar with loss, top-1, clips/s and the time left for the run; one for validation; and one line per epoch.

    It must come after the callbacks that print or use `track` at the start of a validation.

    Args:
        bar: Draw the bars on a terminal; the lines of the epochs are always printed.
    """

    def __init__(self, bar: bool = True) -> None:
        self.notes: list[str] = []
        """Other callbacks append notes here; they are printed at the end of the epoch's line."""
        self._drawn = bar and sys.stderr.isatty()
        self._bar: Progress | None = None
        self._fit_start = self._epoch_start = self._refreshed = 0.0
        self._first: float | None = None  # position of the first step in epochs
        self._position = 0.0
        self._steps = 0
        self._clips_per_s = 0.0
        self._validated = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Draw in the first process only."""
        self._drawn = self._drawn and trainer.is_global_zero

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the run."""
        # on_train_epoch_start is not called for an epoch that is resumed in the middle.
        self.on_train_epoch_start(trainer, pl_module)
        self._fit_start = self._epoch_start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch_start, self._steps = time.monotonic(), 0
        assert isinstance(pl_module, VideoTrainingModule)
        texts = ("loss {task.fields[loss]}", "top1 {task.fields[top1]}", "{task.fields[clips_per_s]} clips/s")
        self._open(_epoch(trainer), trainer.num_training_batches, *texts, **self.fields(trainer, pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count batches and time."""
        assert isinstance(pl_module, VideoTrainingModule)
        batches = max(int(trainer.num_training_batches), 1)
        if self._first is None:
            self._first = trainer.current_epoch + batch_idx / batches
        self._position = trainer.current_epoch + (batch_idx + 1) / batches
        self._steps += 1
        clips = self._steps * len(batch["label"]) * trainer.world_size
        self._clips_per_s = clips / max(time.monotonic() - self._epoch_start, 1e-9)
        if self._bar is not None and self._due():
            self._update(completed=batch_idx + 1, **self.fields(trainer, pl_module))

    def fields(self, trainer: Trainer, module: VideoTrainingModule) -> dict[str, str]:
        """Return the values shown with the training bar."""
        loss = trainer.callback_metrics.get("train/loss")
        return {
            "loss": "-" if loss is None else f"{float(loss):.3f}",
            "top1": "-" if loss is None else f"{100 * module.running_top1():.1f}%",
            "clips_per_s": f"{self._clips_per_s:.0f}",
            "left": self._left(trainer),
        }

    def track(self, items: Iterable[_Item], total: int, description: str) -> Iterator[_Item]:
        """Yield the items, with a bar; the next bar replaces it."""
        self._open(description, total)
        for done, item in enumerate(items):
            if self._due():
                self._update(completed=done)
            yield item

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the bar of the validation."""
        self._open(f"validate {_epoch(trainer)}", sum(trainer.num_val_batches))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count batches."""
        if self._due():
            self._update(completed=batch_idx + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        self._close()
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch, after its validation."""
        assert isinstance(pl_module, VideoTrainingModule)
        self._close()
        pl_module.log("train/clips_per_s", self._clips_per_s, batch_size=1, sync_dist=True)
        parts = [_epoch(trainer)]
        # A run resumed just before validation has no training metrics of this epoch.
        if self._steps:
            parts.append(f"loss {float(pl_module.train_loss.compute()):.3f}")
            parts.append(f"top1 {100 * float(pl_module.train_top1.compute()):4.1f}%")
            parts.append(f"{self._clips_per_s:.0f} clips/s  left {self._left(trainer)}")
        else:
            self._fit_start = time.monotonic()
        if self._validated:
            parts.append(f"val top1 {100 * float(trainer.callback_metrics['val/top1']):4.1f}%")
            if failed := int(trainer.callback_metrics.get("val/failed_videos", 0)):
                parts.append(f"({failed} val videos failed)")
        line = "  ".join([*parts, *self.notes])
        if sys.stdout.isatty():
            line = textwrap.fill(line, shutil.get_terminal_size().columns, subsequent_indent="  ")
        if trainer.is_global_zero and not is_quiet():
            print(line, flush=True)
        self.notes.clear()
        self._validated = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the message has a line of its own."""
        self._close()

    def _open(self, description: str, total: float, *texts: str, **fields: Any) -> None:
        self._close()
        if self._drawn:
            # Without a refreshing thread: loaders are forked, and a fork must not inherit a lock that a thread holds.
            self._bar = progress_bar(*texts, transient=True, auto_refresh=False, redirect_stdout=sys.stdout.isatty())
            self._bar.add_task(description, total=total, **fields)
            self._bar.start()

    def _due(self) -> bool:
        return self._bar is not None and time.monotonic() - self._refreshed >= _REFRESH_S

    def _update(self, **values: Any) -> None:
        assert self._bar is not None
        self._refreshed = time.monotonic()
        self._bar.update(self._bar.task_ids[0], refresh=True, **values)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _left(self, trainer: Trainer) -> str:
        if self._first is None or trainer.max_epochs is None:
            return "-:--:--"
        pace = (time.monotonic() - self._fit_start) / (self._position - self._first)
        minutes, seconds = divmod(round(pace * (trainer.max_epochs - self._position)), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _epoch(trainer: Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
