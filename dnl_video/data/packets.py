"""The packets of a video file, read in one pass without decoding.

They give the times of the pictures, the key frames, and which of these are random access points, from which every later
picture decodes exactly as from the start of the file. NAL unit types and recovery points: ITU-T H.264 (7.4.1, D.2.8)
and H.265 (7.4.2.2). Frame tag of VP8: RFC 6386 (9.1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from dnl_video.data.file_kind import why_not_opened
from dnl_video.data.h264_header import may_have_fields, recovers_at_once

NO_TIME = np.iinfo(np.int64).min
"""Presentation time of a packet that has none."""

_KEY_FRAMES_ARE_RANDOM_ACCESS = {"vp8", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "prores"}
_CONTAINERS_WITH_TIMES = {"mov", "matroska", "flv", "mpegts"}
_PICTURE_CODECS = {"mjpeg", "png", "bmp", "tiff", "webp", "gif"}
_ONLY_A_PICTURE = ", only a cover picture"
# Bits of AVStream.disposition (libavformat/avformat.h).
_DEFAULT, _ATTACHED_PICTURE = 1 << 0, 1 << 10


class NoVideoError(Exception):
    """A file holds no video; the message says what it holds, in one line."""


@dataclass(frozen=True)
class PacketTable:
    """The packets of a file's video stream, in decoding order.

    Args:
        container: FFmpeg's name of the container format.
        stream: Index of the stream in the container (see `choose_stream`).
        video_streams: Number of video streams, cover pictures included.
        codec: FFmpeg's name of the codec.
        width: Stored width in pixels, before rotation.
        height: Stored height in pixels, before rotation.
        fps: Mean frames per second; 0 if unknown.
        duration_s: Length in seconds; 0 if unknown.
        declared_frames: Number of frames in the header, or length times rate if that is larger.
        guessed_fps: FFmpeg's guess of the base frame rate (av_guess_frame_rate); 0 if unknown.
        header_ticks: Length of the stream in the header, in ticks; 0 if unknown.
        time_base: Seconds per tick.
        pts: Presentation times in ticks, `NO_TIME` if missing, [P].
        shown: Whether the picture is shown: not cut off by an edit list, not an invisible reference, [P].
        key: Whether the container marks the packet as a key frame, [P].
        random_access: Key frames from which all pictures shown at or after them decode exactly, [P].
        damaged: Number of packets that the demuxer found damaged.
        may_have_fields: Whether an H.264 header allows pictures of two fields, in the whole file or a part of it.
        size_changes: Whether the frame size may change within the stream.
    """

    container: str
    stream: int
    video_streams: int
    codec: str
    width: int
    height: int
    fps: float
    duration_s: float
    declared_frames: float
    guessed_fps: float
    header_ticks: int
    time_base: Fraction
    pts: npt.NDArray[np.int64]
    shown: npt.NDArray[np.bool_]
    key: npt.NDArray[np.bool_]
    random_access: npt.NDArray[np.bool_]
    damaged: int
    may_have_fields: bool
    size_changes: bool

    @property
    def stores_times(self) -> bool:
        """Whether the container stores presentation times. For others (.avi, .wmv, .mpg) FFmpeg guesses them."""
        return bool(set(self.container.split(",")) & _CONTAINERS_WITH_TIMES)

    @property
    def has_distinct_times(self) -> bool:
        """Whether every packet has a time and no two share one."""
        return bool((self.pts != NO_TIME).all()) and len(np.unique(self.pts)) == len(self.pts)

    @property
    def shown_pts(self) -> npt.NDArray[np.int64]:
        """Presentation times of the shown pictures in their order, [n]."""
        return np.sort(self.pts[self.shown])

    def seconds(self, pts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Convert presentation times to seconds."""
        return pts * self.time_base.numerator / self.time_base.denominator

    @property
    def has_leading_pictures(self) -> bool:
        """Whether pictures follow a key frame in the file but are shown before it (an open group of pictures)."""
        keys = np.flatnonzero(self.key)
        if not len(keys):
            return False
        since = np.maximum.accumulate(np.where(self.key, np.arange(len(self.pts)), 0))
        return bool((self.pts < self.pts[since])[keys[0] :].any())

    @property
    def starts_with_leading_pictures(self) -> bool:
        """Whether pictures are shown before the first packet: decoders drop them or show them broken."""
        return bool((self.pts < self.pts[0]).any())


def absolute(path: str) -> str:
    """Return an absolute path: FFmpeg takes the relative one `12:30.mp4` for a URL."""
    return os.path.abspath(path)  # noqa: PTH100 - a string, as FFmpeg's libraries take it


def open_container(path: str, *, probe_decoder: bool = False, header_only: bool = False) -> Any:
    """Open a file with PyAV.

    Args:
        path: The file.
        probe_decoder: Let FFmpeg decode the first pictures while it opens. This takes most of the time of opening
            (17 of 17.5 ms at 720p). It is needed only if the stream does not tell how far pictures are reordered.
        header_only: Let FFmpeg read only the header of .mp4 and .mkv files; then it does not know the mean rate of all.
    """
    options = {} if probe_decoder else {"skip_frame": "all"}
    return av.open(absolute(path), options=options | ({"probesize": "5000"} if header_only else {}))


