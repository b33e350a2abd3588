"""Log the entropy of the attention maps after every validation, and note blocks whose attention has collapsed."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from dnl_video.models.inspect.attention_health import attention_health, collapse_note
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.progress import ClipProgress

_CLIPS = 8


class AttentionHealth(Callback):
    """Measures the attention of all blocks in eight fixed validation videos; `progress` prints the note.

    The first process measures, with the weights of the validation. Training goes on as if nothing was measured.
    """

    def __init__(self, progress: ClipProgress | None = None) -> None:
        self.progress = progress
        self._clips: list[Tensor] = []

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Collect the middle views of videos that are evenly spaced in the list; measure them at the last batch."""
        own = range(0, len(trainer.datamodule.val.records), trainer.world_size)  # type: ignore[attr-defined]
        chosen = {own[i * len(own) // _CLIPS] for i in range(_CLIPS)}
        self._clips += [item.views[len(item.views) // 2] for item in batch if item.index in chosen and not item.error]
        if batch_idx + 1 == trainer.num_val_batches[0]:
            self._measure(trainer, pl_module)
            self._clips = []

    def measure_training_clips(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the first clips for precise batch norm of the first epoch."""
        if trainer.is_global_zero and not self._clips:
            loader = trainer.datamodule.precise_bn_dataloader(0)  # type: ignore[attr-defined]
            self._clips = [*next(iter(loader))["clip"][:_CLIPS].clone()]
        self._measure(trainer, pl_module)

    def _measure(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero or not self._clips:
            return
        assert isinstance(module, VideoTrainingModule)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            blocks = attention_health(module.network, module.normalized(torch.stack(self._clips).to(module.device)))
        values = {f"attention/{block}/{name}": v for block, health in blocks.items() for name, v in health.items()}
        module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, rank_zero_only=True)
        if self.progress is not None and (note := collapse_note(blocks)):
            self.progress.notes.append(note)
