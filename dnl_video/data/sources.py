"""Videos given in Python: a path, a file object, bytes, or frames in memory."""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from dnl_video.config import Decoder
from dnl_video.data.decoding import Frames, Video, VideoDecodeError, open_video
from dnl_video.data.readers import MemoryReader
from dnl_video.errors import InputError

Source = str | os.PathLike[str] | bytes | BinaryIO | Frames | Tensor


@contextlib.contextmanager
def open_source(source: Source, fps: Any = None, *, decoder: Decoder = "decord") -> Iterator[Video]:
    """Open a path, bytes or a file object of a video file, or frames uint8 [N, H, W, 3] with their rate.

    Bytes and file objects are copied to a temporary file (1 to 2 ms per MB): readers open a file several times.

    Raises:
        InputError: Frames have another form, or fps is missing, wrong, or given for a file.
        VideoDecodeError: The file cannot be read.
    """
    file: Any = io.BytesIO(source) if isinstance(source, (bytes, bytearray, memoryview)) else source
    is_path = isinstance(file, (str, os.PathLike))
    if not is_path and not hasattr(file, "read"):
        yield Video("the frames", MemoryReader(checked_pixels(file, "frames", "[N, H, W, 3]"), above_zero("fps", fps)))
        return
    if fps is not None:
        raise InputError(f"fps is {fps}, but a video file has its own frame rate; give fps with frames only")
    if isinstance(file, io.TextIOBase):
        raise InputError("the video file was opened as text; open it with mode 'rb'")
    if is_path:
        with open_video(file, decoder=decoder) as video:
            yield video
        return
    with tempfile.TemporaryDirectory(prefix="dnl-video-") as folder:
        with Path(folder, "video").open("wb") as copy:
            shutil.copyfileobj(file, copy)
        try:
            with open_video(Path(folder, "video"), decoder=decoder) as video:
                yield video
        except VideoDecodeError as error:
            raise VideoDecodeError(str(getattr(file, "name", "video in memory")), error.reason) from None


def checked_pixels(pixels: Any, what: str, layout: str) -> Frames:
    """Return an array or tensor of RGB pixels as an array; ``layout`` names its dimensions, as in "[N, H, W, 3]".

    Raises:
        InputError: It is no array, is empty, or has another type or layout.
    """
    found = type(pixels).__name__
    if isinstance(pixels, (np.ndarray, Tensor)):
        shape, found = tuple(pixels.shape), str(pixels.dtype).removeprefix("torch.")
        if found == "uint8" and len(shape) == layout.count(",") + 1 and shape[-1] == 3 and 0 not in shape:
            return pixels.detach().cpu().numpy() if isinstance(pixels, Tensor) else pixels
        value_range = f" from {float(pixels.min()):g} to {float(pixels.max()):g}" if 0 not in shape else ""
        found = f"{found} {list(shape)}{value_range}"
    raise InputError(f"{what}: found {found}; give an array or tensor uint8 {layout}, RGB from 0 to 255, channels last")


def above_zero(name: str, number: Any) -> float:
    """Return a number; InputError for anything but a number above 0."""
    if isinstance(number, Real) and 0 < float(number) < math.inf:
        return float(number)
    raise InputError(f"{name} is {number}; give a number above 0")
