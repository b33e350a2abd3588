"""Reads folders of extracted frames. Imports no torch."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dnl_video.data.folders import IMAGE_EXTENSIONS, is_frame
from dnl_video.data.readers import Frames, Reader, stacked

DEFAULT_FPS = 30.0
"""Frame rate of folders whose listing has no `fps` column; that of most Kinetics videos."""

_NUMBERED = re.compile(r"(.*?)(\d+)\.\w+")
# TSN's layout keeps optical flow (flow_x_00001.jpg) beside the colour frames.
_COLOUR_PREFIXES = ("img", "image", "frame", "rgb", "")


class FrameFolderReader(Reader):
    """Reads a folder of numbered images (`img_00001.jpg`, ...) in the order of their numbers (9 before 10).

    Args:
        folder: The folder.
        fps: Frames per second; None takes `DEFAULT_FPS`.

    Raises:
        ValueError: The folder holds no numbered images, several series of them, or a gap in the numbers.
    """

    def __init__(self, folder: str, fps: float | None = None) -> None:
        series: dict[str, list[tuple[int, str]]] = {}
        for name in os.listdir(folder):  # noqa: PTH208 - a Path for each of 300 names is slow
            match = _NUMBERED.fullmatch(name)
            if match and is_frame(name):
                series.setdefault(match[1], []).append((int(match[2]), name))
        numbered = sorted(series[_colour_prefix(sorted(series))])
        step = numbered[1][0] - numbered[0][0] if len(numbered) > 1 else 1
        for (number, name), (following, after) in itertools.pairwise(numbered):
            if following - number != step or step < 1:
                raise ValueError(f"{name} is followed by {after}: frames are missing or listed twice")
        self.files = [Path(folder, name) for _, name in numbered]
        self.num_frames = len(self.files)
        self.fps = DEFAULT_FPS if fps is None else float(fps)

    def chunks(self, indices: Sequence[int]) -> Iterator[Frames]:
        """See `Reader.chunks`."""
        return stacked(_read_image(self.files[index]) for index in indices)


def _read_image(file: Path) -> Frames:
    """Read an image as RGB, upright by its EXIF orientation."""
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):  # grey of 16 bits, which `convert` would clip at 255
            return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))


def _colour_prefix(prefixes: list[str]) -> str:
    """Return the file name prefix of the colour frames."""
    if not prefixes:
        raise ValueError(f"the folder holds no numbered images such as img_00001.jpg ({' '.join(IMAGE_EXTENSIONS)})")
    colour = [prefix for prefix in prefixes if prefix.lower().rstrip("_-.") in _COLOUR_PREFIXES]
    for candidates in (prefixes, colour):
        if len(candidates) == 1:
            return candidates[0]
    raise ValueError(
        f"the folder holds several series of images ({', '.join(prefixes[:5])}); keep one, or name it img_"
    )
