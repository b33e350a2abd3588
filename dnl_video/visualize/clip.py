"""The clip whose attention is drawn: the frames that a network sees, and their times."""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dnl_video.data import transforms
from dnl_video.data.decoding import Video, VideoDecodeError, open_video
from dnl_video.data.sampling import Indices, clip_from, view_indices
from dnl_video.errors import InputError
from dnl_video.spec import Preprocessing

# Fields that decide which pixels a clip has; the others apply after cropping.
_GEOMETRY = ("num_frames", "frame_stride", "target_fps", "sampling", "past_end", "short_side", "crop_size")


@dataclass(frozen=True)
class Clip:
    """One clip of a video, as cropped for the network.

    Attributes:
        name: Name of the file.
        frames: RGB, uint8 [T, H, W, 3].
        seconds: Start of each frame in seconds, [T].
        end_s: End of the last frame in seconds.
    """

    name: str
    frames: NDArray[np.uint8]
    seconds: NDArray[np.float64]
    end_s: float


def read_clip(path: str | os.PathLike[str], preprocessing: Preprocessing, start_s: float | None = None) -> Clip:
    """Read one clip, centre crop.

    Args:
        path: The video file.
        preprocessing: The network's.
        start_s: Start of the clip in seconds; None takes the clip of an evaluation with one clip (the middle of the
            video under `stride`).

    Raises:
        InputError: There is no such file, it cannot be decoded, or ``start_s`` lies outside.
    """
    if not Path(path).is_file():
        problem = "is a folder" if Path(path).is_dir() else "does not exist"
        raise InputError(f"{path} {problem}; give one video file")
    resize = functools.partial(transforms.resize_short_side, short_side=preprocessing.short_side)
    try:
        with open_video(path) as video:
            indices = _indices(video, preprocessing, start_s)
            frames = torch.from_numpy(video.read(indices, resize=resize))
            fps = video.fps
    except VideoDecodeError as error:
        raise InputError(f"{error}; give another video") from error
    view = transforms.crop_views(frames[None], preprocessing.crop_size, 1)[0]
    return Clip(Path(path).name, view.numpy(), indices / fps, float(indices.max() + 1) / fps)


def refuse_other_clips(first: Preprocessing, second: Preprocessing) -> None:
    """Refuse two networks whose clips of one video have different pixels.

    Raises:
        InputError: They differ.
    """
    for name in _GEOMETRY:
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            raise InputError(
                f"the two checkpoints see different clips: {name} is {ours} and {theirs}; "
                "compare networks trained with the same preprocessing"
            )


def _indices(video: Video, preprocessing: Preprocessing, start_s: float | None) -> Indices:
    if start_s is None:
        return view_indices(video.num_frames, video.fps, preprocessing, 1)[0]
    start = round(start_s * video.fps) if math.isfinite(start_s) else -1
    if not 0 <= start < video.num_frames:
        raise InputError(
            f"clip start {start_s:g} s lies outside {video.path}; give 0 to {(video.num_frames - 1) / video.fps:.2f} s"
        )
    return clip_from(start, video.num_frames, video.fps, preprocessing)
