"""Exact frames out of video files: (path, indices) -> uint8 frames.

decord reads them (its `get_batch` seeks to the key frame before each index and decodes on from there) where it is
exact; PyAV reads the others. The packets of the file settle that before decord sees it (probing.py). Imports no torch.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dnl_video.config import Decoder
from dnl_video.data.av_reader import CHUNK, AVReader, Frames, drops_exactly
from dnl_video.data.crash_record import note_reading
from dnl_video.data.decode_error import VideoDecodeError, one_line
from dnl_video.data.frame_folders import FrameFolderReader
from dnl_video.data.probing import check_is_file, probe_with_packets

__all__ = ["CHUNK", "Frames", "Video", "VideoDecodeError", "open_video"]


class _Reader(Protocol):
    """What a decoding library does for `Video`."""

    num_frames: int
    fps: float

    def chunks(self, indices: Sequence[int]) -> Iterator[Frames]:
        """Yield the frames at sorted, distinct indices, at most `CHUNK` at a time, [n, H, W, 3] RGB."""
        ...

    def close(self) -> None:
        """Free the file and the decoder."""
        ...


class Video:
    """An open video; use it as a context manager.

    Args:
        path: The file.
        reader: What decodes it.
    """

    def __init__(self, path: str, reader: _Reader) -> None:
        self.path = path
        self.num_frames = reader.num_frames
        self.fps = reader.fps
        self._reader: _Reader | None = reader
        self._size: tuple[int, int] | None = None

    @property
    def height(self) -> int:
        """Height in pixels, after rotation (decodes a frame if none was read yet)."""
        return self._frame_size()[0]

    @property
    def width(self) -> int:
        """Width in pixels, after rotation (decodes a frame if none was read yet)."""
        return self._frame_size()[1]

    def read(
        self, indices: Sequence[int] | npt.NDArray[Any], *, resize: Callable[[Frames], Frames] | None = None
    ) -> Frames:
        """Return frames in the order asked; each distinct one is decoded once.

        Args:
            indices: Frame indices in [0, num_frames); any order, repeats allowed.
            resize: Applied to each chunk [n, H, W, 3] of at most 32 frames as it is decoded, so that a long read of a
                large video never exists at full size.

        Returns:
            uint8 [len(indices), H, W, 3], RGB.

        Raises:
            VideoDecodeError: The frames cannot be decoded.
            ValueError: No index, one out of range, or the video is closed.
        """
        wanted = self._checked(indices)
        distinct, inverse = np.unique(wanted, return_inverse=True)
        assert self._reader is not None
        parts = list(self._whole(self._reader.chunks(distinct.tolist()), len(distinct), resize))
        frames = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return frames if np.array_equal(inverse, np.arange(len(distinct))) else frames[inverse]

    def stream(
        self,
        indices: Sequence[int] | npt.NDArray[Any],
        *,
        resize: Callable[[Frames], Frames] | None = None,
        threads: int = 1,
    ) -> Iterator[Frames]:
        """Yield frames in rising order, at most 32 at a time: a video of any length in constant memory.

        PyAV reads whatever the decoder of `read` is: decord's runs ahead of a slow reader without limit, 5 GB for a
        minute of 1080p.

        Args:
            indices: Distinct frame indices in [0, num_frames), rising.
            resize: Applied to each chunk, as in `read`.
            threads: Decoding threads.

        Yields:
            uint8 [n, H, W, 3], RGB; the chunks together hold one frame per index.

        Raises:
            VideoDecodeError: The frames cannot be decoded.
            ValueError: No index, one out of range or order, or the video is closed.
        """
        wanted = self._checked(indices)
        if (np.diff(wanted) <= 0).any():
            raise ValueError(f"indices of {self.path} do not rise; give each frame once, in order")
        probe, packets = probe_with_packets(self.path)
        reader = AVReader(self.path, packets, probe.frames, threads=threads)
        yield from self._whole(reader.chunks(wanted.tolist()), len(wanted), resize)

    def close(self) -> None:
        """Free the file and the decoder; may be called twice."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            note_reading("")

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self, indices: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        if self._reader is None:
            raise ValueError(f"{self.path} is closed; read inside the `with` block")
        wanted = np.asarray(indices)
        whole = wanted.dtype.kind in "iu" and wanted.size > 0 and wanted.ndim == 1
        if not whole or wanted.min() < 0 or wanted.max() >= self.num_frames:
            raise ValueError(
                f"indices {wanted.tolist()} of {self.path}; give a list of indices in [0, {self.num_frames})"
            )
        return wanted

    def _whole(
        self, chunks: Iterator[Frames], expected: int, resize: Callable[[Frames], Frames] | None
    ) -> Iterator[Frames]:
        """Yield the chunks, resized, after checking what the library gave."""
        count = 0
        while (chunk := self._guarded(lambda: next(chunks, None))) is not None:
            if chunk.ndim != 4 or chunk.shape[-1] != 3 or chunk.dtype != np.uint8:
                raise VideoDecodeError(self.path, f"frames are {chunk.dtype} {list(chunk.shape)}, not uint8 RGB")
            self._size = self._size or (chunk.shape[1], chunk.shape[2])
            if self._size != chunk.shape[1:3]:
                raise VideoDecodeError(self.path, f"the frame size changes from {self._size} to {chunk.shape[1:3]}")
            count += len(chunk)
            yield chunk if resize is None else resize(chunk)
        if count != expected:
            raise VideoDecodeError(self.path, f"{count} of {expected} frames could be decoded")

    def _frame_size(self) -> tuple[int, int]:
        if self._size is None:
            self.read([0])
        assert self._size is not None
        return self._size

    def _guarded(self, step: Callable[[], Frames | None]) -> Frames | None:
        # Both libraries raise exceptions of many kinds on a broken file (DECORDError, MemoryError from a made-up frame
        # size, av.error.*); all mean that this file cannot be read.
        try:
            return step()
        except Exception as error:
            raise VideoDecodeError(self.path, f"cannot be decoded ({one_line(error)})") from None


