"""What data loading is measured against: plain decord, and the order of work that other code bases have.

PySlowFast (slowfast/datasets/kinetics.py, utils.py: `tensor_normalize`, then `spatial_sampling`) and pytorchvideo's
published transforms turn whole frames to float, normalise them, resize, and crop at last; in testing each of a video's
clips and crops is an item of its own, which is opened and decoded anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import decord
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dnl_video.config import AugmentConfig
from dnl_video.data.sampling import view_indices
from dnl_video.data.transforms import crop_views, resize_short_side
from dnl_video.spec import Preprocessing

decord.logging.set_level(decord.logging.QUIET)


def plain_read(path: str, indices: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Read frames by decord alone, [n, H, W, 3]."""
    return decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()


def float_view(
    frames: npt.NDArray[np.uint8], augment: AugmentConfig, preprocessing: Preprocessing, rng: np.random.Generator
) -> Tensor:
    """Cut a random view out of frames [T, H, W, 3] in the usual order: float, normalise, resize, crop, flip.

    Returns:
        float32 [3, T, crop, crop].
    """
    clip = torch.from_numpy(frames).float() / 255.0
    clip = clip - torch.tensor(preprocessing.mean)
    clip = clip / torch.tensor(preprocessing.std)
    clip = clip.permute(3, 0, 1, 2)
    height, width = clip.shape[2:]
    short_side = int(rng.integers(augment.short_side[0], augment.short_side[1], endpoint=True))
    shorter = min(height, width)
    size = (height * short_side // shorter, width * short_side // shorter)
    clip = F.interpolate(clip, size=size, mode="bilinear", align_corners=False)
    top, left = (int(rng.integers(0, side - augment.crop_size, endpoint=True)) for side in size)
    clip = clip[:, :, top : top + augment.crop_size, left : left + augment.crop_size]
    return clip.flip(3) if rng.random() < augment.flip else clip


def separate_views(path: str, fps: float, preprocessing: Preprocessing, num_clips: int, num_crops: int) -> Tensor:
    """Read each of a video's views as an item of its own: opened, decoded, resized, one crop kept.

    Args:
        path: The video.
        fps: Its frame rate.
        preprocessing: Length, stride, rule, short side and crop.
        num_clips: Clips J.
        num_crops: Crops R.

    Returns:
        uint8 [J * R, T, c, c, 3].
    """
    views = []
    for item in range(num_clips * num_crops):
        reader = decord.VideoReader(path, num_threads=1)
        indices = view_indices(len(reader), fps, preprocessing, num_clips)[item // num_crops]
        frames = torch.from_numpy(resize_short_side(reader.get_batch(indices).asnumpy(), preprocessing.short_side))
        views.append(crop_views(frames[None], preprocessing.crop_size, num_crops)[item % num_crops])
    return torch.stack(views)
