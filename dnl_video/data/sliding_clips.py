"""Clips that slide over one long video: each frame is decoded once and kept only while a clip needs it.

Memory holds the resized frames of one clip's span and the clips of one batch. Decoding uses threads, not loader
processes: decoders release the GIL, and a forked process must not inherit a decord reader in use.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dnl_video.data import transforms
from dnl_video.data.decoding import open_video
from dnl_video.data.sampling import Clock, clip_times, sliding_indices
from dnl_video.spec import Preprocessing


@dataclass(frozen=True)
class ClipBatch:
    """Consecutive clips of one video.

    Args:
        first: Number of the first clip.
        views: uint8 [G * R, T, c, c, 3], clip by clip.
    """

    first: int
    views: Tensor


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

    def __iter__(self) -> Iterator[ClipBatch]:
        """Yield the clips.

        Raises:
            VideoDecodeError: The rest of the video cannot be decoded.
        """
        clips = self._clips()
        for first in range(0, len(self.indices), self.clips_at_once):
            batch = torch.from_numpy(np.stack(list(itertools.islice(clips, self.clips_at_once))))
            yield ClipBatch(first, transforms.crop_views(batch, self.preprocessing, self.num_crops))

    def _clips(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the resized frames [T, H, W, 3] of each clip."""
        indices = self.indices
        resize = functools.partial(transforms.resize_short_side, preprocessing=self.preprocessing)
        wanted = np.unique(indices)
        window: dict[int, npt.NDArray[np.uint8]] = {}
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


def read_ahead(batches: Iterable[ClipBatch]) -> Iterator[ClipBatch]:
    """Yield batches while a thread makes the next one."""
    iterator = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, iterator, None)
        while (batch := following.result()) is not None:
            following = pool.submit(next, iterator, None)
            yield batch
