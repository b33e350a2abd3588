"""Mixup and CutMix of a batch on its device, by torchvision.transforms.v2, with soft labels.

The choice and strength of mixing are functions of (seed, epoch, batch) only, equal in all processes. Each clip is mixed
with its predecessor in the batch of its process, so the pairs depend on the number of processes.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]
from torchvision.transforms import v2  # type: ignore[import-untyped]

from dnl_video.config import AugmentConfig
from dnl_video.data.transforms import seeded

# Separates this random stream from that of the clips, which has the same seed.
_STREAM = 2


def mix(
    clips: Tensor, labels: Tensor, augment: AugmentConfig, num_classes: int, *, seed: int, epoch: int, batch: int
) -> tuple[Tensor, Tensor]:
    """Mix each clip and its label with its predecessor (mixup: weighted sum; CutMix: one box in all frames).

    Args:
        clips: Normalised, float [B, 3, T, H, W].
        labels: Class ids [B].
        augment: `mixup` and `cutmix` (alphas; 0: off), and `mix_prob`.
        num_classes: Classes K.
        seed: Seed of the run.
        epoch: Index of the epoch.
        batch: Index of the batch in the epoch.

    Returns:
        Clips [B, 3, T, H, W], and soft labels [B, K]; the given labels [B] if the batch is not mixed.
    """
    kinds = [(kind, alpha) for kind, alpha in ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix)) if alpha > 0]
    if not kinds or len(labels) < 2:
        return clips, labels
    rng = np.random.default_rng([seed, epoch, batch, _STREAM])
    kind, alpha = kinds[int(rng.integers(len(kinds)))]
    if rng.random() >= augment.mix_prob:
        return clips, labels
    with seeded(int(rng.integers(2**63))):
        mixed, soft = kind(alpha=alpha, num_classes=num_classes)(tv_tensors.Video(clips), labels)
    return mixed.as_subclass(Tensor), soft
