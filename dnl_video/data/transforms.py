"""Transforms of clips: random views for training, fixed views for evaluation, normalisation on the device.

The geometry is that of PySlowFast (slowfast/datasets/transform.py: `random_short_side_scale_jitter`, `random_crop`,
`uniform_crop`), with two differences: resizing is antialiased, and a training crop is cut before it is resized, which
gives the same view for a fraction of the work. Pixel augmentation is that of torchvision.transforms.v2, with one draw
for all frames of a clip.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional as F  # type: ignore[import-untyped]

from dnl_video.config import AugmentConfig
from dnl_video.spec import ChannelOrder

Frames = npt.NDArray[np.uint8]

_RANDAUGMENT_BINS = 31  # magnitudes 0 to 30, torchvision's default


def train_transform(
    frames: Frames | Tensor,
    augment: AugmentConfig,
    rng: np.random.Generator,
    *,
    mirror: bool = True,
    fill: Sequence[int] = (0, 0, 0),
) -> Tensor:
    """Cut one random view out of all frames of a clip, and augment its pixels if configured.

    Args:
        frames: uint8 [T, H, W, 3].
        augment: Ranges and probabilities.
        rng: Source of all random numbers, always drawn in the same order.
        mirror: False never flips.
        fill: RGB of pixels that augmentation leaves empty or erases.

    Returns:
        uint8 [T, crop, crop, 3].
    """
    clip = torch.as_tensor(frames)
    top, left, size = _random_window(clip.shape[1], clip.shape[2], augment, rng)
    flip = rng.random() < augment.flip and mirror
    uses_torchvision = augment.crop_area or augment.randaugment_ops or any(augment.color_jitter) or augment.erasing
    with seeded(int(rng.integers(2**63))) if uses_torchvision else contextlib.nullcontext():
        if augment.crop_area is not None:
            crop = v2.RandomResizedCrop(augment.crop_size, augment.crop_area, augment.crop_aspect, antialias=True)
            view = crop(clip.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        else:
            view = _resize(clip[:, top : top + size, left : left + size], augment.crop_size, augment.crop_size)
        return augment_pixels(view.flip(2) if flip else view, augment, fill).contiguous()


def _random_window(height: int, width: int, augment: AugmentConfig, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw the square (top, left, side) in the source that gives a random crop of the resized frame.

    The crop is defined on the resized frame: short side a random integer in `augment.short_side` (both ends included),
    then a random square. Its window in the source is rounded to pixels and resized once.
    """
    short_side = int(rng.integers(augment.short_side[0], augment.short_side[1], endpoint=True))
    scaled_height, scaled_width = _scaled_size(height, width, short_side)
    top = int(rng.integers(0, scaled_height - augment.crop_size, endpoint=True))
    left = int(rng.integers(0, scaled_width - augment.crop_size, endpoint=True))
    to_source = min(height, width) / short_side
    size = max(round(augment.crop_size * to_source), 1)
    return min(round(top * to_source), height - size), min(round(left * to_source), width - size), size


def augment_pixels(clip: Tensor, augment: AugmentConfig, fill: Sequence[int]) -> Tensor:
    """Apply RandAugment, colour jitter and random erasing, in this order, if they are on.

    The operations, their strength and their place are drawn once per clip. Statistics that an operation needs (mean for
    contrast, histogram for equalisation) are computed per frame.

    Args:
        clip: uint8 [T, H, W, 3].
        augment: Operations and their ranges.
        fill: RGB of erased boxes and of pixels left empty by rotation, shear and translation.

    Returns:
        uint8 [T, H, W, 3].
    """
    frames = clip.permute(0, 3, 1, 2)
    color = [float(value) for value in fill]
    if augment.randaugment_ops:
        frames = v2.RandAugment(
            augment.randaugment_ops,
            augment.randaugment_magnitude,
            _RANDAUGMENT_BINS,
            interpolation=v2.InterpolationMode.BILINEAR,
            fill=color,
        )(frames)
    if any(augment.color_jitter):
        frames = v2.ColorJitter(*augment.color_jitter)(frames)
    if augment.erasing:
        frames = v2.RandomErasing(augment.erasing, augment.erasing_area, value=color)(frames)
    return frames.permute(0, 2, 3, 1)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global CPU random state for a block, and restore the previous state afterwards.

    torchvision draws from the global state. With a seed per clip, its draws depend neither on the worker nor on earlier
    draws.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU.
        torch.default_generator.manual_seed(seed)
        yield


