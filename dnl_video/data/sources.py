"""Videos given in Python: a path, a file object, bytes, or frames in memory."""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
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
def open_source(source: Source, fps: float | None = None, *, decoder: Decoder = "decord") -> Iterator[Video]:
    """Open a video.

    Bytes and file objects are copied to a temporary file first: every reader opens a file several times, and the copy
    takes 1 to 2 ms per MB.

    Args:
        source: A path, the content of a video file as bytes or as a file object, or frames uint8 [N, H, W, 3], RGB.
        fps: Frames per second of frames in memory.
        decoder: See `open_video`.

    Raises:
        InputError: Frames have another form, or fps is missing, wrong, or given for a file.
        VideoDecodeError: The file cannot be read.
    """
    is_path, is_content = isinstance(source, (str, os.PathLike)), isinstance(source, (bytes, bytearray, memoryview))
    if not is_path and not is_content and not hasattr(source, "read"):
        frames = checked_pixels(source, "frames", "[N, H, W, 3]")
        yield Video("frames in memory", MemoryReader(frames, checked_fps(fps)))
        return
    if fps is not None:
        raise InputError(f"fps is {fps}, but a video file has its own frame rate; give fps with frames only")
    if is_path:
        with open_video(source, decoder=decoder) as video:  # type: ignore[arg-type]
            yield video
        return
    if isinstance(source, io.TextIOBase):
        raise InputError("the video file was opened as text; open it with mode 'rb'")
    with tempfile.TemporaryDirectory(prefix="dnl-video-") as folder:
        file = Path(folder, "video")
        with file.open("wb") as copy:
            shutil.copyfileobj(io.BytesIO(source) if is_content else source, copy)  # type: ignore[arg-type]
        try:
            with open_video(file, decoder=decoder) as video:
                yield video
        except VideoDecodeError as error:
            name = "video of bytes" if is_content else str(getattr(source, "name", "video of a file object"))
            raise VideoDecodeError(name, error.reason) from None


def checked_pixels(pixels: Any, what: str, layout: str) -> Frames:
    """Return an array or tensor of RGB pixels as an array.

    Args:
        pixels: The array or tensor.
        what: What it holds, for messages.
        layout: Its dimensions, for example "[N, H, W, 3]".

    Raises:
        InputError: It is no array, is empty, or has another type or layout.
    """
    expected = f"give an array or tensor uint8 {layout}, RGB from 0 to 255"
    if not isinstance(pixels, (np.ndarray, Tensor)):
        raise InputError(f"{what}: found {type(pixels).__name__}; {expected}")
    shape, kind, dims = tuple(pixels.shape), str(pixels.dtype).removeprefix("torch."), layout.count(",") + 1
    values = ""
    if 0 in shape:
        hint = "these are empty"
    elif "float" in kind:
        values = f" from {float(pixels.min()):g} to {float(pixels.max()):g}"
        hint = "multiply values between 0 and 1 by 255, round, and convert to uint8"
    elif kind != "uint8":
        hint = "convert to uint8"
    elif len(shape) == dims and shape[-1] == 3:
        return pixels.detach().cpu().numpy() if isinstance(pixels, Tensor) else pixels
    elif len(shape) == dims and 3 in shape[min(dims - 3, 1) : -2]:
        hint = "move the channels to the end"
    elif shape[-1:] == (1,) or (len(shape) == dims - 1 and shape[-1] != 3):
        hint = "repeat grey values three times along the last dimension"
    else:
        hint = f"{dims} dimensions, the last of size 3"
    raise InputError(f"{what}: found {kind} {list(shape)}{values}; {expected} ({hint})")


def checked_fps(fps: Any) -> float:
    """Return frames per second as a float.

    Raises:
        InputError: It is missing, or no number above 0.
    """
    with contextlib.suppress(TypeError, ValueError):
        if math.isfinite(rate := float(fps)) and rate > 0:
            return rate
    raise InputError(f"fps is {fps}; give the frames per second of the frames, a number above 0")
