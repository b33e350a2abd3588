"""What a person sees while a network trains: bars, one line per epoch, and the curves of the run."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from dnl_video.errors import visible
from dnl_video.progress_bar import is_quiet, progress_bar

CURVES_NAME = "curves.png"
_REFRESH_S = 0.1
_TEXTS = ("loss {task.fields[loss]}", "top1 {task.fields[top1]}", "{task.fields[clips_per_s]} clips/s")


class ClipProgress(Callback):
    """A bar with loss, top-1, clips/s and the time left for the run; one for validation; and one line per epoch.

    It must come after the callbacks that print or use `track` at the start of a validation.

    Args:
        bar: Draw the bars on a terminal; the lines of the epochs are always printed.
    """

    def __init__(self, bar: bool = True) -> None:
        self.notes: list[str] = []  # of other callbacks, for the end of the epoch's line
        self._drawn = bar and sys.stderr.isatty()
        self._bar = progress_bar(disable=True)
        self._fit_start = self._epoch_start = self._refreshed = self._clips_per_s = self._position = 0.0
        self._first: float | None = None  # the position of the first step, in epochs
        self._steps = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock of the run, and that of an epoch which is resumed in the middle."""
        self._drawn = self._drawn and trainer.is_global_zero
        self.on_train_epoch_start(trainer, pl_module)
        self._fit_start = self._epoch_start

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock of the epoch."""
        self._epoch_start, self._steps = time.monotonic(), 0
        self._open(_epoch(trainer), trainer.num_training_batches, *_TEXTS, **self.fields(trainer, pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count batches and time."""
        batches = trainer.num_training_batches
        if self._first is None:
            self._first = trainer.current_epoch + batch_idx / batches
        self._position = trainer.current_epoch + (batch_idx + 1) / batches
        self._steps += 1
        clips = self._steps * len(batch["label"]) * trainer.world_size
        self._clips_per_s = clips / max(time.monotonic() - self._epoch_start, 1e-9)
        if self._drawn and time.monotonic() - self._refreshed >= _REFRESH_S:  # reading the loss waits for a GPU
            self._refreshed = time.monotonic()
            fields = self.fields(trainer, pl_module)
            self._bar.update(self._bar.task_ids[0], completed=batch_idx + 1, refresh=True, **fields)

    def fields(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return the values shown with the training bar."""
        loss = trainer.callback_metrics.get("train/loss")
        return {
            "loss": "-" if loss is None else f"{float(loss):.3f}",
            "top1": "-" if loss is None else f"{100 * module.running_top1():.1f}%",
            "clips_per_s": f"{self._clips_per_s:.0f}",
            "left": self._left(trainer.max_epochs),
        }

    def track(self, items: Iterable[Any], total: int, description: str) -> Iterable[Any]:
        """Yield the items, with a bar; the next bar replaces it."""
        self._open(description, total)
        return self._bar.track(items, total, task_id=self._bar.task_ids[0])

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Draw the bar of the validation."""
        self._open(f"validate {_epoch(trainer)}", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Count batches."""
        self._bar.update(self._bar.task_ids[0], advance=1, refresh=True)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the line of the epoch, after its validation."""
        self._bar.stop()
        pl_module.log("train/clips_per_s", self._clips_per_s, batch_size=1, sync_dist=True)
        parts = [_epoch(trainer)]
        # A run resumed just before validation has no training metrics of this epoch.
        if self._steps:
            loss, train_top1 = float(pl_module.train_loss.compute()), float(pl_module.train_top1.compute())
            parts += [f"loss {loss:.3f}", f"top1 {100 * train_top1:4.1f}%", f"{self._clips_per_s:.0f} clips/s"]
            parts.append(f"left {self._left(trainer.max_epochs)}")
        else:
            self._fit_start = time.monotonic()
        # A run resumed from a checkpoint of this epoch's validation does not repeat it.
        top1 = trainer.callback_metrics.get("val/top1")
        if top1 is not None and (trainer.current_epoch + 1) % trainer.check_val_every_n_epoch == 0:
            parts.append(f"val top1 {100 * float(top1):4.1f}%")
            if failed := int(trainer.callback_metrics.get("val/failed_videos", 0)):
                parts.append(f"({failed} val videos failed)")
        line = "  ".join([*parts, *self.notes])
        if sys.stdout.isatty():
            line = textwrap.fill(line, shutil.get_terminal_size().columns, subsequent_indent="  ")
        if trainer.is_global_zero and not is_quiet():
            print(line, flush=True)
        self.notes.clear()

    def on_exception(self, *_: Any) -> None:
        """Remove the bar, so that the message has a line of its own."""
        self._bar.stop()

    def _open(self, description: str, total: float, *texts: str, **fields: Any) -> None:
        self._bar.stop()
        # Without a refreshing thread: loaders are forked, and a fork must not inherit a lock that a thread holds.
        options = {"transient": True, "auto_refresh": False, "redirect_stdout": sys.stdout.isatty()}
        self._bar = progress_bar(*texts, elapsed=not texts, disable=not self._drawn, **options)
        self._bar.add_task(description, total=total, **fields)
        self._bar.start()

    def _left(self, epochs: int) -> str:
        if self._first is None:
            return "-:--:--"
        pace = (time.monotonic() - self._fit_start) / (self._position - self._first)
        minutes, seconds = divmod(round(pace * (epochs - self._position)), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


class Curves(Callback):
    """Draws curves.png after each validation and at the end; when that fails, it warns and the training goes on.

    Args:
        output: The run's folder.
    """

    def __init__(self, output: Path) -> None:
        self.output = output

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Draw the epochs before this one; Lightning logs the metrics of an epoch after all hooks of the epoch."""
        if trainer.current_epoch and trainer.current_epoch % trainer.check_val_every_n_epoch == 0:
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw all epochs."""
        try:
            if trainer.is_global_zero:
                from dnl_video.report.curves import draw_training, read_curves
                from dnl_video.report.figures import save_png

                save_png(draw_training(read_curves(self.output)), self.output / CURVES_NAME)
        except Exception as error:
            print(visible(f"warning: the curves of {self.output} cannot be drawn ({error})"), file=sys.stderr)


def _epoch(trainer: Any) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
