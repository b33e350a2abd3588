"""Exact frames out of video files: (path, indices) -> uint8 frames.

decord reads them (its `get_batch` seeks to the key frame before each index and decodes on from there). Files whose
timestamps decord gets wrong are decoded from the start by PyAV instead: slower, and exact. Imports no torch.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dnl_video.data.frame_folders import FrameFolderReader

Frames = npt.NDArray[np.uint8]
CHUNK = 32
"""Frames decoded at once: the whole union of a 1080p video's views would take 1.9 GB."""


class VideoDecodeError(Exception):
    """A video that cannot be read.

    Args:
        path: The file.
        reason: Why, in one line.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        # DataLoader rebuilds a worker's exception as `type(error)("Caught … Original Traceback …")`; the person wants
        # the message, which is its last line.
        if not reason and "\nOriginal Traceback" in path:
            path = path.strip().splitlines()[-1].partition("VideoDecodeError: ")[2] or path
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


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
        if self._reader is None:
            raise ValueError(f"{self.path} is closed; read inside the `with` block")
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size == 0 or wanted.ndim != 1 or wanted.min() < 0 or wanted.max() >= self.num_frames:
            raise ValueError(
                f"indices {wanted.tolist()} of {self.path}; give a list of indices in [0, {self.num_frames})"
            )
        distinct, inverse = np.unique(wanted, return_inverse=True)
        parts: list[Frames] = []
        chunks = self._reader.chunks(distinct.tolist())
        while (chunk := self._guarded(lambda: next(chunks, None))) is not None:
            if chunk.ndim != 4 or chunk.shape[-1] != 3 or chunk.dtype != np.uint8:
                raise VideoDecodeError(self.path, f"frames are {chunk.dtype} {list(chunk.shape)}, not uint8 RGB")
            self._size = self._size or (chunk.shape[1], chunk.shape[2])
            if self._size != chunk.shape[1:3]:
                raise VideoDecodeError(self.path, f"the frame size changes from {self._size} to {chunk.shape[1:3]}")
            parts.append(chunk if resize is None else resize(chunk))
        count = sum(len(part) for part in parts)
        if count != len(distinct):
            raise VideoDecodeError(self.path, f"{count} of {len(distinct)} frames could be decoded")
        frames = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return frames if np.array_equal(inverse, np.arange(len(distinct))) else frames[inverse]

    def close(self) -> None:
        """Free the file and the decoder; may be called twice."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
            raise VideoDecodeError(self.path, f"cannot be decoded ({_one_line(error)})") from None


def open_video(path: str | os.PathLike[str], *, frames_fps: float | None = None) -> Video:
    """Open a video for exact reading: a file, or a folder of extracted frames.

    Args:
        path: The file or folder.
        frames_fps: Frames a second of a folder of frames; None is 30. A file says its own.

    Raises:
        VideoDecodeError: The file is missing, empty, no video, or has no frames.
    """
    name = os.fspath(path)
    file = Path(name)
    if not file.exists():
        raise VideoDecodeError(name, "file not found")
    if file.is_dir():
        return _open_frames(name, frames_fps)
    if file.stat().st_size == 0:
        raise VideoDecodeError(name, "file is empty")
    try:
        decord_reader = _DecordReader(name)
        reader: _Reader = decord_reader
        if not decord_reader.has_exact_timestamps():
            decord_reader.close()
            reader = _PyAVReader(name)
    except Exception as error:  # see Video._guarded
        raise VideoDecodeError(name, f"cannot be opened ({_one_line(error)})") from None
    if reader.num_frames < 1 or not (math.isfinite(reader.fps) and reader.fps > 0):
        reader.close()
        raise VideoDecodeError(name, f"{reader.num_frames} frames at {reader.fps:g} frames a second")
    return Video(name, reader)


def _open_frames(folder: str, fps: float | None) -> Video:
    try:
        return Video(folder, FrameFolderReader(folder, fps))
    except (OSError, ValueError) as error:
        raise VideoDecodeError(folder, _one_line(error)) from None


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


class _PyAVReader:
    """Decodes from the start in presentation order, and keeps what is wanted."""

    def __init__(self, path: str) -> None:
        self._path = path
        with self._open() as container:
            stream = container.streams.video[0]
            self.fps = float(stream.average_rate or stream.guessed_rate or 0)
            # Containers' own counts are wrong in just these files, so count what comes out.
            self.num_frames = sum(1 for _ in container.decode(stream))

    def chunks(self, indices: Sequence[int]) -> Iterator[Frames]:
        wanted = set(indices)
        chunk: list[Frames] = []
        with self._open() as container:
            for index, frame in enumerate(container.decode(container.streams.video[0])):
                if index not in wanted:
                    continue
                # Phones store portrait video as a turned landscape one; decord turns it, PyAV (from 13) says how far.
                turns = round(getattr(frame, "rotation", 0) / 90)
                chunk.append(np.rot90(frame.to_ndarray(format="rgb24"), turns))
                if len(chunk) == CHUNK or index == indices[-1]:
                    yield np.stack(chunk)
                    chunk = []
                if index == indices[-1]:
                    return

    def close(self) -> None:
        """Nothing stays open between reads."""

    def _open(self) -> Any:
        import av

        return av.open(self._path)


def _one_line(error: Exception) -> str:
    """Return an error's text without decord's clock times and source lines, so that the same fault reads the same."""
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ", "", str(error)) or type(error).__name__
    return " ".join(text.split())[:300]
