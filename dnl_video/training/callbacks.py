"""Callbacks: precise batch norm (by fvcore), and progress in clips."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import nn

from dnl_video.data.loaders import VideoDataModule
from dnl_video.training.collectives import all_reduce_mean
from dnl_video.training.failures import FailureMonitor
from dnl_video.training.module import VideoTrainingModule


class PreciseBatchNorm(Callback):
    """Recompute batch-norm statistics over training clips before each validation (Wu & Johnson 2021, section 3).

    Args:
        num_batches: Batches per process to average over, at most those of an epoch.
        failures: Records the videos that cannot be read.
    """

    def __init__(self, num_batches: int, failures: FailureMonitor | None = None) -> None:
        self.num_batches = num_batches
        self.failures = failures

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

        def clips() -> Iterator[torch.Tensor]:
            for batch in loader:
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
            update_bn_stats(network, clips(), num_iters=min(self.num_batches, len(loader)))
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


class ClipProgress(TQDMProgressBar):
    """A bar with loss, top-1, clips/s and the time left for the run, and one line per epoch.

    Args:
        bar: Draw the bar on a terminal; the lines of the epochs are always printed.
    """

    def __init__(self, bar: bool = True) -> None:
        super().__init__(refresh_rate=1 if bar and sys.stderr.isatty() else 0, leave=False)
        self._fit_start = self._epoch_start = 0.0
        self._first_epoch = self._steps = 0
        self._clips_per_s = self._epochs_run = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the run."""
        super().on_train_start(trainer, pl_module)
        # on_train_epoch_start is not called for an epoch that is resumed in the middle.
        self._fit_start = self._epoch_start = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        super().on_train_epoch_start(trainer, pl_module)
        self._epoch_start, self._steps = time.monotonic(), 0
        if self.is_enabled:
            self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count batches and time."""
        clips = len(batch["label"]) * trainer.world_size
        self._steps += 1
        self._clips_per_s = self._steps * clips / max(time.monotonic() - self._epoch_start, 1e-9)
        share = self._steps / max(int(trainer.num_training_batches), 1)
        self._epochs_run = trainer.current_epoch - self._first_epoch + share
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the values shown with the bar."""
        assert isinstance(pl_module, VideoTrainingModule)
        metrics = trainer.callback_metrics
        shown: dict[str, Any] = {}
        if "train/loss" in metrics:
            shown["loss"] = f"{float(metrics['train/loss']):.3f}"
            shown["top1"] = f"{100 * pl_module.running_top1():.1f}%"
        if "val/top1" in metrics:
            shown["val top1"] = f"{100 * float(metrics['val/top1']):.1f}%"
        return {**shown, "clips/s": f"{self._clips_per_s:.0f}", "run left": self._left(trainer)}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch, after its validation."""
        super().on_train_epoch_end(trainer, pl_module)
        assert isinstance(pl_module, VideoTrainingModule)
        self._epochs_run = trainer.current_epoch + 1 - self._first_epoch
        pl_module.log("train/clips_per_s", self._clips_per_s, batch_size=1, sync_dist=True)
        metrics = trainer.callback_metrics
        line = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        # A run resumed just before validation has no training metrics of this epoch.
        if self._steps:
            line += f"  loss {float(pl_module.train_loss.compute()):.3f}"
            line += f"  train top1 {100 * float(pl_module.train_top1.compute()):.1f}%"
        if "val/top1" in metrics:
            line += f"  val top1 {100 * float(metrics['val/top1']):.1f}%"
        if failed := int(metrics.get("val/failed_videos", 0)):
            line += f" ({failed} val videos failed)"
        line += f"  {self._clips_per_s:.0f} clips/s  left {self._left(trainer)}"
        if self.is_enabled:
            self.print(line)
        elif trainer.is_global_zero:
            print(line, flush=True)

    def _left(self, trainer: Trainer) -> str:
        if not self._epochs_run or trainer.max_epochs is None:
            return "?"
        elapsed = time.monotonic() - self._fit_start
        left = elapsed / self._epochs_run * max(trainer.max_epochs - self._first_epoch - self._epochs_run, 0)
        return str(timedelta(seconds=int(left)))
