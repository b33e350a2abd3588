"""What a decoded picture tells about its video: size, orientation, bits per colour, shape of the pixels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter

from dnl_video.data.packets import PacketTable, open_container


class Orientation(NamedTuple):
    """How a stored picture becomes upright: swap rows and columns first, then mirror.

    Args:
        transpose: Swap rows and columns.
        flip_x: Mirror left and right.
        flip_y: Mirror top and bottom.
    """

    transpose: bool
    flip_x: bool
    flip_y: bool

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return a stored picture [H, W, 3] upright."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


# `frame.side_data` and its frame refer to each other, so that the garbage collector keeps frames for long.
_side_data: Any = SideDataContainer


def orientation_of(frame: Any) -> Orientation:
    """Return the orientation of a decoded frame, as FFmpeg's autorotation takes it (fftools/ffmpeg_filter.c).

    The display matrix of phones and cameras maps (x, y) to (a x + c y, b x + d y). It has one of eight orientations;
    other angles are rounded to one of them.
    """
    turn = math.radians(frame.rotation)
    a, b, c, d = math.cos(turn), -math.sin(turn), math.sin(turn), math.cos(turn)
    with contextlib.suppress(ValueError):  # PyAV up to 18 knows not every kind of side data; then the angle counts
        matrix = _side_data(frame).get("DISPLAYMATRIX")
        if matrix is not None:
            a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    transpose = abs(b) > abs(a)
    return Orientation(transpose, (c if transpose else a) < 0, (b if transpose else d) < 0)


def upright_rgb() -> Callable[[Any], npt.NDArray[np.uint8]]:
    """Return a function that converts a decoded frame to upright RGB, [H, W, 3].

    It has a scaler of its own, with one thread. PyAV 19 shares one scaler with several threads in a process; a forked
    process (a loader process) hangs when it frees that of its parent.
    """
    reformat: Callable[..., Any] = VideoReformatter().reformat
    return lambda frame: orientation_of(frame).apply(reformat(frame, format="rgb24", threads=1).to_ndarray())


@dataclass(frozen=True)
class Picture:
    """The first picture of a video.

    Args:
        width: Stored width in pixels, before rotation.
        height: Stored height in pixels, before rotation.
        bits: Bits per colour.
        orientation: How it becomes upright.
        sample_aspect: Width of a pixel divided by its height; 1 if unknown.
    """

    width: int
    height: int
    bits: int
    orientation: Orientation
    sample_aspect: Fraction


def read_picture(path: str, packets: PacketTable) -> Picture | None:
    """Decode the first picture of a file; None if there is none.

    Raises:
        av.error.FFmpegError: It cannot be decoded.
    """
    with open_container(path, header_only=packets.container.startswith(("mov,", "matroska,"))) as container:
        stream = container.streams[packets.stream]
        decoder = stream.codec_context
        decoder.skip_frame = "DEFAULT"
        decoder.thread_count = 1
        frames: list[Any] = []
        for packet in container.demux(stream):
            frames = decoder.decode(packet) or decoder.decode(None)  # None: do not wait for reordered pictures
            if frames:
                break
            decoder.flush_buffers()
        if not frames:
            return None
        aspect = stream.sample_aspect_ratio or decoder.sample_aspect_ratio or 1
        return Picture(
            width=frames[0].width,
            height=frames[0].height,
            bits=max(component.bits for component in frames[0].format.components),
            orientation=orientation_of(frames[0]),
            sample_aspect=Fraction(aspect.numerator, aspect.denominator),
        )
