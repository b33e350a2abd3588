"""Exact frames by PyAV: from the random access point before each wanted frame on, matched by presentation time.

The packets are read once from the start (or from a seek whose landing place is recognised by its packet's time), and
only those that a wanted frame may depend on are decoded. H.264 says of every picture whether another one refers to it
(nal_ref_idc, 7.4.1): unwanted pictures without that are not decoded at all, with the same result bit for bit. Where a
wanted frame does not come out that way, everything is decoded from the start.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dnl_video.data.packets import PacketTable, open_container

Frames = npt.NDArray[np.uint8]
CHUNK = 32
"""Frames decoded at once: the whole union of a 1080p video's views would take 1.9 GB."""

_SEEK_GAP = 300
"""Unneeded packets from which seeking over them is worth its time."""


def drops_exactly(packets: PacketTable) -> bool:
    """Tell whether unwanted pictures can be left out without a change to the others.

    HEVC's mark holds within a temporal layer only, and a VP9 frame that nothing refers to may still adapt the coder.
    """
    return packets.codec == "h264"


class AVReader:
    """Reads with PyAV, one decoding thread.

    Args:
        path: The file.
        packets: Its packets.
        num_frames: How many frames it has; None where only decoding tells, which is done here.
        dropping: Leave out unwanted pictures that no other depends on.

    Raises:
        av.error.FFmpegError: The file cannot be opened, or, without `num_frames`, decoded.
    """

    def __init__(self, path: str, packets: PacketTable, num_frames: int | None, *, dropping: bool = True) -> None:
        self._path = path
        self._packets = packets
        self._dropping = dropping and drops_exactly(packets)
        self.fps = packets.fps
        if num_frames is not None:
            self._times: npt.NDArray[np.int64] | None = np.sort(packets.pts[packets.shown])
            self.num_frames = num_frames
            return
        times = [frame.pts for frame in self._decode_all()]
        self.num_frames = len(times)
        known = packets.stores_times and packets.has_distinct_times and None not in times
        rising = known and set(times) <= set(packets.pts.tolist()) and all(a < b for a, b in itertools.pairwise(times))
        self._times = np.array(times, np.int64) if rising else None

    def chunks(self, indices: Sequence[int]) -> Iterator[Frames]:
        """Yield the frames at sorted, distinct indices, at most `CHUNK` at a time, [n, H, W, 3] RGB."""
        chunk: list[Frames] = []
        for frame in self._wanted(list(indices)):
            # Phones store portrait video as a turned landscape one; decord turns it, PyAV (from 13) says how far.
            turns = round(getattr(frame, "rotation", 0) / 90)
            chunk.append(np.rot90(frame.to_ndarray(format="rgb24"), turns))
            if len(chunk) == CHUNK:
                yield np.stack(chunk)
                chunk = []
        if chunk:
            yield np.stack(chunk)

    def close(self) -> None:
        """Nothing stays open between reads."""

    def _wanted(self, indices: list[int]) -> Iterator[Any]:
        if self._times is None:
            yield from _in_turn(enumerate(self._decode_all()), indices)
            return
        times = self._times[indices].tolist()
        done = 0
        for frame in _in_turn(((frame.pts, frame) for frame in self._decode_needed(times)), times):
            yield frame
            done += 1
        if done < len(times):
            yield from _in_turn(((frame.pts, frame) for frame in self._decode_all()), times[done:])

    def _decode_all(self) -> Iterator[Any]:
        with open_container(self._path, probe_decoder=True) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            yield from container.decode(stream)

    def _plan(self, times: list[int]) -> npt.NDArray[np.bool_]:
        """Return which packets are decoded for the frames at these times, [P]."""
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
        needed = self._plan(times)
        wanted = set(times)
        with open_container(self._path) as container:
            stream = container.streams.video[0]
            decoder = stream.codec_context
            decoder.thread_count = 1
            decoder.skip_frame = "DEFAULT"
            runs = np.flatnonzero(np.diff(np.concatenate([[False], needed, [False]]).astype(np.int8))).reshape(-1, 2)
            source = _Source(container, stream, self._packets)
            for first, end in runs.tolist():
                for packet in source.run(first, end):
                    if self._dropping:
                        decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                    yield from decoder.decode(packet)
                yield from decoder.decode(None)
                decoder.flush_buffers()


def _in_turn(frames: Iterator[tuple[int, Any]], wanted: list[int]) -> Iterator[Any]:
    """Yield the frames with the wanted keys in their order, up to the first that is lost or comes out of turn."""
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


class _Source:
    """The packets of an open file by their number."""

    def __init__(self, container: Any, stream: Any, packets: PacketTable) -> None:
        self._container = container
        self._stream = stream
        self._packets = packets
        self._numbers = {pts: number for number, pts in enumerate(packets.pts.tolist())}
        self._next = 0
        self._demux: Iterator[Any] = container.demux(stream)

    def run(self, first: int, end: int) -> Iterator[Any]:
        """Yield packets first to end - 1, which must lie behind those of the former run."""
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
            self._demux = iter(())  # nothing comes out, so the reader decodes from the start
        else:
            self._next = landed
            self._demux = itertools.chain([packet], self._demux)
