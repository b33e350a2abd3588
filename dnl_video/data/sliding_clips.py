"""Clips that slide over a long video or a stream: each frame is read once and kept only while a clip needs it.

Memory holds the resized frames of one clip's span and the clips of one batch. Decoding uses threads, not loader
processes: decoders release the GIL, and a forked process must not inherit a decord reader in use.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass

import numpy as np
from torch import Tensor

from dnl_video.data import transforms
from dnl_video.data.dataset import VideoViews, ViewDataset
from dnl_video.data.decoding import Frames, open_video
from dnl_video.data.sampling import Clock, Indices, clip_from, clip_span, clip_times, sliding_indices
from dnl_video.data.sources import checked_pixels
from dnl_video.errors import InputError
from dnl_video.spec import Preprocessing


@dataclass
class SlidingClips:
    """All clips of one video, every `hop_s` seconds, in order.

    Args:
        path: The video.
        preprocessing: Length, stride, rule, short side and crop.
        hop_s: Seconds from the start of one clip to the next.
        num_crops: Crops R per clip, 1 or 3.
        clips_at_once: Clips G per batch; the last batch may have fewer.
        threads: Decoding threads.

    Attributes:
        indices: Frames of the clips, int64 [J, T].
        clip_start_s: Start of each clip's first frame in seconds from the first frame of the video, [J].
        clip_end_s: End of each clip's last frame in seconds, [J].

    Raises:
        VideoDecodeError: The file cannot be opened.
        ValueError: `hop_s` is not above 0.
    """

    path: str
    preprocessing: Preprocessing
    _: KW_ONLY
    hop_s: float
    num_crops: int = 1
    clips_at_once: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        with open_video(self.path) as video:
            clock = video.clock(self.preprocessing) or Clock(video.times_s)
            self.indices = sliding_indices(video.num_frames, video.fps, self.preprocessing, self.hop_s, clock)
            self.clip_start_s, self.clip_end_s = clip_times(self.indices, video.times_s)

    def __iter__(self) -> Iterator[VideoViews]:
        """Yield batches of clips; `index` is the number of the first one.

        Raises:
            VideoDecodeError: The rest of the video cannot be decoded.
        """
        views = ViewDataset((), self.preprocessing, num_clips=self.clips_at_once, num_crops=self.num_crops)
        clips = self._clips()
        for first in range(0, len(self.indices), self.clips_at_once):
            frames = np.concatenate(list(itertools.islice(clips, self.clips_at_once)))
            numbers = np.arange(len(frames)).reshape(-1, self.indices.shape[1])
            start_s, end_s = (all_[first : first + len(numbers)] for all_ in (self.clip_start_s, self.clip_end_s))
            yield views.cut(first, frames, numbers, (start_s, end_s))

    def _clips(self) -> Iterator[Frames]:
        """Yield the resized frames [T, H, W, 3] of each clip."""
        resize = functools.partial(transforms.resize_short_side, preprocessing=self.preprocessing)
        wanted = np.unique(self.indices)
        window: dict[int, Frames] = {}
        with open_video(self.path) as video:
            chunks = video.stream(wanted, resize=resize, threads=self.threads)
            arriving = zip(wanted.tolist(), itertools.chain.from_iterable(chunks), strict=True)
            for clip in self.indices.tolist():
                window = {number: frame for number, frame in window.items() if number >= min(clip)}
                while max(clip) not in window:
                    window.update([next(arriving)])
                yield np.stack([window[number] for number in clip])


def stream_clips(frames: Iterable[Frames | Tensor], fps: float, hop: float, views: ViewDataset) -> Iterator[VideoViews]:
    """Yield the clips of `SlidingClips` from frames [H, W, 3] that arrive one by one, each after its last frame.

    The frames of the last span are kept: the end may come at any time, and the last clip ends with it. (With
    `pyslowfast`, the last clip of at most T·τ frames may begin one frame later than in a file: that rule needs n.)

    Raises:
        InputError: A frame has another form, or there are none.
    """
    preprocessing = views.preprocessing
    offsets = clip_from(0, math.ceil(clip_span(fps, preprocessing)), fps, preprocessing)
    span = int(offsets[-1]) + 1
    latest: deque[Frames] = deque(maxlen=span)
    n, number, newest = 0, 0, -1

    def clip(indices: Indices) -> VideoViews:
        images = np.stack([latest[i - n] for i in indices.tolist()])
        times_s = np.array([indices.min() / fps]), np.array([(indices.max() + 1) / fps])
        return views.cut(number, images, np.arange(len(images))[None], times_s)

    for n, frame in enumerate(frames, start=1):
        checked = np.array(checked_pixels(frame, "frame", "[H, W, 3]"))  # the next frame may come in the same array
        pixels = transforms.resize_short_side(checked[None], preprocessing)[0]
        if latest and pixels.shape != latest[-1].shape:
            raise InputError(f"frame {n - 1} has another shape than those before; give frames of one size")
        latest.append(pixels)
        if n - span == math.floor(number * hop + 0.5):
            newest = n - span
            yield clip(newest + offsets)
            number += 1
    if not n:
        raise InputError("the frames ended before the first one; check the camera, file or address")
    if (start := max(n - span, 0)) > newest:
        yield clip(clip_from(start, n, fps, preprocessing))


def read_ahead(batches: Iterable[VideoViews]) -> Iterator[VideoViews]:
    """Yield batches while a thread makes the next one."""
    iterator = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, iterator, None)
        while (batch := following.result()) is not None:
            following = pool.submit(next, iterator, None)
            yield batch