def resize_short_side(frames: Frames, short_side: int) -> Frames:
    """Resize frames to a short side in pixels, with the same aspect ratio (long side rounded down, as in PySlowFast).

    Args:
        frames: uint8 [n, H, W, 3].
        short_side: Length of the shorter side after resizing.

    Returns:
        uint8 [n, H', W', 3] with min(H', W') = short_side.
    """
    height, width = _scaled_size(frames.shape[1], frames.shape[2], short_side)
    return _resize(torch.from_numpy(np.ascontiguousarray(frames)), height, width).contiguous().numpy()


def crop_views(frames: Tensor, crop_size: int, num_crops: int) -> Tensor:
    """Cut square crops out of every clip: spaced along the longer side, centred on the shorter.

    Args:
        frames: uint8 [J, T, H, W, 3].
        crop_size: Side c of the crops in pixels.
        num_crops: R; 1 is the centre, 3 is left, centre, right (portrait video: top, centre, bottom).

    Returns:
        uint8 [J * R, T, c, c, 3]: view j * R + r is crop r of clip j.

    Raises:
        ValueError: `num_crops` is neither 1 nor 3, or the frames are smaller than the crop.
    """
    if num_crops not in (1, 3):
        raise ValueError(f"num_crops is {num_crops}; allowed: 1 (centre), 3 (left, centre, right)")
    height, width = frames.shape[2:4]
    if min(height, width) < crop_size:
        raise ValueError(f"frames of {height} x {width} are smaller than the crop of {crop_size}; resize them first")
    down, right = height - crop_size, width - crop_size
    centre = (-(-down // 2), -(-right // 2))  # rounded up, as uniform_crop does
    if num_crops == 1:
        corners = [centre]
    elif height > width:
        corners = [(0, centre[1]), centre, (down, centre[1])]
    else:
        corners = [(centre[0], 0), centre, (centre[0], right)]
    crops = [frames[:, :, y : y + crop_size, x : x + crop_size] for y, x in corners]
    # [J, R, T, c, c, 3] -> [J * R, T, c, c, 3]
    return torch.stack(crops, dim=1).flatten(0, 1)


def normalize(clip: Tensor, mean: Sequence[float], std: Sequence[float], channel_order: ChannelOrder = "rgb") -> Tensor:
    """Turn uint8 pixels into network input, (x / 255 - mean) / std, on the clip's device.

    Args:
        clip: uint8 RGB [B, T, H, W, 3].
        mean: Mean of inputs in [0, 1], in the order of ``channel_order``.
        std: Standard deviation of inputs in [0, 1], in the order of ``channel_order``.
        channel_order: Order of the result's channels.

    Returns:
        float32 [B, 3, T, H, W]: a permuted view of [B, T, H, W, 3] memory (`torch.channels_last_3d` strides), which
        convolutions accept.
    """
    scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float64))
    shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
    scale, shift = (numbers.to(clip.device, torch.float32) for numbers in (scale, shift))
    if channel_order == "bgr":
        clip = clip.flip(-1)
    # One multiply-add over the pixels, in place: x * 1/(255 std) + (-mean/std).
    pixels = clip.to(torch.float32)
    return torch.addcmul(shift, pixels, scale, out=pixels).permute(0, 4, 1, 2, 3)


def _scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    if height < width:
        return short_side, width * short_side // height
    return height * short_side // width, short_side


def _resize(clip: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 [T, H, W, 3], antialiased bilinear."""
    if clip.shape[1:3] == (height, width):
        return clip
    # [T, H, W, 3] -> [T, 3, H, W] without a copy: torch's fast uint8 kernel needs channels-last memory.
    resized = F.resize(clip.permute(0, 3, 1, 2), [height, width], antialias=True)
    return resized.permute(0, 2, 3, 1)
