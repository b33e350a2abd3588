"""Writes video files (PyAV); nothing else in the package encodes video."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.files import atomic_path

_TICK_S = Fraction(1, 90_000)  # as in MPEG systems
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[NDArray[np.uint8]],
    fps: float | Fraction,
    *,
    times_s: NDArray[np.float64] | None = None,
    crf: int = 18,
    gop: int = 12,
    sample_aspect: Fraction | None = None,
    options: Mapping[str, str] | None = None,
) -> None:
    """Encode RGB frames to an H.264 file (yuv420p).

    Memory is constant: frames are consumed one at a time. Every group of pictures is closed (it decodes without its
    neighbours) and has at most `gop` frames. The file is written atomically. The same frames and options give the same
    bytes on one machine; x264's output depends on its number of threads.

    Args:
        path: File to write; its suffix chooses the container (.mp4, .m4v, .mov, .mkv, .avi). Missing folders
            are made, an existing file is replaced.
        frames: Array [T, H, W, 3] or iterable of arrays [H, W, 3]: RGB, uint8, all of one even size.
        fps: Frames per second; their mean, if the rate is variable.
        times_s: Start of each frame in seconds, for a variable frame rate (but .avi stores no times). The last frame is
            shown for 1 / fps.
        crf: Constant rate factor: 0 is lossless, 18 nearly lossless.
        gop: Largest distance of two key frames, in frames.
        sample_aspect: Width of a pixel divided by its height, which players use; None writes no such tag.
        options: More options of libx264, for example `{"preset": "veryfast", "threads": "1"}`.

    Raises:
        InputError: The suffix, the rate or a frame is not allowed, there are no frames, or the file cannot be written.
    """
    path = Path(path)
    container_format = container_of(path)
    if container_format == "avi":
        times_s = None
    if not fps > 0:
        raise InputError(f"fps is {fps}; give frames per second above 0")
    images = iter(frames)
    first = next(images, None)
    if first is None:
        raise InputError(f"{path}: there are no frames to write; a video needs at least one")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise InputError(
            f"frames are {width}x{height} (width x height), but yuv420p needs even sizes; crop or pad by one pixel"
        )
    with atomic_path(path) as temporary:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        # The index at the front lets readers start before the end of the file has arrived.
        muxing = {"movflags": "faststart"} if container_format in ("mp4", "mov") else {}
        with av.open(str(temporary), "w", format=container_format, options=muxing) as output:
            rate = Fraction(fps).limit_denominator(1001)
            stream: Any = output.add_stream("libx264", rate=rate)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.codec_context.gop_size = gop
            stream.codec_context.sample_aspect_ratio = (sample_aspect or Fraction(0)).limit_denominator(1000)
            # cgop: closed groups. mbtree: with AVX-512, x264's macroblock tree reads uninitialised memory for widths
            # that are no multiple of 128, so its output would change from run to run.
            stream.options = {"flags": "+cgop", "crf": str(crf), "mbtree": "0", **(options or {})}
            time_base = 1 / rate if times_s is None else _TICK_S
            stream.codec_context.time_base = time_base
            for number, image in enumerate(itertools.chain([first], images)):
                if image.shape != first.shape:
                    raise InputError(f"frame {number} has shape {image.shape}, frame 0 {first.shape}; give one size")
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts = number if times_s is None else round(times_s[number] / _TICK_S)
                frame.time_base = time_base
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))


def container_of(path: str | os.PathLike[str]) -> str:
    """Return FFmpeg's name of the container for a file's suffix.

    Raises:
        InputError: The suffix is not allowed.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in _CONTAINERS:
        raise InputError(f"{path}: cannot write suffix {suffix!r}; allowed: {', '.join(_CONTAINERS)}")
    return _CONTAINERS[suffix.lower()]


def resize_frames(frames: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize RGB frames [n, H, W, 3] to [n, height, width, 3] (bicubic, antialiased)."""
    if frames.shape[1:3] == (height, width):
        return frames
    images = [av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24") for frame in frames]
    scale = functools.partial(
        VideoReformatter().reformat, width=width, height=height, interpolation="BICUBIC", threads=1
    )
    return np.stack([scale(image).to_ndarray() for image in images])
