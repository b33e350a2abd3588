"""Which decoder reads a file exactly: `probe_video(path) -> VideoProbe`, from one pass over its packets.

decord 0.6.0 returns wrong frames, without a word, where a file has an edit list, open groups of pictures (x265's
default), refreshes without key frames, or lies in .avi, .mpg, .ts or .wmv; some edit lists make it spin forever. So it
is given only what is known to be exact, and that is settled before it sees the file.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from dnl_video.data.decode_error import VideoDecodeError, one_line
from dnl_video.data.packets import PacketTable, read_packets

# Containers by FFmpeg's names, and the codecs that decord 0.6.0 (FFmpeg 4.1) reads exactly in them; measured against
# decoding from the start by PyAV. (In .flv it misses after seeks where there are B-frames.)
_EXACT_CONTAINERS = {"mov": "mp4/mov", "matroska": "mkv/webm"}
_EXACT_CODECS = ("h264", "vp8", "vp9")
_COUNTED_BY_PACKETS = ("h264", "hevc", "vp8", "vp9", "av1")
# Widths that come back from decord with 4 to 6 channels, or as an error.
_BAD_WIDTHS = (48, 72)
_LEAST_WIDTH = 32
_CACHED = 512


@dataclass(frozen=True)
class VideoProbe:
    """What a file holds, and what reads it exactly.

    Args:
        path: The file.
        frames: Number of frames; None where only decoding tells (then `open_video(path).num_frames` does).
        fps: Mean frames a second.
        width: Stored width in pixels, before rotation.
        height: Stored height in pixels, before rotation.
        codec: FFmpeg's name of the codec.
        container: FFmpeg's name of the container's format.
        duration_s: Length in seconds.
        exact: Whether decord reads the file exactly.
        reason: Why not, in one line; "" where it does.
    """

    path: str
    frames: int | None
    fps: float
    width: int
    height: int
    codec: str
    container: str
    duration_s: float
    exact: bool
    reason: str

    @property
    def decoder(self) -> str:
        """`decord` or `av`: what a manifest's column `decoder` stores, so that no run need look again."""
        return "decord" if self.exact else "av"


def probe_video(path: str | os.PathLike[str]) -> VideoProbe:
    """Look at a file's packets; takes some milliseconds, and each process remembers its last 512 files.

    Raises:
        VideoDecodeError: The file is missing, empty, no video, or cannot be opened.
    """
    return probe_with_packets(path)[0]


def probe_with_packets(path: str | os.PathLike[str]) -> tuple[VideoProbe, PacketTable]:
    """Return the probe and the packets it comes from.

    Raises:
        VideoDecodeError: As `probe_video`.
    """
    name = check_is_file(path)
    status = Path(name).stat()
    key = (name, status.st_mtime_ns, status.st_size)
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key]
    try:
        packets = read_packets(name)
    except Exception as error:  # av.error.* of many kinds; all mean that this file cannot be read
        raise VideoDecodeError(name, f"cannot be opened ({one_line(error)})") from None
    reason = why_not_decord(packets)
    probe = VideoProbe(
        path=name,
        frames=count_frames(packets),
        fps=packets.fps,
        width=packets.width,
        height=packets.height,
        codec=packets.codec,
        container=packets.container,
        duration_s=packets.duration_s,
        exact=not reason,
        reason=reason,
    )
    _cache[key] = probe, packets
    while len(_cache) > _CACHED:
        _cache.popitem(last=False)
    return probe, packets


_cache: OrderedDict[tuple[str, int, int], tuple[VideoProbe, PacketTable]] = OrderedDict()


def check_is_file(path: str | os.PathLike[str]) -> str:
    """Return the file's name.

    Raises:
        VideoDecodeError: It is missing, a folder or empty.
    """
    name = os.fspath(path)
    file = Path(name)
    if not file.exists():
        raise VideoDecodeError(name, "file not found")
    if file.is_dir():
        raise VideoDecodeError(name, "is a folder, not a video")
    if file.stat().st_size == 0:
        raise VideoDecodeError(name, "file is empty")
    return name


def why_not_decord(packets: PacketTable) -> str:
    """Return why decord cannot be trusted with a file, in one line; "" where it can."""
    if not set(packets.container.split(",")) & set(_EXACT_CONTAINERS):
        return f"container {packets.container} is not one of {', '.join(_EXACT_CONTAINERS.values())}"
    if packets.codec not in _EXACT_CODECS:
        return f"codec {packets.codec} is not one of {', '.join(_EXACT_CODECS)}"
    if packets.width < _LEAST_WIDTH or packets.width in _BAD_WIDTHS:
        return f"frames of width {packets.width} come back in other shapes"
    if packets.has_cuts:
        return "an edit list cuts frames off, or frames are invisible"
    if not packets.has_distinct_times:
        return "frames lack times, or share them"
    if packets.pts.min() < 0:
        return "times below 0"
    if packets.has_leading_pictures or packets.starts_with_leading_pictures:
        return "open groups of pictures: frames before a key frame need the group before"
    if not packets.key[0]:
        return "does not begin with a key frame"
    if not (packets.key == packets.random_access).all():
        return "key frames that do not restart the decoder (open groups, or refresh without key frames)"
    if packets.damaged:
        return f"{packets.damaged} damaged packets"
    if not (math.isfinite(packets.fps) and packets.fps > 0):
        return "no frame rate"
    if packets.promised_frames > 2 * len(packets.pts) + 1000:
        # decord takes memory for the frames that the header promises, and aborts the process where there is too little.
        return f"the header promises {packets.promised_frames:.0f} frames, there are {len(packets.pts)}"
    return ""


def count_frames(packets: PacketTable) -> int | None:
    """Return how many frames decoding from the start gives, where the packets tell; None where they do not."""
    tells = (
        packets.codec in _COUNTED_BY_PACKETS
        and packets.stores_times
        and packets.has_distinct_times
        and bool(packets.random_access[0])
        and not packets.starts_with_leading_pictures
        and not packets.damaged
    )
    return int(packets.shown.sum()) if tells else None


def forget() -> None:
    """Look at every file anew from now on."""
    _cache.clear()
