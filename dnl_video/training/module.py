"""The LightningModule: loss, accuracy and optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from dnl_video.config import TrainConfig
from dnl_video.data.balance import class_weights
from dnl_video.data.dataset import VideoViews
from dnl_video.data.transforms import normalize
from dnl_video.errors import InputError
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.build import build_model
from dnl_video.models.runtime.activation_checkpointing import checkpoint_stages
from dnl_video.models.weights.checkpoint import payload
from dnl_video.models.weights.find import has_checkpoint
from dnl_video.models.weights.source import FORMAT_KEY
from dnl_video.spec import to_dict
from dnl_video.training.collectives import all_gather_dict, all_reduce_mean
from dnl_video.training.mixing import mix
from dnl_video.training.optim import change_rates, freeze, lr_factor, make_optimizer, scaled_lr, set_frozen_to_eval

# Separates the random stream of dropout from those of clips and mixing, which have the same seed.
_STREAM = 3
_NAMED_VIDEOS = 5


class VideoTrainingModule(LightningModule):
    """Trains a network on batches of clips and validates it on the views of whole videos.

    Args:
        config: The configuration of the run.
        class_names: Names of the outputs, in order.
    """

    def __init__(self, config: TrainConfig, class_names: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.class_names = tuple(class_names)
        self.class_weights: Tensor | None = None
        self.network: VideoClassifier = build_model(config.model)
        if config.trainer.activation_checkpointing:
            checkpoint_stages(self.network)
        freeze(self.network, config.optim)
        if config.trainer.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if config.trainer.compile:
            # In place, so that the state-dict keys do not change.
            self.network.compile()
        # Origin of the weights, as plain JSON types; stored in every checkpoint.
        self.provenance: dict[str, Any] = {}
        # A resumed run restores the optimiser with the settings of its checkpoint, and then changes them.
        self.restored_optim = config.optim
        classes = len(self.class_names)
        # _check_finite checks for NaN.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.train_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top5 = MulticlassAccuracy(classes, average="micro", top_k=5) if classes > 5 else None
        self.val_loss = MeanMetric()
        self._losses_of_step: list[Tensor] = []
        self._right: Tensor | float = 0.0
        self._seen = 0

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits [B, K] of clips uint8 [B, T, H, W, 3]."""
        return self.network(self.normalized(clips))

    def normalized(self, clips: Tensor) -> Tensor:
        """Return clips uint8 [B, T, H, W, 3] as normalised float [B, 3, T, H, W]."""
        preprocessing = self.config.preprocessing
        return normalize(clips, preprocessing.mean, preprocessing.std, preprocessing.channel_order)

    def train(self, mode: bool = True) -> VideoTrainingModule:
        """Set the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if mode:
            set_frozen_to_eval(self.network, self.config.optim)
        return self

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the cross entropy of a batch. For top-1, a mixed clip has the class with the larger share."""
        seed_network(self.config.seed, epoch=self.current_epoch, batch=batch_idx, rank=self.global_rank)
        clips, target = self.inputs(batch, batch_idx)
        loss, logits = self.loss(clips, target)
        label = target if target.ndim == 1 else target.argmax(dim=1)
        size = len(label)
        self.train_top1(logits.detach(), label)
        self._right = self._right + (logits.detach().argmax(dim=1) == label).sum()
        self._seen += size
        mean_loss = all_reduce_mean(loss)
        self._check_finite(mean_loss, loss, batch)
        self._log_loss(loss.detach(), mean_loss, batch_idx, size)
        self.log("train/top1", self.train_top1, on_step=False, on_epoch=True, batch_size=size)
        return loss

    def inputs(self, batch: dict[str, Any], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return normalised clips [B, 3, T, H, W], mixed if configured, and class ids [B] or soft labels [B, K]."""
        clips, key = self.normalized(batch["clip"]), {"seed": self.config.seed, "epoch": self.current_epoch}
        return mix(clips, batch["label"], self.config.augment, len(self.class_names), batch=batch_idx, **key)

    def loss(self, clips: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of normalised clips, and their logits [B, K]."""
        logits = self.network(clips)
        return cross_entropy(logits, target, self.class_weights, self.config.optim.label_smoothing), logits

    def _check_finite(self, mean_loss: Tensor, loss: Tensor, batch: dict[str, Any]) -> None:
        """Stop all processes before the step if the loss of one is NaN or infinite, and name the videos of its batch.

        NaN in one process makes the mean NaN, so all processes stop and none waits for another.
        """
        if bool(torch.isfinite(mean_loss)):
            return
        config, records = self.config, self.trainer.datamodule.train.records  # type: ignore[attr-defined]
        videos = [] if bool(torch.isfinite(loss)) else [records[i].video_id for i in batch["index"].tolist()]
        bad = all_gather_dict(dict.fromkeys(videos, f"{float(loss.detach()):g}"))
        named = f", of videos {', '.join(list(bad)[:_NAMED_VIDEOS])}" if bad else ""
        more = f" and {len(bad) - _NAMED_VIDEOS} more" if len(bad) > _NAMED_VIDEOS else ""
        precision = ", use --trainer.precision bf16-mixed" if config.trainer.precision == "16-mixed" else ""
        then = "start again: nothing was saved yet"
        if has_checkpoint(Path(self.trainer.default_root_dir)):
            # The weights of the last one may be too large already.
            then = "continue from the last checkpoint with --resume, or from the best with --resume CKPT"
        raise InputError(
            f"the loss is {next(iter(bad.values()), 'infinite')} in epoch {self.current_epoch + 1}, step "
            f"{self.global_step + 1}{named}{more}; lower optim.lr, for example --optim.lr "
            f"{config.optim.lr / 10:g}, or clip gradients (--trainer.gradient_clip_val 1){precision}, and {then}"
        )

    def _log_loss(self, loss: Tensor, mean_loss: Tensor, batch_idx: int, size: int) -> None:
        """Log the mean loss over all clips of a step: those of all processes and accumulated batches."""
        if batch_idx % self.config.trainer.accumulate_grad_batches == 0:
            self._losses_of_step = []
        self._losses_of_step.append(mean_loss)
        self.log("train/loss", torch.stack(self._losses_of_step).mean(), on_step=True, on_epoch=False, batch_size=size)
        self.train_loss(loss)  # all batches have one size
        self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True, batch_size=size)

    def on_fit_start(self) -> None:
        """Compute the class weights of the loss, if configured."""
        if self.config.data.balance == "weights":
            labels = self.trainer.datamodule.train_labels  # type: ignore[attr-defined]
            self.class_weights = torch.from_numpy(class_weights(labels, len(self.class_names))).to(self.device)

    def on_train_start(self) -> None:
        """Change the learning rate and weight decays of a resumed run, if its configuration did."""
        optim = self.config.optim
        if optim != self.restored_optim:
            schedule = self.trainer.lr_scheduler_configs[0].scheduler
            lr = scaled_lr(optim, self.clips_per_step)
            change_rates(self.trainer.optimizers[0], schedule, self.network, optim, lr)

    def on_train_epoch_start(self) -> None:
        """Reset the running top-1."""
        self._right, self._seen = 0.0, 0

    def running_top1(self) -> float:
        """Return the training top-1 of this process in the epoch so far, without communication."""
        return float(self._right) / max(self._seen, 1)

    def validation_step(self, batch: list[VideoViews], batch_idx: int) -> None:
        """Update video-level accuracy, by the mean of softmax over the views of a video; failed videos are left out."""
        records = self.trainer.datamodule.val.records  # type: ignore[attr-defined]
        decoded = [item for item in batch if item.views is not None]
        if decoded:
            counts = [len(item.views) for item in decoded]  # type: ignore[arg-type]
            views = torch.cat([item.views for item in decoded if item.views is not None])
            chunks = views.split(self.config.validation.views_per_forward)
            probabilities = torch.cat([self(chunk.to(self.device)).float().softmax(dim=1) for chunk in chunks])
            parts = zip(decoded, probabilities.split(counts), strict=True)
            scores = torch.stack([item.expand(part).mean(dim=0) for item, part in parts])
            labels = torch.tensor([records[item.index].label for item in decoded], device=self.device)
            self.val_top1(scores, labels)
            if self.val_top5 is not None:
                self.val_top5(scores, labels)
            self.val_loss(F.nll_loss(scores.clamp_min(1e-12).log(), labels), weight=len(labels))
        size = max(len(decoded), 1)
        self.log("val/top1", self.val_top1, on_epoch=True, batch_size=size)
        if self.val_top5 is not None:
            self.log("val/top5", self.val_top5, on_epoch=True, batch_size=size)
        self.log("val/loss", self.val_loss, on_epoch=True, batch_size=size)

    @property
    def clips_per_step(self) -> int:
        """Clips per optimiser step, over all processes."""
        return self.config.data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def configure_optimizers(self) -> Any:
        """Return SGD or AdamW, with a schedule that is updated every step."""
        optim, restored = self.config.optim, self.restored_optim
        optimizer = make_optimizer(self.network, restored, scaled_lr(restored, self.clips_per_step))
        epochs = self.config.trainer.max_epochs
        steps_per_epoch = max(self.trainer.estimated_stepping_batches / epochs, 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(step / steps_per_epoch, optim, epochs)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the metadata: architecture, preprocessing, classes, configuration, origin, world size."""
        config = self.config
        checkpoint[FORMAT_KEY] = payload(
            config.model, config.preprocessing, self.class_names, to_dict(config), self.provenance
        )
        checkpoint[FORMAT_KEY]["processes"] = self.trainer.world_size


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None, label_smoothing: float) -> Tensor:
    """Return the mean over clips of ``sum_c q_c w_c CE(logits, smoothed label c)``.

    torch divides by the sum of the weights of the batch, and weights the uniform part of label smoothing by class.

    Args:
        logits: [B, K].
        target: Class ids [B], or soft labels q [B, K].
        weights: Class weights w [K]; None: all 1.
        label_smoothing: Share of the label that is spread over all classes.
    """
    if weights is None:
        return F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    weighted = weights * (target if target.ndim == 2 else F.one_hot(target, len(weights)))
    spread = weighted.sum(dim=1, keepdim=True) / len(weights)
    return F.cross_entropy(logits, weighted + label_smoothing * (spread - weighted))


def seed_network(seed: int, *, epoch: int, batch: int, rank: int) -> None:
    """Seed dropout by the position in the run and the rank, so that a resumed run draws the same values."""
    torch.manual_seed(int(np.random.default_rng([seed, epoch, batch, rank, _STREAM]).integers(2**63)))