def open_video(
    path: str | os.PathLike[str],
    *,
    decoder: Decoder = "decord",
    known: str | None = None,
    frames_fps: float | None = None,
) -> Video:
    """Open a video for exact reading: a file, or a folder of extracted frames.

    Args:
        path: The file or folder.
        decoder: What reads it. `decord`: decord where it is exact (see `probe_video`), else PyAV; `av`: PyAV;
            `auto`: the faster of those that are exact.
        known: `decord` or `av`, where an earlier probe of this file found that; saves looking again.
        frames_fps: Frames a second of a folder of frames; None is 30. A file says its own.

    Raises:
        VideoDecodeError: The file is missing, empty, no video, or has no frames.
    """
    if Path(path).is_dir():
        return _open_frames(os.fspath(path), frames_fps)
    name = check_is_file(path)
    note_reading(name)
    try:
        reader = _open_reader(name, decoder, known)
    except VideoDecodeError:
        raise
    except Exception as error:  # see Video._guarded
        raise VideoDecodeError(name, f"cannot be opened ({one_line(error)})") from None
    if reader.num_frames < 1 or not (math.isfinite(reader.fps) and reader.fps > 0):
        reader.close()
        raise VideoDecodeError(name, f"{reader.num_frames} frames at {reader.fps:g} frames a second")
    return Video(name, reader)


def _open_frames(folder: str, fps: float | None) -> Video:
    try:
        return Video(folder, FrameFolderReader(folder, fps))
    except (OSError, ValueError) as error:
        raise VideoDecodeError(folder, one_line(error)) from None


def _open_reader(name: str, decoder: Decoder, known: str | None) -> _Reader:
    if decoder == "decord" and known == "decord":
        reader = _DecordReader(name)
        if reader.has_exact_timestamps():
            return reader
        reader.close()
    probe, packets = probe_with_packets(name)
    by_decord = probe.exact and (decoder == "decord" or (decoder == "auto" and not drops_exactly(packets)))
    if by_decord:
        reader = _DecordReader(name)
        if reader.num_frames == probe.frames:
            return reader
        reader.close()
    return AVReader(name, packets, probe.frames)


@functools.cache
def _decord() -> ModuleType:
    import decord

    # FFmpeg prints a line for every broken packet, without the file's name; VideoDecodeError says it with the name.
    decord.logging.set_level(decord.logging.QUIET)
    return decord


class _DecordReader:
    """Reads with decord, one decoding thread: loaders bring their own processes."""

    def __init__(self, path: str) -> None:
        self._reader: Any = _decord().VideoReader(path, num_threads=1)
        self.num_frames = len(self._reader)
        self.fps = float(self._reader.get_avg_fps())

    def has_exact_timestamps(self) -> bool:
        """Tell whether frame times are finite, not negative and rising: where not, decord returns wrong frames."""
        starts = np.asarray(self._reader.get_frame_timestamp(range(self.num_frames)))[:, 0]
        return bool(np.isfinite(starts).all() and (starts >= 0).all() and (np.diff(starts) > 0).all())

    def chunks(self, indices: Sequence[int]) -> Iterator[Frames]:
        for first in range(0, len(indices), CHUNK):
            yield self._reader.get_batch(indices[first : first + CHUNK]).asnumpy()

    def close(self) -> None:
        self._reader = None  # the library frees the decoder with its last reference
