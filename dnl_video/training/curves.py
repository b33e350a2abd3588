"""Draw the curves of a run into its folder while it trains."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from dnl_video.errors import visible

CURVES_NAME = "curves.png"
_LARGEST_SHARE = 0.05  # of the time of the training


class Curves(Callback):
    """Draws curves.png after each epoch and at the end; when that fails, it warns and the training goes on.

    Lightning logs the training metrics of an epoch after all hooks of the epoch, so the next hook draws them. Epochs of
    seconds are not all drawn.

    Args:
        output: The run's folder.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._next = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the epochs before this one."""
        if trainer.current_epoch and time.monotonic() >= self._next:
            self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw all epochs."""
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        try:
            from dnl_video.report.curves import draw_training, read_curves
            from dnl_video.report.figures import save_png

            start = time.monotonic()
            save_png(draw_training(read_curves(self._output)), self._output / CURVES_NAME)
            self._next = time.monotonic() + (time.monotonic() - start) / _LARGEST_SHARE
        except Exception as error:
            self._next = float("inf")
            print(visible(f"warning: the curves of {self._output} cannot be drawn ({error})"), file=sys.stderr)
