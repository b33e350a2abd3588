"""Exact frame readers: decord and PyAV. Imports no torch.

The PyAV reader decodes from the random access point before each wanted frame and matches frames by presentation time.
It reads the packets once from the start (or seeks, and recognises the packet it lands on by its time), and decodes only
those that a wanted frame may depend on. Each H.264 picture tells whether others refer to it (nal_ref_idc, 7.4.1);
unwanted pictures to which none refers are skipped, with bit-identical results. If a wanted frame is still missing, the
file is decoded from the start.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from dnl_video.data.packets import PacketTable, absolute, open_container
from dnl_video.data.pictures import upright_rgb

Frames = npt.NDArray[np.uint8]
CHUNK = 32
"""Frames decoded at once. All frames of a 1080p video's views together would take 1.9 GB."""
_SEEK_GAP = 300
"""Number of unneeded packets from which a seek is faster than reading them."""


class Reader:
    """Base class: an open video."""

    num_frames: int
    fps: float

    def starts_s(self) -> npt.NDArray[np.float64]:
        """Return the start of each frame in seconds; by default the frame rate is constant."""
        return np.arange(self.num_frames) / self.fps

    def chunks(self, indices: Sequence[int]) -> Iterator[Frames]:
        """Yield the frames at sorted, distinct indices, uint8 [n, H, W, 3] RGB with n <= `CHUNK`."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the file and the decoder; by default nothing stays open between reads."""


class MemoryReader(Reader):
    """Reads frames uint8 [n, H, W, 3] in memory, shown at a constant rate."""

    def __init__(self, frames: Frames, fps: float) -> None:
        self._frames, self.num_frames, self.fps = frames, len(frames), fps

    def chunks(self, indices: Sequence[int]) -> Iterator[Frames]:
        """See `Reader.chunks`."""
        return stacked(self._frames[index] for index in indices)


@functools.cache
def _decord() -> ModuleType:
    import decord

    # FFmpeg prints a line without a file name for every broken packet; VideoDecodeError names the file.
    decord.logging.set_level(decord.logging.QUIET)
    return decord


class DecordReader(Reader):
    """Reads with decord in one thread: loaders use several processes.

    Args:
        path: The file.
        packets: Its packets, if they were read.
        size: (height, width) that frames must have; None accepts any.
        instead: Opens another reader, which is used if frames have another size.
    """

    def __init__(
        self,
        path: str,
        packets: PacketTable | None = None,
        *,
        size: tuple[int, int] | None = None,
        instead: Callable[[], Reader] | None = None,
    ) -> None:
        self._reader: Any = _decord().VideoReader(absolute(path), num_threads=1)
        self._packets = packets
        self._size = size
        self._instead = instead
        self.num_frames = len(self._reader)
        self.fps = float(self._reader.get_avg_fps())

    def starts_s(self) -> npt.NDArray[np.float64]:
        """See `Reader.starts_s`; without the packets, decord tells the times (as float32)."""
        if self._packets is not None:
            return self._packets.seconds(self._packets.shown_pts)
        return np.asarray(self._reader.get_frame_timestamp(range(self.num_frames)), np.float64)[:, 0]

    def has_exact_timestamps(self) -> bool:
        """Return whether frame times are finite, >= 0 and rising; if not, decord returns wrong frames."""
        starts = np.asarray(self._reader.get_frame_timestamp(range(self.num_frames)))[:, 0]
        return bool(np.isfinite(starts).all() and (starts >= 0).all() and (np.diff(starts) > 0).all())

    def chunks(self, indices: Sequence[int]) -> Iterator[Frames]:
        """See `Reader.chunks`."""
        for first in range(0, len(indices), CHUNK):
            frames = self._reader.get_batch(indices[first : first + CHUNK]).asnumpy()
            if self._instead is not None and self._size not in (None, frames.shape[1:3]):
                yield from self._instead().chunks(indices)
                return
            yield frames

    def close(self) -> None:
        """Free the file and the decoder."""
        self._reader = None  # decord frees the decoder with the last reference


def can_skip_pictures(packets: PacketTable) -> bool:
    """Return whether unwanted pictures can be skipped without changing the others.

    In HEVC the mark is valid within one temporal layer only, and a VP9 frame to which none refers may still adapt the
    entropy coder.
    """
    return packets.codec == "h264"


