"""Chooses the decoder that reads a file exactly, from one pass over its packets.

decord 0.6.0 silently returns wrong frames if a file has an edit list, open groups of pictures (x265's default) or
refresh without key frames, or is an .avi, .mpg, .ts or .wmv file; some edit lists make it loop forever. So it reads
only files for which it is known to be exact, and this is decided before it opens them.
"""

from __future__ import annotations

import functools
import math
import os
import re
import stat
from dataclasses import dataclass

from dnl_video.data.file_kind import cut_off, why_not_video
from dnl_video.data.packets import NoVideoError, PacketTable, read_packets
from dnl_video.data.pictures import Picture, read_picture

# Containers and codecs, by FFmpeg's names, that decord 0.6.0 (FFmpeg 4.1) reads exactly; measured by comparison with
# PyAV decoding from the start. (In .flv files with B-frames it is wrong after a seek.)
_EXACT_CONTAINERS = {"mov": "mp4/mov", "matroska": "mkv/webm"}
_EXACT_CODECS = ("h264", "vp8", "vp9")
_COUNTED_BY_PACKETS = ("h264", "hevc", "vp8", "vp9", "av1")
# For these widths decord returns frames with 4 to 6 channels, or an error.
_BAD_WIDTHS = (48, 72)
_LEAST_WIDTH = 32
_NO_FILES = {"p": "a FIFO", "s": "a socket", "c": "a device", "b": "a device"}


class VideoDecodeError(Exception):
    """A video cannot be read.

    Args:
        path: The file.
        reason: Why, in one line.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        # DataLoader rebuilds a worker's exception as `type(error)("Caught ... Original Traceback ...")`. The message is
        # the last line.
        if not reason and "\nOriginal Traceback" in path:
            path = path.strip().splitlines()[-1].partition("VideoDecodeError: ")[2] or path
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


def one_line(error: Exception) -> str:
    """Return an error's text, equal for equal errors: FFmpeg's, without number and path, and not decord's code."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ", "", text)
    text = re.sub(r"(?s)Check failed: avcodec_.*\(-1094995529 vs.*", "Invalid data found when processing input", text)
    return " ".join(text.split())[:300]


@dataclass(frozen=True)
class VideoProbe:
    """A video file's packets, and what follows from them.

    Args:
        path: The file.
        packets: The packets.
        frames: Number of frames; None if only decoding tells (`open_video(path).num_frames`).
    """

    path: str
    packets: PacketTable
    frames: int | None

    @functools.cached_property
    def picture(self) -> Picture | None:
        """The first picture, decoded when it is first asked for; None if it cannot be."""
        try:
            return read_picture(self.path, self.packets)
        except Exception:  # av.error.* of many kinds
            return None

    @functools.cached_property
    def reason(self) -> str:
        """Why decord does not read the file exactly, in one line; "" if it does."""
        return why_not_decord(self.packets) or why_not_decord_picture(self.packets, self.picture)

    @property
    def exact(self) -> bool:
        """Whether decord reads the file exactly."""
        return not self.reason

    @property
    def decoder(self) -> str:
        """`decord` or `av`, for the column `decoder` of a manifest, so that later runs need no probe."""
        return "decord" if self.exact else "av"


def probe_video(path: str | os.PathLike[str]) -> VideoProbe:
    """Probe a file; this takes some milliseconds, and each process caches its last 512 files.

    Raises:
        VideoDecodeError: The file is missing, empty, no video, or cannot be opened.
    """
    name = os.fspath(path)
    status = stat_video(name)
    if stat.S_ISDIR(status.st_mode):
        raise VideoDecodeError(name, "is a folder, not a video")
    return _probe(name, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=512)
def _probe(name: str, mtime_ns: int, size: int) -> VideoProbe:
    """Probe a file; a file with another time or size is another key of the cache."""
    try:
        packets = read_packets(name)
    except NoVideoError as error:
        raise VideoDecodeError(name, f"cannot be opened ({cut_off(name) or error})") from None
    except Exception as error:  # av.error.* of many kinds
        known = "" if isinstance(error, OSError) else why_not_video(name)
        raise VideoDecodeError(name, f"cannot be opened ({known or one_line(error)})") from None
    return VideoProbe(name, packets, count_frames(packets))


forget = _probe.cache_clear
"""Empty the cache, so that every file is probed again."""


def stat_video(path: str) -> os.stat_result:
    """Return the status of a file or folder.

    Raises:
        VideoDecodeError: It is missing, or an empty file.
    """
    try:
        status = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        raise VideoDecodeError(path, "file not found") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise VideoDecodeError(path, f"cannot be opened ({one_line(error)})") from None
    kind = stat.filemode(status.st_mode)[0]
    if kind in _NO_FILES:  # reading it could wait forever
        raise VideoDecodeError(path, f"{_NO_FILES[kind]}, not a video")
    if status.st_size == 0 and not stat.S_ISDIR(status.st_mode):
        raise VideoDecodeError(path, "file is empty")
    return status


def why_not_decord(packets: PacketTable) -> str:
    """Return why decord does not read a file exactly, in one line; "" if its packets tell no reason."""
    if not set(packets.container.split(",")) & set(_EXACT_CONTAINERS):
        return f"container {packets.container} is not one of {', '.join(_EXACT_CONTAINERS.values())}"
    if packets.codec not in _EXACT_CODECS:
        return f"codec {packets.codec} is not one of {', '.join(_EXACT_CODECS)}"
    if packets.video_streams > 1:
        return f"{packets.video_streams} video streams, of which decord may read another one"
    if packets.width < _LEAST_WIDTH or packets.width in _BAD_WIDTHS:
        return f"frames of width {packets.width} come back in other shapes"
    if packets.may_have_fields:
        return "interlaced pictures are allowed: decord mixes the colours of their fields"
    if packets.size_changes:
        return "the frame size may change: decord resizes such frames"
    if not packets.shown.all():
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
    if packets.declared_frames < 1:
        return "the header tells no length, or one frame"  # then decord finds no frames
    if packets.declared_frames > 2 * len(packets.pts) + 1000:
        # decord allocates memory for all frames that the header declares, and aborts the process if it fails.
        return f"the header declares {packets.declared_frames:.0f} frames, but there are {len(packets.pts)}"
    return ""


def why_not_decord_picture(packets: PacketTable, picture: Picture | None) -> str:
    """Return why decord does not read a file with this first picture exactly, in one line; "" if it does."""
    if picture is None:
        return "the first picture cannot be decoded"
    if (picture.width, picture.height) != (packets.width, packets.height):
        return f"frames are {picture.width}x{picture.height}, not {packets.width}x{packets.height} as in the header"
    if picture.bits > 8:
        return f"{picture.bits} bits per colour"
    if any(picture.orientation):
        return "frames are turned or mirrored for display"
    return ""


def count_frames(packets: PacketTable) -> int | None:
    """Return the number of frames that decoding from the start gives; None if the packets do not determine it."""
    known = (
        packets.codec in _COUNTED_BY_PACKETS
        and packets.stores_times
        and packets.has_distinct_times
        and bool(packets.random_access[0])
        and not packets.starts_with_leading_pictures
        and not packets.damaged
    )
    return int(packets.shown.sum()) if known else None
