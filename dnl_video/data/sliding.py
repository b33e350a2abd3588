"""Clips that slide over one long video, streamed: each frame is decoded once and kept only while a clip needs it.

Loader workers split the clips into contiguous parts, so that a long video is decoded by several processes. What a
process holds is the frames of one clip's span, resized, and the clips it is about to hand out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from dnl_video.data import transforms
from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.sampling import Indices, sliding_indices
from dnl_video.spec import Preprocessing


@dataclass(frozen=True)
class ClipBatch:
    """Some clips of one video.

    Args:
        first: Number of the first clip; the others follow it.
        views: uint8 [G * R, T, c, c, 3], clip by clip; None where the video cannot be read on.
        error: Why it cannot be read on; None where it can.
    """

    first: int
    views: Tensor | None
    error: str | None = None


class SlidingClips(IterableDataset[ClipBatch]):
    """All clips of one video, every `hop_s` seconds.

    Args:
        path: The video.
        preprocessing: Length, stride, rule, short side and crop.
        hop_s: Seconds from the start of one clip to the next.
        num_crops: Crops R per clip, 1 or 3.
        clips_at_once: Clips G of one batch; a part's last batch may have fewer.

    Attributes:
        indices: Frames of the clips, int64 [J, T].
        clip_start_s: Second at which each clip's first frame begins, [J].
        clip_end_s: Second at which each clip's last frame ends, [J].

    Raises:
        VideoDecodeError: The file cannot be opened.
        ValueError: `hop_s` is not above 0.
    """

    def __init__(
        self, path: str, preprocessing: Preprocessing, *, hop_s: float, num_crops: int = 1, clips_at_once: int = 1
    ) -> None:
        self.path = path
        self.preprocessing = preprocessing
        self.num_crops = num_crops
        self.clips_at_once = clips_at_once
        with open_video(path) as video:
            self.indices = sliding_indices(video.num_frames, video.fps, preprocessing, hop_s)
            self.clip_start_s: npt.NDArray[np.float64] = self.indices.min(axis=1) / video.fps
            self.clip_end_s: npt.NDArray[np.float64] = (self.indices.max(axis=1) + 1) / video.fps

    def __iter__(self) -> Iterator[ClipBatch]:
        """Yield this worker's part of the clips; a video that breaks off yields its error last."""
        info = get_worker_info()
        part, parts = (info.id, info.num_workers) if info else (0, 1)
        first, end = (len(self.indices) * k // parts for k in (part, part + 1))
        held: list[npt.NDArray[np.uint8]] = []
        try:
            for clip in self._clips(self.indices[first:end]):
                held.append(clip)
                if len(held) == self.clips_at_once:
                    yield self._batch(first, held)
                    first, held = first + len(held), []
        except VideoDecodeError as error:
            yield ClipBatch(first, None, error.reason)
            return
        if held:
            yield self._batch(first, held)

    def _clips(self, indices: Indices) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the resized frames [T, H, W, 3] of each of the clips [J, T], whose first frames must not fall."""
        if not len(indices):
            return
        resize = functools.partial(transforms.resize_short_side, short_side=self.preprocessing.short_side)
        wanted = np.unique(indices)
        window: dict[int, npt.NDArray[np.uint8]] = {}
        ready = count = 0
        with open_video(self.path) as video:
            for frames in video.stream(wanted, resize=resize):
                arrived = wanted[count : count + len(frames)]
                count += len(frames)
                window.update(zip(arrived.tolist(), frames, strict=True))
                while ready < len(indices) and indices[ready].max() <= arrived[-1]:
                    yield np.stack([window[index] for index in indices[ready].tolist()])
                    ready += 1
                oldest = indices[ready].min() if ready < len(indices) else np.inf
                window = {index: frame for index, frame in window.items() if index >= oldest}

    def _batch(self, first: int, clips: list[npt.NDArray[np.uint8]]) -> ClipBatch:
        views = transforms.crop_views(torch.from_numpy(np.stack(clips)), self.preprocessing.crop_size, self.num_crops)
        return ClipBatch(first, views)
