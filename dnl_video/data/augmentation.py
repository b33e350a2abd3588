"""Augmentation by torchvision.transforms.v2: drawn once a clip, the same for all of its frames.

torchvision draws from torch's global random state. Each clip brings a seed of its own instead, and the global state is
left as it was, so that what is drawn depends neither on the worker nor on what was drawn before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

from dnl_video.config import AugmentConfig

RANDAUGMENT_BINS = 31
"""Magnitudes 0 to 30, torchvision's default."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a CPU random state that starts at ``seed``, and restore the one that was there."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU.
        torch.default_generator.manual_seed(seed)
        yield


def uses_torchvision(augment: AugmentConfig) -> bool:
    """Tell whether anything here is on."""
    return bool(augment.crop_area or augment.randaugment_ops or any(augment.color_jitter) or augment.erasing)


def random_resized_crop(clip: Tensor, augment: AugmentConfig) -> Tensor:
    """Cut a window of random area and aspect out of all frames, and resize it to the crop's size.

    Args:
        clip: uint8 [T, H, W, 3].
        augment: With `crop_area`.

    Returns:
        uint8 [T, crop, crop, 3].
    """
    assert augment.crop_area is not None
    crop = v2.RandomResizedCrop(augment.crop_size, augment.crop_area, augment.crop_aspect, antialias=True)
    return crop(clip.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def change_pixels(clip: Tensor, augment: AugmentConfig, fill: Sequence[int]) -> Tensor:
    """Apply RandAugment, colour jitter and random erasing, in this order, as far as they are on.

    What an operation computes from the picture (the mean for contrast, the histogram for equalisation) is each
    frame's own; which operations, how strong and where is the clip's.

    Args:
        clip: uint8 [T, H, W, 3].
        augment: Which ones.
        fill: RGB of erased boxes and of what rotated, sheared or shifted frames leave empty.

    Returns:
        uint8 [T, H, W, 3].
    """
    frames = clip.permute(0, 3, 1, 2)
    color = [float(value) for value in fill]
    if augment.randaugment_ops:
        frames = v2.RandAugment(
            augment.randaugment_ops,
            augment.randaugment_magnitude,
            RANDAUGMENT_BINS,
            interpolation=v2.InterpolationMode.BILINEAR,
            fill=color,
        )(frames)
    if any(augment.color_jitter):
        frames = v2.ColorJitter(*augment.color_jitter)(frames)
    if augment.erasing:
        frames = v2.RandomErasing(augment.erasing, augment.erasing_area, value=color)(frames)
    return frames.permute(0, 2, 3, 1)