class AVReader(Reader):
    """Reads with PyAV.

    Args:
        path: The file.
        packets: Its packets.
        num_frames: Number of frames; None decodes the file to count them.
        threads: Decoding threads; with more than one, no picture is skipped.

    Attributes:
        pts: Presentation times of the frames in ticks; None if they are missing or not in order.

    Raises:
        av.error.FFmpegError: The file cannot be opened or, without `num_frames`, decoded.
    """

    def __init__(self, path: str, packets: PacketTable, num_frames: int | None, *, threads: int = 1) -> None:
        self._path = path
        self._packets = packets
        self._threads = threads
        self._skips = can_skip_pictures(packets) and threads == 1
        self.fps = packets.fps
        if num_frames is not None:
            self.pts: npt.NDArray[np.int64] | None = packets.shown_pts
            self._times: npt.NDArray[np.int64] | None = self.pts
            self.num_frames = num_frames
            return
        times = [frame.pts for frame in self._decode_all()]
        self.num_frames = len(times)
        rising = None not in times and all(a < b for a, b in itertools.pairwise(times))
        self.pts = np.array(times, np.int64) if rising else None
        known = packets.stores_times and packets.has_distinct_times and set(times) <= set(packets.pts.tolist())
        self._times = self.pts if known else None  # by which frames are found; else they are counted from the start

    def starts_s(self) -> npt.NDArray[np.float64]:
        """See `Reader.starts_s`."""
        return super().starts_s() if self.pts is None else self._packets.seconds(self.pts)

    def chunks(self, indices: Sequence[int]) -> Iterator[Frames]:
        """See `Reader.chunks`."""
        return stacked(map(upright_rgb(), self._wanted(list(indices))))

    def _wanted(self, indices: list[int]) -> Iterator[Any]:
        if self._times is None:
            yield from _in_order(enumerate(self._decode_all()), indices)
            return
        times = self._times[indices].tolist()
        done = 0
        for frame in _in_order(((frame.pts, frame) for frame in self._decode_needed(times)), times):
            yield frame
            done += 1
        if done < len(times):
            yield from _in_order(((frame.pts, frame) for frame in self._decode_all()), times[done:])

    def _decode_all(self) -> Iterator[Any]:
        with open_container(self._path, probe_decoder=True) as container:
            stream = container.streams[self._packets.stream]
            self._set_threads(stream)
            yield from container.decode(stream)

    def _set_threads(self, stream: Any) -> None:
        stream.codec_context.thread_count = self._threads
        if self._threads > 1:
            stream.thread_type = "AUTO"

    def _needed_packets(self, times: list[int]) -> npt.NDArray[np.bool_]:
        """Return which packets must be decoded for the frames at these times, [P]."""
        packets = self._packets
        order = np.argsort(packets.pts)
        targets = order[np.searchsorted(packets.pts[order], times)]
        starts = np.flatnonzero(packets.random_access)
        needed = np.zeros(len(packets.pts), np.bool_)
        for target in targets:
            before = starts[(starts <= target) & (packets.pts[starts] <= packets.pts[target])]
            needed[before[-1] if len(before) else 0 : target + 1] = True
        return needed

    def _decode_needed(self, times: list[int]) -> Iterator[Any]:
        needed = self._needed_packets(times)
        wanted = set(times)
        with open_container(self._path) as container:
            stream = container.streams[self._packets.stream]
            decoder = stream.codec_context
            self._set_threads(stream)
            decoder.skip_frame = "DEFAULT"
            runs = np.flatnonzero(np.diff(np.concatenate([[False], needed, [False]]).astype(np.int8))).reshape(-1, 2)
            source = _PacketSource(container, stream, self._packets)
            for first, end in runs.tolist():
                for packet in source.run(first, end):
                    if self._skips:
                        decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                    yield from decoder.decode(packet)
                yield from decoder.decode(None)
                decoder.flush_buffers()


def stacked(images: Iterable[Frames]) -> Iterator[Frames]:
    """Yield images [H, W, 3] in chunks [n, H, W, 3] of one size, n <= `CHUNK`."""
    for _, same in itertools.groupby(images, np.shape):
        while chunk := list(itertools.islice(same, CHUNK)):
            yield np.stack(chunk)


def _in_order(frames: Iterable[tuple[int, Any]], wanted: list[int]) -> Iterator[Any]:
    """Yield the frames with the wanted keys, in this order, up to the first that is missing or out of order."""
    places = {key: place for place, key in enumerate(wanted)}
    done = 0
    for key, frame in frames:
        if key not in places:
            continue
        if places[key] != done:
            return
        yield frame
        done += 1
        if done == len(wanted):
            return


class _PacketSource:
    """The packets of an open file by number."""

    def __init__(self, container: Any, stream: Any, packets: PacketTable) -> None:
        self._container = container
        self._stream = stream
        self._packets = packets
        self._numbers = {pts: number for number, pts in enumerate(packets.pts.tolist())}
        self._next = 0
        self._demux: Iterator[Any] = container.demux(stream)

    def run(self, first: int, end: int) -> Iterator[Any]:
        """Yield packets first to end - 1; ``first`` must not decrease between calls."""
        if first - self._next > _SEEK_GAP:
            self._seek(first)
        while self._next < end:
            packet = next(self._demux, None)
            if packet is None:
                return
            if not packet.size:
                continue
            number = self._next
            self._next += 1
            if number >= first:
                yield packet

    def _seek(self, number: int) -> None:
        self._container.seek(int(self._packets.pts[number]), stream=self._stream)
        self._demux = self._container.demux(self._stream)
        packet = next(self._demux, None)
        landed = None if packet is None else self._numbers.get(packet.pts)
        if landed is None or landed > number:
            self._demux = iter(())  # no packet comes, so the reader decodes from the start
        else:
            self._next = landed
            self._demux = itertools.chain([packet], self._demux)
