"""The LightningModule: loss, accuracy, optimiser. Lightning's Trainer does everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from dnl_video.config import TrainConfig
from dnl_video.data.dataset import VideoViews
from dnl_video.data.transforms import normalize
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.build import build_model
from dnl_video.models.runtime.activation_checkpointing import checkpoint_stages
from dnl_video.models.weights.checkpoint import payload
from dnl_video.models.weights.source import FORMAT_KEY
from dnl_video.training.collectives import mean_over_processes
from dnl_video.training.freezing import freeze, hold
from dnl_video.training.mixing import mix
from dnl_video.training.optim import lr_factor, make_optimizer, scaled_lr

# Keeps the draws of networks apart from those of clips and of mixing, which have keys of the same seed.
_STREAM = 3


class VideoTrainingModule(LightningModule):
    """Trains a network on batches of clips and validates it on the views of whole videos.

    Args:
        config: The run.
        class_names: Names of the outputs, in order.
        resolved: The resolved configuration as plain JSON types; stored in every checkpoint.
    """

    def __init__(self, config: TrainConfig, class_names: Sequence[str], resolved: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.class_names = tuple(class_names)
        self.resolved = resolved
        self.network: VideoClassifier = build_model(config.model)
        if config.trainer.activation_checkpointing:
            checkpoint_stages(self.network)
        freeze(self.network, config.optim)
        if config.trainer.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if config.trainer.compile:
            # In place, so that state-dict keys stay.
            self.network.compile()
        # What the weights come from, as plain JSON types; stored in every checkpoint.
        self.provenance: dict[str, Any] = {}
        classes = config.model.num_classes
        # FiniteLoss looks for NaN.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.train_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top5 = MulticlassAccuracy(classes, average="micro", top_k=min(5, classes))
        self.val_loss = MeanMetric()
        # The loss of the batch at hand, in this process and as the mean over all.
        self.own_loss = self.mean_loss = torch.zeros(())
        self._losses_of_step: list[Tensor] = []
        self._right: Tensor | float = 0.0
        self._seen = 0

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits [B, K] of clips uint8 [B, T, H, W, 3]."""
        return self.network(self._normalized(clips))

    def _normalized(self, clips: Tensor) -> Tensor:
        preprocessing = self.config.preprocessing
        return normalize(clips, preprocessing.mean, preprocessing.std, preprocessing.channel_order)

    def train(self, mode: bool = True) -> VideoTrainingModule:
        """Switch the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if mode:
            hold(self.network, self.config.optim)
        return self

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Cross entropy of a batch of clips; top-1 of a mixed one counts the class with the larger share."""
        seed_network(self.config.seed, epoch=self.current_epoch, batch=batch_idx, rank=self.global_rank)
        clips, target = self.inputs(batch, batch_idx)
        loss, logits = self.loss(clips, target)
        label = target if target.ndim == 1 else target.argmax(dim=1)
        size = len(label)
        self.train_top1(logits.detach(), label)
        self._right = self._right + (logits.detach().argmax(dim=1) == label).sum()
        self._seen += size
        self._log_loss(loss.detach(), batch_idx, size)
        self.log("train/top1", self.train_top1, on_step=False, on_epoch=True, batch_size=size)
        return loss

    def inputs(self, batch: dict[str, Any], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return a batch's normalised clips [B, 3, T, H, W], mixed where that is on, and class ids or soft labels."""
        return mix(
            self._normalized(batch["clip"]),
            batch["label"],
            self.config.augment,
            self.config.model.num_classes,
            seed=self.config.seed,
            epoch=self.current_epoch,
            batch=batch_idx,
        )

    def loss(self, clips: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of normalised clips, and their logits [B, K]."""
        logits = self.network(clips)
        return F.cross_entropy(logits, target, label_smoothing=self.config.optim.label_smoothing), logits

    def _log_loss(self, loss: Tensor, batch_idx: int, size: int) -> None:
        """Log the mean over all clips of a step, whichever processes and accumulated batches they came in."""
        self.own_loss = loss
        self.mean_loss = mean_over_processes(loss)
        if batch_idx % self.config.trainer.accumulate_grad_batches == 0:
            self._losses_of_step = []
        self._losses_of_step.append(self.mean_loss)
        self.log("train/loss", torch.stack(self._losses_of_step).mean(), on_step=True, on_epoch=False, batch_size=size)
        self.train_loss(loss, weight=size)
        self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True, batch_size=size)

    def on_train_epoch_start(self) -> None:
        """Count anew."""
        self._right, self._seen = 0.0, 0

    def running_top1(self) -> float:
        """Return this process's training top-1 of the epoch so far, without asking the other processes."""
        return float(self._right) / max(self._seen, 1)

    def validation_step(self, batch: list[VideoViews], batch_idx: int) -> None:
        """Video-level accuracy: the mean of softmax over each video's views. Failed videos are left out."""
        records = self.trainer.datamodule.val.records  # type: ignore[attr-defined]
        decoded = [item for item in batch if item.views is not None]
        if decoded:
            counts = [len(item.views) for item in decoded]  # type: ignore[arg-type]
            views = torch.cat([item.views for item in decoded if item.views is not None])
            chunks = views.split(self.config.validation.views_per_forward)
            probabilities = torch.cat([self(chunk.to(self.device)).float().softmax(dim=1) for chunk in chunks])
            scores = torch.stack([part.mean(dim=0) for part in probabilities.split(counts)])
            labels = torch.tensor([records[item.index].label for item in decoded], device=self.device)
            self.val_top1(scores, labels)
            self.val_top5(scores, labels)
            self.val_loss(F.nll_loss(scores.clamp_min(1e-12).log(), labels), weight=len(labels))
        size = max(len(decoded), 1)
        self.log("val/top1", self.val_top1, on_epoch=True, batch_size=size)
        self.log("val/top5", self.val_top5, on_epoch=True, batch_size=size)
        self.log("val/loss", self.val_loss, on_epoch=True, batch_size=size)

    @property
    def clips_per_step(self) -> int:
        """Clips of one optimiser step over all processes."""
        return self.config.data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def configure_optimizers(self) -> Any:
        """SGD or AdamW with a schedule that moves every step."""
        optim = self.config.optim
        optimizer = make_optimizer(self.network, optim, scaled_lr(optim, self.clips_per_step))
        epochs = self.config.trainer.max_epochs
        steps_per_epoch = max(self.trainer.estimated_stepping_batches / epochs, 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(step / steps_per_epoch, optim, epochs)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what travels with the weights."""
        config = self.config
        checkpoint[FORMAT_KEY] = payload(
            config.model, config.preprocessing, self.class_names, self.resolved, self.provenance
        )
        checkpoint[FORMAT_KEY]["processes"] = self.trainer.world_size


def seed_network(seed: int, *, epoch: int, batch: int, rank: int) -> None:
    """Make what dropout draws a function of the place in the run and the process, not of what it did before."""
    torch.manual_seed(int(np.random.default_rng([seed, epoch, batch, rank, _STREAM]).integers(2**63)))
