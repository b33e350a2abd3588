"""Videos of many formats with painted frame numbers, as common encoders and cutters write them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

WIDTH, HEIGHT = 96, 64
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
    codec: str,
    options: dict[str, str],
    count: int = 72,
    *,
    times: Callable[[int], int] | None = None,
    rotation: int = 0,
) -> Path:
    """Write `count` numbered frames; see `encode_frames`."""
    return encode_frames(path, numbered(count), codec, options, times=times, rotation=rotation)


def encode_frames(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str,
    options: dict[str, str],
    *,
    rate: int = 30,
    pix_fmt: str = "yuv420p",
    times: Callable[[int], int] | None = None,
    rotation: int = 0,
) -> Path:
    """Write frames with any encoder; `times` gives each one's time in 1/600 s. Skips the test without the encoder."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options))
        stream.pix_fmt = pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 600)
        for i, image in enumerate(frames):
            if i == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times(i), Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(source: Path, target: Path, frames: int) -> Path:
    """Copy a 30 fps stream with its first frames before time 0, as `ffmpeg -ss ... -c copy` does (an edit list)."""

    def shifted(packet: av.Packet, ticks: int) -> None:
        packet.pts -= ticks
        packet.dts -= ticks

    _copy(source, target, lambda packet, ticks: shifted(packet, frames * ticks) or True)
    return target


def drop_first_groups(source: Path, target: Path, groups: int) -> Path:
    """Copy a stream from a later key frame on, like a recording that starts in the middle of a stream."""
    seen = [0]

    def late(packet: av.Packet, _ticks: int) -> bool:
        seen[0] += packet.is_keyframe
        return seen[0] > groups

    _copy(source, target, late)
    return target


def _copy(source: Path, target: Path, keep: Callable[[av.Packet, int], bool]) -> None:
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = read.streams.video[0]
        if not hasattr(written, "add_stream_from_template"):
            pytest.skip("this PyAV cannot copy a stream")
        copied = written.add_stream_from_template(stream)
        ticks = round(1 / (30 * stream.time_base))
        for packet in read.demux(stream):
            if packet.dts is not None and keep(packet, ticks):
                packet.stream = copied
                written.mux(packet)


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def write(kind: str, folder: Path) -> Path:
    """Write one of `KINDS`."""
    return KINDS[kind](folder)


KINDS: dict[str, Callable[[Path], Path]] = {
    "closed.mp4": lambda f: encode(f / "a.mp4", "libx264", _CLOSED),
    "closed.mkv": lambda f: encode(f / "a.mkv", "libx264", _CLOSED),
    "long.mp4": lambda f: encode(f / "a.mp4", "libx264", {**_X264, "bf": "3", "g": "250"}),
    "varying.mp4": lambda f: encode(f / "a.mp4", "libx264", _CLOSED, times=lambda i: 20 * i + 7 * i * i % 13),
    "varying.mkv": lambda f: encode(f / "a.mkv", "libx264", _CLOSED, times=lambda i: 20 * i + 7 * i * i % 13),
    "late.mp4": lambda f: cut(encode(f / "a.mp4", "libx264", _CLOSED), f / "b.mp4", -20),
    "vp8.webm": lambda f: encode(f / "a.webm", "libvpx", {"g": "12", "b": "300k", "cpu-used": "8", "threads": "1"}),
    "vp9.webm": lambda f: encode(
        f / "a.webm", "libvpx-vp9", {"g": "12", "b": "300k", "deadline": "realtime", "cpu-used": "8", "threads": "1"}
    ),
    "cut.mp4": lambda f: cut(encode(f / "a.mp4", "libx264", _CLOSED), f / "b.mp4", 15),
    "cut_long.mp4": lambda f: cut(encode(f / "a.mp4", "libx264", {**_X264, "g": "250"}, 180), f / "b.mp4", 150),
    "open.mp4": lambda f: encode(f / "a.mp4", "libx264", {**_X264, "x264-params": _OPEN}),
    "open.mkv": lambda f: encode(f / "a.mkv", "libx264", {**_X264, "x264-params": _OPEN}),
    "open_tail.mp4": lambda f: drop_first_groups(write("open.mp4", f), f / "b.mp4", 2),
    "refresh.mp4": lambda f: encode(
        f / "a.mp4", "libx264", {**_X264, "x264-params": "intra-refresh=1:keyint=20:bframes=0"}
    ),
    "refresh_b.mp4": lambda f: encode(
        f / "a.mp4", "libx264", {**_X264, "x264-params": "intra-refresh=1:keyint=20:bframes=2"}
    ),
    "hevc.mp4": lambda f: encode(f / "a.mp4", "libx265", {"preset": "ultrafast", "x265-params": _X265 + "open-gop=1"}),
    "hevc_closed.mkv": lambda f: encode(
        f / "a.mkv", "libx265", {"preset": "ultrafast", "x265-params": _X265 + "open-gop=0"}
    ),
    "hevc_tail.mp4": lambda f: drop_first_groups(write("hevc.mp4", f), f / "b.mp4", 2),
    "mpeg4.avi": lambda f: encode(f / "a.avi", "mpeg4", {"bf": "2", "g": "12", "threads": "1"}),
    "h264.avi": lambda f: encode(f / "a.avi", "libx264", _CLOSED),
    "mpeg2.mpg": lambda f: encode(f / "a.mpg", "mpeg2video", {"bf": "2", "g": "12", "threads": "1"}),
    "wmv2.wmv": lambda f: encode(f / "a.wmv", "wmv2", {"g": "12", "threads": "1"}),
    "h264.ts": lambda f: encode(f / "a.ts", "libx264", _CLOSED),
    "open.ts": lambda f: encode(f / "a.ts", "libx264", {**_X264, "x264-params": _OPEN}),
    "h264.flv": lambda f: encode(f / "a.flv", "libx264", _CLOSED),
    "av1.mp4": lambda f: encode(f / "a.mp4", "libsvtav1", {"g": "24", "preset": "12", "svtav1-params": "lp=1"}),
}
