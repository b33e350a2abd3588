"""Mixup and CutMix of a batch on its device, by torchvision.transforms.v2, with soft labels.

Whether a batch is mixed, how, and how strongly is a function of (seed, epoch, batch) alone, the same on every process;
each clip's partner is its predecessor in the batch of its own process, so partners depend on the number of processes.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torchvision import tv_tensors  # type: ignore[import-untyped]
from torchvision.transforms import v2  # type: ignore[import-untyped]

from dnl_video.config import AugmentConfig
from dnl_video.data.transforms import seeded

# Keeps the draws of batches apart from those of clips, which have keys of the same seed.
_STREAM = 2


def mix(
    clips: Tensor, labels: Tensor, augment: AugmentConfig, num_classes: int, *, seed: int, epoch: int, batch: int
) -> tuple[Tensor, Tensor]:
    """Combine each clip with its predecessor (mixup: weighted; CutMix: a box through all frames), and their labels.

    Args:
        clips: Normalised, float [B, 3, T, H, W].
        labels: Class ids [B].
        augment: `mixup`, `cutmix` (alphas, 0 for none) and `mix_prob`.
        num_classes: Classes K.
        seed: The run's.
        epoch: Number of the epoch.
        batch: Number of the batch in the epoch.

    Returns:
        Clips [B, 3, T, H, W], and soft labels [B, K]; labels [B] as they came where the batch is not mixed.
    """
    kinds = [kind for kind, alpha in ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix)) if alpha > 0]
    if not kinds or len(labels) < 2:
        return clips, labels
    rng = np.random.default_rng([seed, epoch, batch, _STREAM])
    kind = kinds[int(rng.integers(len(kinds)))]
    alpha = augment.mixup if kind is v2.MixUp else augment.cutmix
    if rng.random() >= augment.mix_prob:
        return clips, labels
    with seeded(int(rng.integers(2**63))):
        mixed, soft = kind(alpha=alpha, num_classes=num_classes)(tv_tensors.Video(clips), labels)
    return mixed.as_subclass(Tensor), soft
