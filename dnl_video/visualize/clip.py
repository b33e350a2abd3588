"""The clip whose attention is drawn, and the query points: the places whose attention is drawn."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dnl_video.data import transforms
from dnl_video.data.decoding import Video, VideoDecodeError, open_video
from dnl_video.data.sampling import Indices, clip_from, view_indices
from dnl_video.errors import InputError
from dnl_video.spec import Preprocessing

# Fields that apply after cropping; the others decide which pixels a clip has.
_AFTER_CROPPING = ("mean", "std", "channel_order")


@dataclass(frozen=True)
class Clip:
    """One clip of a video, as cropped for the network."""

    name: str  # of the file
    frames: NDArray[np.uint8]  # RGB [T, H, W, 3]
    seconds: NDArray[np.float64]  # start of each frame, [T]
    end_s: float  # end of the last frame


class Query(NamedTuple):
    """A place in a clip."""

    frame: int  # of the clip, counted from 0
    x: float  # from 0 (left edge of the crop) to 1 (right edge)
    y: float  # from 0 (top edge) to 1 (bottom edge)
    origin: str = ""  # text beside it in pictures

    def pixel(self, height: int, width: int) -> tuple[float, float]:
        """Return (y, x) in pixels; 0 is the centre of the first pixel."""
        return self.y * height - 0.5, self.x * width - 0.5


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
    resize = functools.partial(transforms.resize_short_side, preprocessing=preprocessing)
    try:
        with open_video(path) as video:
            indices = _indices(video, preprocessing, start_s)
            frames = torch.from_numpy(video.read(indices, resize=resize))
            times_s = video.times_s
    except VideoDecodeError as error:
        raise InputError(f"{error}; give another video") from error
    view = transforms.crop_views(frames[None], preprocessing, 1)[0]
    return Clip(Path(path).name, view.numpy(), times_s[indices], float(times_s[indices.max() + 1]))


def refuse_other_clips(first: Preprocessing, second: Preprocessing) -> None:
    """Refuse two networks whose clips of one video have different pixels.

    Raises:
        InputError: They differ.
    """
    for name in (f.name for f in fields(Preprocessing)):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs and name not in _AFTER_CROPPING:
            raise InputError(
                f"the two checkpoints see different clips: {name} is {ours} and {theirs}; "
                "compare networks trained with the same preprocessing"
            )


def _indices(video: Video, preprocessing: Preprocessing, start_s: float | None) -> Indices:
    clock = video.clock(preprocessing)
    if start_s is None:
        return view_indices(video.num_frames, video.fps, preprocessing, 1, clock)[0]
    if not 0 <= start_s < video.times_s[-1]:
        raise InputError(f"clip start {start_s:g} s lies outside {video.path}; give 0 to {video.times_s[-2]:.2f} s")
    start = int(np.abs(video.times_s[:-1] - start_s).argmin())
    return clip_from(start, video.num_frames, video.fps, preprocessing, clock)


def parse_query(text: str) -> Query:
    """Read ``t,x,y``.

    Raises:
        InputError: It is not an integer and two numbers.
    """
    try:
        t, x, y = text.split(",")
        return Query(int(t), float(x), float(y))
    except ValueError:
        raise InputError(
            f"query {text!r} is not t,x,y; give a frame of the clip, counted from 0, and a place from 0,0 (left, top) "
            "to 1,1, for example 4,0.5,0.25"
        ) from None


def checked_queries(queries: Sequence[Query], num_frames: int) -> list[Query]:
    """Return the queries, each with an origin.

    Raises:
        InputError: A query lies outside the clip.
    """
    checked = []
    for query in queries:
        if not 0 <= query.frame < num_frames:
            raise InputError(f"query frame {query.frame} is outside the clip; its frames are 0 to {num_frames - 1}")
        if not (0 <= query.x <= 1 and 0 <= query.y <= 1):
            raise InputError(
                f"query place x {query.x:g}, y {query.y:g} is outside the frame; both go from 0 (left, top) to 1"
            )
        checked.append(query._replace(origin=query.origin or f"({query.frame}, {query.x:g}, {query.y:g})"))
    return checked


def default_queries(frames: NDArray[np.uint8], shown: Sequence[int]) -> list[Query]:
    """Return the place of the strongest motion, if anything moves, and the centre (see `strongest_motion`)."""
    moving = strongest_motion(frames, shown)
    centre = Query(shown[len(shown) // 2], 0.5, 0.5, "centre")
    return [centre] if moving is None else [moving, centre]


def strongest_motion(frames: NDArray[np.uint8], shown: Sequence[int]) -> Query | None:
    """Return the place where consecutive shown frames differ most, in the later frame; None if nothing moves.

    Differences are averaged over windows of an eighth of the frame, so that an object outweighs a noisy pixel.

    Args:
        frames: The clip, uint8 [T, H, W, 3].
        shown: The frames that the pathway of the attention blocks sees.
    """
    brightness = frames[list(shown)].astype(np.float32).mean(axis=-1)  # [S, H, W]
    difference = np.abs(np.diff(brightness, axis=0))
    if difference.size == 0 or difference.max() == 0:
        return None
    height, width = difference.shape[1:]
    window = max(min(height, width) // 8, 1)
    means = F.avg_pool2d(F.avg_pool2d(torch.from_numpy(difference).double(), (window, 1), 1), (1, window), 1)
    step, top, left = np.unravel_index(int(means.argmax()), tuple(means.shape))
    x, y = (float(left) + window / 2) / width, (float(top) + window / 2) / height
    return Query(shown[int(step) + 1], x, y, "strongest motion")
