"""Log the entropy of the attention maps after every validation, and note blocks whose attention has collapsed."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from dnl_video.data.loaders import VideoDataModule
from dnl_video.models.inspect.attention_health import Health, attention_health, collapse_note
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.progress import ClipProgress

_VIDEOS = 8


class AttentionHealth(Callback):
    """Measures the attention of all blocks in eight fixed validation videos, in the first process.

    It sees the weights and statistics that the validation sees, and changes nothing. A training without validation
    measures eight fixed training clips (`WithoutValidation`).

    Args:
        progress: Prints the note about collapsed attention.
    """

    def __init__(self, progress: ClipProgress | None = None) -> None:
        self.progress = progress
        self._measured: list[dict[str, Health]] = []
        self._clips: Tensor | None = None

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measure the middle view of the chosen videos, evenly spaced in the list."""
        if not trainer.is_global_zero:
            return
        step = trainer.world_size
        own = range(0, len(trainer.datamodule.val.records), step)  # type: ignore[attr-defined]
        chosen = {own[i * len(own) // _VIDEOS] for i in range(_VIDEOS)}
        for item in batch:
            if item.index in chosen and item.views is not None:
                self._measure(trainer, pl_module, item.views[len(item.views) // 2])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means over the videos."""
        self._log(pl_module)

    def measure_training_clips(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log the first clips of the first precise batch-norm epoch."""
        if not trainer.is_global_zero:
            return
        if self._clips is None:
            datamodule: VideoDataModule = trainer.datamodule  # type: ignore[attr-defined]
            self._clips = next(iter(datamodule.precise_bn_dataloader(0)))["clip"][:_VIDEOS].clone()
        for clip in self._clips:
            self._measure(trainer, pl_module, clip)
        self._log(pl_module)

    def _measure(self, trainer: Trainer, module: LightningModule, clip: Tensor) -> None:
        assert isinstance(module, VideoTrainingModule)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            clips = module.normalized(clip[None].to(module.device))
            self._measured.append(attention_health(module.network, clips))

    def _log(self, module: LightningModule) -> None:
        blocks = {
            block: {name: sum(one[block][name] for one in self._measured) / len(self._measured) for name in health}
            for block, health in (self._measured[0] if self._measured else {}).items()
        }
        self._measured = []
        for block, health in blocks.items():
            values = {f"attention/{block}/{name}": value for name, value in health.items()}
            module.log_dict(values, batch_size=1, rank_zero_only=True)
        if self.progress is not None and (note := collapse_note(blocks)):
            self.progress.notes.append(note)
