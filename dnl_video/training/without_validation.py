"""A training without a validation list: what otherwise happens before a validation happens at the end of epochs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch import nn


class WithoutValidation(Callback):
    """Runs callbacks at the end of the last epoch, in the mode and with the weights of an evaluation.

    The last checkpoint is the result of such a run, so it needs precise batch-norm statistics.

    Args:
        average: The EMA weights, if there are any; they are used like in a validation.
        callback: Its `on_validation_epoch_start` is called.
    """

    def __init__(self, average: WeightAveraging | None, callback: Callback) -> None:
        self.average = average
        self.callback = callback

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before `LastCheckpoint` writes the result."""
        if trainer.enable_validation or trainer.current_epoch + 1 != trainer.max_epochs:
            return
        with evaluation_mode(pl_module):
            if self.average is not None:
                self.average.on_validation_epoch_start(trainer, pl_module)
            self.callback.on_validation_epoch_start(trainer, pl_module)
            if self.average is not None:
                self.average.on_validation_epoch_end(trainer, pl_module)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode; afterwards each part has its mode back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
