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
import torch
from torch import Tensor

from dnl_video.data import transforms
from dnl_video.data.dataset import VideoViews
from dnl_video.data.decoding import Frames, open_video
from dnl_video.data.sampling import Clock, Indices, Seconds, clip_from, clip_span, clip_times, sliding_indices
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
        InputError: `hop_s` is not above 0.
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
        clips = self._clips()
        for first in range(0, len(self.indices), self.clips_at_once):
            batch = np.stack(list(itertools.islice(clips, self.clips_at_once)))
            start_s, end_s = (all_[first : first + len(batch)] for all_ in (self.clip_start_s, self.clip_end_s))
            yield _views(first, batch, start_s, end_s, self.preprocessing, self.num_crops)

    def _clips(self) -> Iterator[Frames]:
        """Yield the resized frames [T, H, W, 3] of each clip."""
        indices = self.indices
        resize = functools.partial(transforms.resize_short_side, preprocessing=self.preprocessing)
        wanted = np.unique(indices)
        window: dict[int, Frames] = {}
        ready = count = 0
        with open_video(self.path) as video:
            for frames in video.stream(wanted, resize=resize, threads=self.threads):
                arrived = wanted[count : count + len(frames)]
                count += len(frames)
                window.update(zip(arrived.tolist(), frames, strict=True))
                while ready < len(indices) and indices[ready].max() <= arrived[-1]:
                    yield np.stack([window[index] for index in indices[ready].tolist()])
                    ready += 1
                oldest = indices[ready].min() if ready < len(indices) else np.inf
                window = {index: frame for index, frame in window.items() if index >= oldest}


def stream_clips(
    frames: Iterable[Frames | Tensor], fps: float, preprocessing: Preprocessing, *, hop: float, num_crops: int
) -> Iterator[VideoViews]:
    """Yield each clip of frames that arrive one by one as soon as its last frame has come; `index` is its number.

    The clips are those of `SlidingClips`. The frames of the last span are kept: the end may come at any time, and the
    last clip ends with it. (PySlowFast has another rule for files of at most T·τ frames. A stream does not know its
    length; there the last clip may begin one frame later.)

    Args:
        frames: uint8 [H, W, 3], RGB, all of one size.
        fps: Frames per second.
        preprocessing: Length, stride, rule, short side and crop.
        hop: Frames from the start of one clip to the next (see `hop_frames`).
        num_crops: Crops R per clip, 1 or 3.

    Raises:
        InputError: A frame has another form, or there are none.
    """
    offsets = clip_from(0, math.ceil(clip_span(fps, preprocessing)), fps, preprocessing)
    span = int(offsets[-1]) + 1
    latest: deque[Frames] = deque(maxlen=span)
    size, n, number, newest = None, 0, 0, -1

    def clip(indices: Indices) -> VideoViews:
        images = np.stack([latest[i - n] for i in indices.tolist()])
        start_s, end_s = np.array([indices.min() / fps]), np.array([(indices.max() + 1) / fps])
        return _views(number, images[None], start_s, end_s, preprocessing, num_crops)

    for frame in frames:
        pixels = checked_pixels(frame, f"frame {n}", "[H, W, 3]")
        if pixels.shape != (size := size or pixels.shape):
            raise InputError(f"frame {n} is {list(pixels.shape)}, the first {list(size)}; give frames of one size")
        latest.append(transforms.resize_short_side(pixels[None], preprocessing)[0])
        n += 1
        if n - span == math.floor(number * hop + 0.5):
            newest = n - span
            yield clip(newest + offsets)
            number += 1
    if not n:
        raise InputError("the frames ended before the first one; check the camera, file or address")
    if (start := max(n - span, 0)) > newest:
        yield clip(clip_from(start, n, fps, preprocessing))


def _views(
    index: int, clips: Frames, start_s: Seconds, end_s: Seconds, preprocessing: Preprocessing, num_crops: int
) -> VideoViews:
    """Return the views of clips [G, T, H, W, 3]."""
    frames = torch.from_numpy(clips).flatten(0, 1)
    indices = np.arange(len(frames)).reshape(clips.shape[:2])
    views, rows = transforms.distinct_views(frames, indices, preprocessing, num_crops)
    return VideoViews(index, views, start_s, end_s, None, rows)


def read_ahead(batches: Iterable[VideoViews]) -> Iterator[VideoViews]:
    """Yield batches while a thread makes the next one."""
    iterator = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, iterator, None)
        while (batch := following.result()) is not None:
            following = pool.submit(next, iterator, None)
            yield batch
