"""Videos of many formats with painted frame numbers, as common encoders and cutters write them."""

from __future__ import annotations

import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

WIDTH, HEIGHT = 96, 64
FAST = {"preset": "ultrafast", "threads": "1"}
_X264 = {"threads": "1", "preset": "veryfast"}
_X265 = "log-level=none:pools=1:frame-threads=1:bframes=3:keyint=12:"
_OPEN = "open-gop=1:keyint=12:scenecut=0:bframes=3:b-adapt=0"
_CLOSED = {**_X264, "bf": "3", "g": "12", "sc_threshold": "0", "b_strategy": "0"}


def numbered(count: int) -> Iterator[np.ndarray]:
    """Yield frames [H, W, 3]: the number in eight black or white bits above a texture that moves."""
    texture = np.random.default_rng(0).integers(60, 200, (HEIGHT // 2, WIDTH, 3), dtype=np.uint8)
    for i in range(count):
        bits = np.array([255 * (i >> bit & 1) for bit in range(8)], np.uint8)
        frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        frame[: HEIGHT // 2] = bits.repeat(WIDTH // 8)[None, :, None]
        frame[HEIGHT // 2 :] = np.roll(texture, 3 * i, axis=1)
        yield frame


def numbers(frames: np.ndarray | Sequence[np.ndarray]) -> list[int]:
    """Return the numbers painted on frames [T, H, W, 3]."""
    found = []
    for frame in frames:
        blocks = frame[4 : HEIGHT // 2 - 4, :, :].reshape(-1, 8, WIDTH // 8, 3)[:, :, 3:-3].mean(axis=(0, 2, 3))
        found.append(int(sum(1 << bit for bit in range(8) if blocks[bit] > 128)))
    return found


def from_the_start(path: Path) -> list[np.ndarray]:
    """Return all frames as PyAV decodes them from the start of the file."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def encode(
    path: Path,
    codec: str = "libx264",
    options: Mapping[str, str] = FAST,
    frames: int | Iterable[np.ndarray] = 72,
    *,
    rate: int = 30,
    pix_fmt: str = "yuv420p",
    times: Callable[[int], int] | None = None,
    rotation: int = 0,
) -> Path:
    """Write frames, or some numbered ones, with any encoder; skip the test without it. `times`: in 1/600 s by frame."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options))
        stream.pix_fmt = pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 600)
        for i, image in enumerate(numbered(frames) if isinstance(frames, int) else frames):
            if i == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times(i), Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


FILM_TICKS = [20 * i if i < 96 else 1920 + 100 * (i - 96) for i in range(192)]
"""Times of 96 frames at 1/30 s and then 96 at 1/6 s, in 1/600 s: the second half begins at 3.2 s."""


def film(path: Path, frames: int | Iterable[np.ndarray] = 192) -> Path:
    """Write frames with the times `FILM_TICKS`."""
    return encode(path, "libx264", _CLOSED, frames, times=FILM_TICKS.__getitem__)


def cut(source: Path, target: Path, frames: int) -> Path:
    """Copy a 30 fps stream with its first frames before time 0, as `ffmpeg -ss ... -c copy` does (an edit list)."""
    return _copy(source, target, shift=frames)


def drop_first_groups(source: Path, target: Path, groups: int) -> Path:
    """Copy a stream from a later key frame on, like a recording that starts in the middle of a stream."""
    return _copy(source, target, skipped_groups=groups)


def _copy(source: Path, target: Path, *, shift: int = 0, skipped_groups: int = 0) -> Path:
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = read.streams.video[0]
        if not hasattr(written, "add_stream_from_template"):
            pytest.skip("this PyAV cannot copy a stream")
        copied = written.add_stream_from_template(stream)
        ticks = round(1 / (30 * stream.time_base))
        groups = 0
        for packet in read.demux(stream):
            groups += packet.is_keyframe
            if packet.dts is not None and groups > skipped_groups:
                packet.pts, packet.dts = packet.pts - shift * ticks, packet.dts - shift * ticks
                packet.stream = copied
                written.mux(packet)
    return target


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Set the display matrix of an .mp4 with one track (tkhd, ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = matrix
    path.write_bytes(content)


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def write(kind: str, folder: Path) -> Path:
    """Write a video of a kind of `ENCODINGS`, `CUTS` or `TAILS`."""
    path, source = (folder / f"{name}{Path(kind).suffix}" for name in "ba")
    if kind in ENCODINGS:
        return encode(source, *ENCODINGS[kind], times=_varying if kind.startswith("varying") else None)
    if kind in CUTS:
        options, count, dropped = CUTS[kind]
        return cut(encode(source, "libx264", options, count), path, dropped)
    return drop_first_groups(write(TAILS[kind], folder), path, 2)


def _varying(frame: int) -> int:
    return 20 * frame + 7 * frame * frame % 13


def _x264(parameters: str) -> tuple[str, dict[str, str]]:
    return "libx264", {**_X264, "x264-params": parameters}


def _x265(parameters: str) -> tuple[str, dict[str, str]]:
    return "libx265", {"preset": "ultrafast", "x265-params": _X265 + parameters}


_VPX = {"g": "12", "b": "300k", "cpu-used": "8", "threads": "1"}
_MPEG = {"bf": "2", "g": "12", "threads": "1"}
ENCODINGS = {
    **dict.fromkeys(("closed.mp4", "closed.mkv", "varying.mp4", "varying.mkv"), ("libx264", _CLOSED)),
    **dict.fromkeys(("h264.avi", "h264.ts", "h264.flv"), ("libx264", _CLOSED)),
    **dict.fromkeys(("open.mp4", "open.mkv", "open.ts"), _x264(_OPEN)),
    "long.mp4": ("libx264", {**_X264, "bf": "3", "g": "250"}),
    "vp8.webm": ("libvpx", _VPX),
    "vp9.webm": ("libvpx-vp9", {**_VPX, "deadline": "realtime"}),
    "refresh.mp4": _x264("intra-refresh=1:keyint=20:bframes=0"),
    "refresh_b.mp4": _x264("intra-refresh=1:keyint=20:bframes=2"),
    "hevc.mp4": _x265("open-gop=1"),
    "hevc_closed.mkv": _x265("open-gop=0"),
    "mpeg4.avi": ("mpeg4", _MPEG),
    "mpeg2.mpg": ("mpeg2video", _MPEG),
    "wmv2.wmv": ("wmv2", {"g": "12", "threads": "1"}),
    "av1.mp4": ("libsvtav1", {"g": "24", "preset": "12", "svtav1-params": "lp=1"}),
}
# Options, number of frames, and frames cut off (below 0: time before the first frame).
CUTS = {
    "late.mp4": (_CLOSED, 72, -20),
    "cut.mp4": (_CLOSED, 72, 15),
    "cut_long.mp4": ({**_X264, "g": "250"}, 180, 150),
}
TAILS = {"open_tail.mp4": "open.mp4", "hevc_tail.mp4": "hevc.mp4"}
