"""Precise batch norm, by fvcore, and what a training without validation needs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch import nn

from dnl_video.data.loaders import VideoDataModule
from dnl_video.training.attention_health import AttentionHealth
from dnl_video.training.collectives import all_reduce_mean
from dnl_video.training.failures import FailureMonitor
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.progress import ClipProgress


class PreciseBatchNorm(Callback):
    """Recompute batch-norm statistics over training clips before each validation (Wu & Johnson 2021, section 3).

    Args:
        num_batches: Batches per process to average over, at most those of an epoch.
        failures: Records the videos that cannot be read.
        progress: Draws a bar.
    """

    def __init__(
        self, num_batches: int, failures: FailureMonitor | None = None, progress: ClipProgress | None = None
    ) -> None:
        self.num_batches = num_batches
        self.failures = failures
        self.progress = progress

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Update the statistics in place; the random state and the order of the training clips do not change."""
        assert isinstance(pl_module, VideoTrainingModule)
        network = pl_module.network
        norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        # Frozen layers keep their statistics.
        layers = [m for m in norms if all(p.requires_grad for p in m.parameters())]
        if trainer.sanity_checking or trainer.state.fn != "fit" or not layers or not self.num_batches:
            return
        datamodule: VideoDataModule = trainer.datamodule  # type: ignore[attr-defined]
        loader = datamodule.precise_bn_dataloader(trainer.current_epoch)
        num_batches = min(self.num_batches, len(loader))
        tracked = loader if self.progress is None else self.progress.track(loader, num_batches, "precise batch norm")

        def clips() -> Iterator[torch.Tensor]:
            for batch in tracked:
                if self.failures is not None:
                    self.failures.note(batch["failures"])
                yield pl_module.normalized(batch["clip"].to(pl_module.device))

        # Only batch norm is in training mode, because dropout would draw from the global random state.
        network.eval()
        for layer in layers:
            layer.train()
        buffers = {m: (m.running_mean, m.running_var) for m in get_bn_modules(network)}
        counters = [m.num_batches_tracked for m in layers if m.num_batches_tracked is not None]
        trained = [counter.clone() for counter in counters]
        with trainer.precision_plugin.forward_context():
            update_bn_stats(network, clips(), num_iters=num_batches)
        with torch.no_grad():
            for layer, (mean, variance) in buffers.items():
                own_mean, own_variance = layer.running_mean, layer.running_var
                # fvcore assigns new tensors, but DDP and the optimiser state refer to the old ones.
                layer.running_mean, layer.running_var = mean, variance
                mean.copy_(all_reduce_mean(own_mean))
                # Total variance: within processes plus between their means.
                variance.copy_(all_reduce_mean(own_variance + (own_mean - mean).square()))
            for counter, batches in zip(counters, trained, strict=True):
                counter.copy_(batches)
        network.eval()
        if self.failures is not None:
            self.failures.settle(trainer)


class WithoutValidation(Callback):
    """Without a validation list, measures attention and, for the last checkpoint, computes precise batch norm.

    It uses the EMA weights, if there are any (``averages``), as a validation does.
    """

    def __init__(self, averages: list[WeightAveraging], precise: PreciseBatchNorm, health: AttentionHealth) -> None:
        self.averages, self.precise, self.health = averages, precise, health

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before `LastCheckpoint` saves."""
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            return
        pl_module.eval()
        for average in self.averages:
            average.on_validation_epoch_start(trainer, pl_module)
        if trainer.current_epoch + 1 == trainer.max_epochs:
            self.precise.on_validation_epoch_start(trainer, pl_module)
        self.health.measure_training_clips(trainer, pl_module)
        for average in self.averages:
            average.on_validation_epoch_end(trainer, pl_module)
        pl_module.train()
