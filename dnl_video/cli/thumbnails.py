"""Reads small frames of videos for report.html."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.errors import InputError

_FRAMES = 6
_HEIGHT = 96


def thumbnail_reader(root: str | None = None) -> Callable[[str], NDArray[np.uint8] | str]:
    """Return a function that reads six frames spread over a video, uint8 [6, 96, W, 3], or says why it cannot.

    Args:
        root: Folder that now holds the videos, searched by path and by name.

    Raises:
        InputError: The folder does not exist.
    """
    if root is not None and not Path(root).is_dir():
        raise InputError(f"--video-root {root} is not a folder; give the one that holds the videos")

    def read(path: str) -> NDArray[np.uint8] | str:
        try:
            with open_video(_find(path, root)) as video:
                spread = (2 * np.arange(_FRAMES) + 1) * video.num_frames // (2 * _FRAMES)
                return video.read(spread, resize=_shrink)
        except VideoDecodeError as error:
            return error.reason.partition(" (")[0]

    return read


def _find(path: str, root: str | None) -> Path:
    parts = Path(path).relative_to(Path(path).anchor).parts
    moved = (Path(root, *parts[first:]) for first in range(len(parts))) if root is not None else ()
    return next((file for file in moved if file.is_file()), Path(path))


def _shrink(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = frames.shape[1:3]
    size = (max(1, round(width * _HEIGHT / height)), _HEIGHT)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)) for frame in frames])