def choose_stream(container: Any) -> Any:
    """Return the video stream to read: the default one, else the best by FFmpeg's rule (av_find_best_stream).

    Pictures are no video: attached covers and thumbnails, and tracks of one picture beside a video.

    Raises:
        NoVideoError: There is no such stream.
    """
    videos = [s for s in container.streams.video if not s.disposition.value & _ATTACHED_PICTURE]
    if not videos:
        raise NoVideoError(f"no video stream{_ONLY_A_PICTURE if container.streams.video else ''}")
    known = [stream for stream in videos if stream.codec_context is not None]
    if not known:
        raise NoVideoError("no video stream of a codec that FFmpeg decodes")
    best = container.streams.best("video")

    def rank(stream: Any) -> tuple[bool, bool, bool]:
        # Matroska does not tell the number of frames: 0.
        picture = stream.codec_context.name in _PICTURE_CODECS and stream.frames <= 1
        default = bool(stream.disposition.value & _DEFAULT)
        return picture, not default, stream is not best

    return min(known, key=rank)


def read_packets(path: str) -> PacketTable:
    """Read the packets of a file's video stream.

    Raises:
        av.error.FFmpegError, OSError: The file cannot be opened.
        NoVideoError: It is no video, or has no video stream or no packet.
    """
    reason = why_not_opened(path)
    if reason:
        raise NoVideoError(reason)
    with open_container(path) as container:
        if container.format.name.endswith("_pipe"):  # jpeg_pipe, png_pipe, ...
            raise NoVideoError(f"not a video: an image ({container.format.name.removesuffix('_pipe')})")
        stream = choose_stream(container)
        codec = str(stream.codec_context.name)
        codec = {"libdav1d": "av1", "libaom-av1": "av1"}.get(codec, codec)
        header = bytes(stream.codec_context.extradata or b"")
        length_size = _length_size(codec, header)
        pts: list[int] = []
        shown: list[bool] = []
        key: list[bool] = []
        random_access: list[bool] = []
        damaged = 0
        size_codes: set[bytes] = set()
        for packet in container.demux(stream):
            if not packet.size:  # the end
                continue
            pts.append(NO_TIME if packet.pts is None else packet.pts)
            key.append(packet.is_keyframe)
            random_access.append(packet.is_keyframe and _is_random_access(packet, codec, length_size))
            shown.append(not packet.is_discard and (codec != "vp8" or bool(memoryview(packet)[0] >> 4 & 1)))
            damaged += packet.is_corrupt
            if packet.is_keyframe:
                if packet.has_sidedata("encryption_info"):
                    raise NoVideoError("the video is encrypted")
                size_codes.add(_size_code(packet, codec, header, length_size))
        if not pts:
            raise NoVideoError("the video stream is empty")
        if codec in _PICTURE_CODECS and len(pts) == 1:
            raise NoVideoError(f"no video stream{_ONLY_A_PICTURE}")
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        duration_s = _duration_s(container, stream)
        return PacketTable(
            container=container.format.name,
            stream=stream.index,
            video_streams=len(container.streams.video),
            codec=codec,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            fps=fps,
            duration_s=duration_s,
            declared_frames=max(stream.frames, duration_s * fps),
            guessed_fps=float(stream.guessed_rate or 0),
            # Matroska stores no length of a stream, but FFmpeg fills it in if it opens the file without a decoder.
            header_ticks=0 if "matroska" in container.format.name else stream.duration or 0,
            time_base=Fraction(stream.time_base.numerator, stream.time_base.denominator),
            pts=np.array(pts, np.int64),
            shown=np.array(shown),
            key=np.array(key),
            random_access=np.array(random_access),
            damaged=damaged,
            may_have_fields=codec == "h264" and may_have_fields(header),
            size_changes=len(size_codes) > 1,
        )


def _duration_s(container: Any, stream: Any) -> float:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _length_size(codec: str, header: bytes) -> int:
    """Return the bytes of the length before each NAL unit (ISO/IEC 14496-15); 0 if start codes separate them."""
    place = {"h264": 4, "hevc": 21}.get(codec)
    if place is None or len(header) <= place or header[0] != 1:
        return 0
    return (header[place] & 3) + 1


def _is_random_access(packet: Any, codec: str, length_size: int) -> bool:
    if codec in _KEY_FRAMES_ARE_RANDOM_ACCESS:
        return True
    if codec not in ("h264", "hevc"):
        return False
    for unit in _nal_units(memoryview(packet), length_size):
        if codec == "hevc":
            kind = unit[0] >> 1 & 63
            if kind < 32:  # a slice
                return 16 <= kind <= 23
        else:
            kind = unit[0] & 31
            if kind in (1, 5):
                return kind == 5
            if kind == 6 and recovers_at_once(bytes(unit[1:512])):
                return True
    return False


def _size_code(packet: Any, codec: str, header: bytes, length_size: int) -> bytes:
    """Return bytes of a key frame that differ where the frame size does.

    H.264: a sequence parameter set that is not that of the header. VP8 and VP9: the size (RFC 6386, 9.1; VP9
    bitstream specification, 6.2.2).
    """
    data = memoryview(packet)
    if codec == "h264":
        if packet.has_sidedata("new_extradata"):
            return b"another header"
        units = (bytes(unit) for unit in _nal_units(data, length_size) if unit[0] & 31 == 7)
        sets = (unit.partition(b"\0\0\1")[0].rstrip(b"\0") for unit in units)
        return b"".join(unit for unit in sets if unit not in header)
    if codec == "vp8":
        return bytes(data[6:10])
    return (int.from_bytes(data[4:9], "big") >> 4).to_bytes(5, "big") if codec == "vp9" else b""


def _nal_units(data: memoryview, length_size: int) -> Iterator[memoryview]:
    """Yield the NAL units. With start codes, each one runs to the end of the data, past the following units."""
    place = 0
    if length_size:
        while place + length_size < len(data):
            size = int.from_bytes(data[place : place + length_size], "big")
            yield data[place + length_size : place + length_size + max(size, 1)]
            place += length_size + size
        return
    content = bytes(data)
    while 0 <= (place := content.find(b"\0\0\1", place)) < len(content) - 3:
        place += 3
        yield data[place:]
