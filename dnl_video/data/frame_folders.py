"""Folders of extracted frames (`img_00001.jpg`, ...) read as videos. Imports no torch.

Such folders hold no frame rate: the listing's `fps` column says it, else it is `DEFAULT_FPS`, that of most of Kinetics.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnl_video.data.listings import IMAGE_EXTENSIONS, is_frame

DEFAULT_FPS = 30.0
_NUMBERED = re.compile(r"(.*?)(\d+)\.\w+")
# TSN's layout keeps optical flow (flow_x_00001.jpg) beside the colour frames.
_COLOUR = ("img", "image", "frame", "rgb", "")
_CHUNK = 32


class FrameFolderReader:
    """Reads a folder of numbered images; what `open_video` takes for a folder.

    Args:
        folder: The folder.
        fps: Frames a second; None is `DEFAULT_FPS`.

    Raises:
        ValueError: The folder holds no numbered images, several series of them, or one with a gap.
    """

    def __init__(self, folder: str | os.PathLike[str], fps: float | None = None) -> None:
        self._files = frame_files(Path(folder))
        self.num_frames = len(self._files)
        self.fps = DEFAULT_FPS if fps is None else float(fps)

    def chunks(self, indices: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the frames at sorted, distinct indices, some at a time, [n, H, W, 3] RGB."""
        from PIL import Image

        for first in range(0, len(indices), _CHUNK):
            frames = []
            for index in indices[first : first + _CHUNK]:
                with Image.open(self._files[index]) as image:
                    frames.append(np.asarray(image.convert("RGB")))
            yield np.stack(frames)

    def close(self) -> None:
        """Nothing stays open between reads."""


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a folder in the order of their numbers (9 before 10).

    Raises:
        ValueError: See `FrameFolderReader`.
    """
    series: dict[str, list[tuple[int, str]]] = {}
    for name in os.listdir(folder):  # noqa: PTH208 - a Path for each of 300 names is slow
        match = _NUMBERED.fullmatch(name)
        if match and is_frame(name):
            series.setdefault(match[1], []).append((int(match[2]), name))
    if not series:
        raise ValueError(f"the folder holds no numbered images such as img_00001.jpg ({' '.join(IMAGE_EXTENSIONS)})")
    prefix = _colour_series(series)
    numbered = sorted(series[prefix])
    step = numbered[1][0] - numbered[0][0] if len(numbered) > 1 else 1
    for (number, name), (following, after) in itertools.pairwise(numbered):
        if following - number != step or step < 1:
            raise ValueError(f"{name} is followed by {after}: frames are missing or listed twice")
    return [folder / name for _, name in numbered]


def _colour_series(series: Iterable[str]) -> str:
    prefixes = sorted(series)
    if len(prefixes) == 1:
        return prefixes[0]
    colour = [prefix for prefix in prefixes if prefix.lower().rstrip("_-.") in _COLOUR]
    if len(colour) == 1:
        return colour[0]
    raise ValueError(
        f"the folder holds several series of images ({', '.join(prefixes[:5])}); keep one, or name it img_"
    )
