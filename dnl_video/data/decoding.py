"""Exact frames of a video: (path, indices) -> uint8 frames. Imports no torch.

decord reads the files for which it is exact (its `get_batch` seeks to the key frame before each index and decodes from
there); PyAV reads the others. The packets decide this before decord opens the file (probing.py).
"""

from __future__ import annotations

import functools
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from dnl_video.config import Decoder
from dnl_video.data.crash_record import record_reading
from dnl_video.data.file_kind import cut_off
from dnl_video.data.frame_folders import FrameFolderReader
from dnl_video.data.packets import PacketTable
from dnl_video.data.probing import VideoDecodeError, one_line, probe_video, stat_video
from dnl_video.data.readers import AVReader, DecordReader, Frames, MemoryReader, Reader, can_skip_pictures
from dnl_video.data.sampling import Clock, has_variable_rate
from dnl_video.spec import Preprocessing

__all__ = ["Frames", "Video", "VideoDecodeError", "open_video"]


class Video:
    """An open video; use it as a context manager.

    Args:
        path: The file.
        reader: Decodes it.
    """

    def __init__(self, path: str, reader: Reader) -> None:
        self.path = path
        self.num_frames = reader.num_frames
        self.fps = reader.fps
        self._reader: Reader | None = reader
        self._size: tuple[int, int] | None = None

    @functools.cached_property
    def times_s(self) -> npt.NDArray[np.float64]:
        """Start of each frame in seconds from the first, and the end of the last, [num_frames + 1].

        Frame i is shown in [times_s[i], times_s[i + 1]). The times are those of the file; frames of a folder, or
        without times in order (.avi with B-frames), have a constant rate. Containers do not agree on the length of the
        last frame; it is as long as the one before.
        """
        assert self._reader is not None
        starts = self._reader.starts_s()
        last = starts[-1] - starts[-2] if len(starts) > 1 else 1 / self.fps
        return np.append(starts, starts[-1] + last) - starts[0]

    @property
    def has_variable_rate(self) -> bool:
        """Whether the times of the frames depart from a constant rate (see `sampling.has_variable_rate`)."""
        return has_variable_rate(self.times_s, self.fps)

    def clock(self, preprocessing: Preprocessing) -> Clock | None:
        """Return the times of the frames if the sampling rule needs them."""
        if preprocessing.sampling == "pyslowfast" and isinstance(self._reader, MemoryReader):  # as in their .mp4 file
            rate = Fraction(self.fps).limit_denominator(1001)
            ticks = np.arange(self.num_frames, dtype=np.int64) * 512 * rate.denominator
            time_base, length_s = Fraction(1, 512 * rate.numerator), float(self.num_frames / rate)
            return Clock(self.times_s, ticks, time_base, length_s, float(rate))
        if preprocessing.sampling == "pyslowfast" and not isinstance(self._reader, FrameFolderReader):
            packets = probe_video(self.path).packets
            pts = self._reader.pts if isinstance(self._reader, AVReader) else packets.shown_pts
            if pts is not None and packets.guessed_fps > 0:
                length_s = packets.header_ticks * float(packets.time_base)
                return Clock(self.times_s, pts, packets.time_base, length_s, packets.guessed_fps)
        return None if preprocessing.target_fps is None else Clock(self.times_s)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, after rotation; decodes a frame if none was read yet."""
        if self._size is None:
            self.read([0])
        assert self._size is not None
        return self._size

    def read(
        self, indices: Sequence[int] | npt.NDArray[Any], *, resize: Callable[[Frames], Frames] | None = None
    ) -> Frames:
        """Return frames in the given order; each distinct frame is decoded once.

        Args:
            indices: Frame indices in [0, num_frames), in any order, repeats allowed.
            resize: Applied to each decoded chunk [n, H, W, 3] of at most 32 frames, so that a long read of a large
                video is never held at full size.

        Returns:
            uint8 [len(indices), H, W, 3], RGB.

        Raises:
            VideoDecodeError: The frames cannot be decoded.
            ValueError: `indices` is empty or out of range, or the video is closed.
        """
        wanted = self._checked(indices)
        distinct, inverse = np.unique(wanted, return_inverse=True)
        assert self._reader is not None
        parts = list(self._checked_chunks(self._reader.chunks(distinct.tolist()), len(distinct), resize))
        frames = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return frames if np.array_equal(inverse, np.arange(len(distinct))) else frames[inverse]

    def stream(
        self,
        indices: Sequence[int] | npt.NDArray[Any],
        *,
        resize: Callable[[Frames], Frames] | None = None,
        threads: int = 1,
    ) -> Iterator[Frames]:
        """Yield frames in increasing order, at most 32 at a time: a video of any length in constant memory.

        PyAV reads, whichever decoder `read` uses: decord decodes ahead of a slow consumer without limit, 5 GB for a
        minute of 1080p.

        Args:
            indices: Distinct frame indices in [0, num_frames), in increasing order.
            resize: As in `read`.
            threads: Decoding threads.

        Yields:
            uint8 [n, H, W, 3], RGB; together one frame per index.

        Raises:
            VideoDecodeError, ValueError: As `read`; also if the indices are not in increasing order.
        """
        wanted = self._checked(indices)
        if (np.diff(wanted) <= 0).any():
            raise ValueError(f"indices of {self.path} are not in increasing order; give each frame once")
        probe = probe_video(self.path)
        reader = AVReader(self.path, probe.packets, probe.frames, threads=threads)
        yield from self._checked_chunks(reader.chunks(wanted.tolist()), len(wanted), resize)

    def close(self) -> None:
        """Free the file and the decoder; may be called twice."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            record_reading("")

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(self, indices: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        if self._reader is None:
            raise ValueError(f"{self.path} is closed; read inside the `with` block")
        wanted = np.asarray(indices)
        integers = wanted.dtype.kind in "iu" and wanted.size > 0 and wanted.ndim == 1
        if not integers or wanted.min() < 0 or wanted.max() >= self.num_frames:
            raise ValueError(
                f"indices {wanted.tolist()} of {self.path}; give a list of indices in [0, {self.num_frames})"
            )
        return wanted

    def _checked_chunks(
        self, chunks: Iterator[Frames], expected: int, resize: Callable[[Frames], Frames] | None
    ) -> Iterator[Frames]:
        """Check the chunks that the library returns and resize them."""
        count = 0
        while True:
            try:
                chunk = next(chunks, None)
            except Exception as error:  # on a broken file: DECORDError, av.error.*, MemoryError from a wrong frame size
                why = cut_off(self.path) or one_line(error)
                raise VideoDecodeError(self.path, f"cannot be decoded ({why})") from None
            if chunk is None:
                break
            if chunk.ndim != 4 or chunk.shape[-1] != 3 or chunk.dtype != np.uint8:
                raise VideoDecodeError(self.path, f"frames are {chunk.dtype} {list(chunk.shape)}, not uint8 RGB")
            self._size = self._size or (chunk.shape[1], chunk.shape[2])
            if self._size != chunk.shape[1:3]:
                raise VideoDecodeError(self.path, f"the frame size changes from {self._size} to {chunk.shape[1:3]}")
            count += len(chunk)
            yield chunk if resize is None else resize(chunk)
        if count != expected:
            raise VideoDecodeError(self.path, f"{count} of {expected} frames could be decoded")


def open_video(
    path: str | os.PathLike[str],
    *,
    decoder: Decoder = "decord",
    known: str | None = None,
    recorded: tuple[int, int, int] | None = None,
    frames_fps: float | None = None,
) -> Video:
    """Open a video for exact reading: a file or a folder of extracted frames.

    Args:
        path: The file or folder.
        decoder: `decord`: decord if it is exact (see `probe_video`), else PyAV; `av`: PyAV; `auto`: the faster of those
            that are exact.
        known: `decord` or `av`, from an earlier probe of this file; `decord` makes a new probe unnecessary.
        recorded: (frames, height, width) from that probe. If the file has others now, it is probed.
        frames_fps: Frames per second of a folder of frames; None is 30.

    Raises:
        VideoDecodeError: The file is missing, empty, no video, or has no frames.
    """
    name = os.fspath(path)
    if stat.S_ISDIR(stat_video(name).st_mode):
        try:
            return Video(name, FrameFolderReader(name, frames_fps))
        except (OSError, ValueError) as error:
            raise VideoDecodeError(name, one_line(error)) from None
    record_reading(name)
    try:
        reader = _open_reader(name, decoder, known, recorded)
    except VideoDecodeError:
        raise
    except Exception as error:  # of many types, as above
        raise VideoDecodeError(name, f"cannot be opened ({cut_off(name) or one_line(error)})") from None
    if reader.num_frames < 1 or not (math.isfinite(reader.fps) and reader.fps > 0):
        reader.close()
        raise VideoDecodeError(name, f"{reader.num_frames} frames at {reader.fps:g} frames per second")
    return Video(name, reader)


def _open_reader(name: str, decoder: Decoder, known: str | None, recorded: tuple[int, int, int] | None) -> Reader:
    if decoder == "decord" and known == "decord":
        num_frames, size = (recorded[0], recorded[1:]) if recorded else (None, None)
        reader = _open_decord(name, size=size, instead=functools.partial(_probed_reader, name, decoder))
        if reader and num_frames in (None, reader.num_frames) and reader.has_exact_timestamps():
            return reader
    return _probed_reader(name, decoder)


def _probed_reader(name: str, decoder: Decoder) -> Reader:
    probe = probe_video(name)
    wanted = decoder == "decord" or (decoder == "auto" and not can_skip_pictures(probe.packets))
    if wanted and probe.exact:
        reader = _open_decord(name, probe.packets)
        if reader and reader.num_frames == probe.frames:
            return reader
    return AVReader(name, probe.packets, probe.frames)


def _open_decord(name: str, packets: PacketTable | None = None, **checks: Any) -> DecordReader | None:
    try:
        return DecordReader(name, packets, **checks)
    except Exception:  # DECORDError; PyAV tells why, or reads the file
        return None
