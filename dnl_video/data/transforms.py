"""Transforms of clips: random views for training, fixed views for evaluation, normalisation on the device.

The geometry is that of PySlowFast (slowfast/datasets/transform.py: `random_short_side_scale_jitter`, `random_crop`,
`uniform_crop`), with two differences: resizing is antialiased by default, and a training crop is cut before it is
resized, which gives the same view for a fraction of the work. `Preprocessing.rounding` chooses mmaction2's sizes and
crops instead. Pixel augmentation is that of torchvision.transforms.v2, with one draw for all frames of a clip.
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
from dnl_video.spec import ChannelOrder, Preprocessing, Rounding

Frames = npt.NDArray[np.uint8]

_RANDAUGMENT_BINS = 31  # magnitudes 0 to 30, torchvision's default


def train_transform(
    frames: Frames | Tensor,
    augment: AugmentConfig,
    rng: np.random.Generator,
    *,
    mirror: bool = True,
    fill: Sequence[int] = (0, 0, 0),
    antialias: bool = True,
) -> Tensor:
    """Cut one random view out of all frames of a clip, and augment its pixels if configured.

    Args:
        frames: uint8 [T, H, W, 3].
        augment: Ranges and probabilities.
        rng: Source of all random numbers, always drawn in the same order.
        mirror: False never flips.
        fill: RGB of pixels that augmentation leaves empty or erases.
        antialias: Antialias when resizing.

    Returns:
        uint8 [T, crop, crop, 3].
    """
    clip = torch.as_tensor(frames)
    top, left, size = _random_window(clip.shape[1], clip.shape[2], augment, rng)
    flip = rng.random() < augment.flip and mirror
    uses_torchvision = augment.crop_area or augment.randaugment_ops or any(augment.color_jitter) or augment.erasing
    with seeded(int(rng.integers(2**63))) if uses_torchvision else contextlib.nullcontext():
        if augment.crop_area is not None:
            crop = v2.RandomResizedCrop(augment.crop_size, augment.crop_area, augment.crop_aspect, antialias=antialias)
            view = crop(clip.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        else:
            window = clip[:, top : top + size, left : left + size]
            view = _resize(window, augment.crop_size, augment.crop_size, antialias)
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


def resize_short_side(frames: Frames, preprocessing: Preprocessing) -> Frames:
    """Resize frames to the short side of the preprocessing, with the same aspect ratio.

    Args:
        frames: uint8 [n, H, W, 3].
        preprocessing: Its short_side, antialias and rounding apply.

    Returns:
        uint8 [n, H', W', 3] with min(H', W') = short_side.
    """
    size = _scaled_size(frames.shape[1], frames.shape[2], preprocessing.short_side, preprocessing.rounding)
    resized = _resize(torch.from_numpy(np.ascontiguousarray(frames)), *size, preprocessing.antialias)
    return resized.contiguous().numpy()


def crop_views(frames: Tensor, preprocessing: Preprocessing, num_crops: int) -> Tensor:
    """Cut square crops out of every clip: spaced along the longer side, centred on the shorter.

    Args:
        frames: uint8 [J, T, H, W, 3].
        preprocessing: Its crop_size c and rounding apply.
        num_crops: R; 1 is the centre, 3 is left, centre, right (portrait video: top, centre, bottom).

    Returns:
        uint8 [J * R, T, c, c, 3]: view j * R + r is crop r of clip j.

    Raises:
        ValueError: `num_crops` is neither 1 nor 3, or the frames are smaller than the crop.
    """
    if num_crops not in (1, 3):
        raise ValueError(f"num_crops is {num_crops}; allowed: 1 (centre), 3 (left, centre, right)")
    height, width = frames.shape[2:4]
    crop_size = preprocessing.crop_size
    if min(height, width) < crop_size:
        raise ValueError(f"frames of {height} x {width} are smaller than the crop of {crop_size}; resize them first")
    down, right = height - crop_size, width - crop_size
    if preprocessing.rounding == "pyslowfast":  # uniform_crop
        centre, last = (-(-down // 2), -(-right // 2)), (down, right)
    else:  # mmaction2's CenterCrop and ThreeCrop: up to one pixel is left at the end
        centre, last = (down // 2, right // 2), (down // 2 * 2, right // 2 * 2)
    if num_crops == 1:
        corners = [centre]
    elif height > width:
        corners = [(0, centre[1]), centre, (last[0], centre[1])]
    else:
        corners = [(centre[0], 0), centre, (centre[0], last[1])]
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


def _scaled_size(height: int, width: int, short_side: int, rounding: Rounding = "pyslowfast") -> tuple[int, int]:
    """Return (height, width) with the given short side, by the arithmetic of each project."""
    short, long = sorted((height, width))
    if short == short_side:
        return height, width
    # PySlowFast's random_short_side_scale_jitter rounds down, mmcv's rescale_size to the nearest.
    scaled = long / short * short_side if rounding == "pyslowfast" else long * (short_side / short) + 0.5
    return (short_side, int(scaled)) if height < width else (int(scaled), short_side)


def _resize(clip: Tensor, height: int, width: int, antialias: bool) -> Tensor:
    """Resize uint8 [T, H, W, 3], bilinear."""
    if clip.shape[1:3] == (height, width):
        return clip
    # [T, H, W, 3] -> [T, 3, H, W] without a copy: torch's fast uint8 kernel needs channels-last memory.
    resized = F.resize(clip.permute(0, 3, 1, 2), [height, width], antialias=antialias)
    return resized.permute(0, 2, 3, 1)
