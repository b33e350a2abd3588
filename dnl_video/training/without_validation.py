"""A training without a validation list: what otherwise happens before a validation happens at the end of epochs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch import nn

from dnl_video.training.attention_health import AttentionHealth
from dnl_video.training.callbacks import PreciseBatchNorm


class WithoutValidation(Callback):
    """Runs callbacks at the end of epochs, in the mode and with the weights of an evaluation.

    The last checkpoint is the result of such a run, so precise batch norm is computed at the end of the last epoch.

    Args:
        average: The EMA weights, if there are any; they are used like in a validation.
        precise: Computes precise batch norm.
        health: Measures the attention.
    """

    def __init__(self, average: WeightAveraging | None, precise: PreciseBatchNorm, health: AttentionHealth) -> None:
        self.average = average
        self.precise = precise
        self.health = health

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before `LastCheckpoint` writes the result."""
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            return
        with evaluation_mode(pl_module):
            if self.average is not None:
                self.average.on_validation_epoch_start(trainer, pl_module)
            if trainer.current_epoch + 1 == trainer.max_epochs:
                self.precise.on_validation_epoch_start(trainer, pl_module)
            self.health.measure_training_clips(trainer, pl_module)
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
