"""What the clips of an evaluation tell: clip-level and centre-clip accuracy, and that of fewer clips per video.

Papers quote "top-1" for three different things, 5 to 10 points apart; here each has its name. The rules of ties and NaN
are those of `metrics.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnl_video.errors import InputError
from dnl_video.results.metrics import rank_of_label

_MOST_K = 32  # numbers of clips tried; all of 1…J up to this


def evenly_spaced_clips(num_clips: int, k: int) -> NDArray[np.int64]:
    """Return the k of J clips that stand for "only k clips", int [k]: r(j·(J−1)/(k−1)), and J//2 for k = 1.

    r(x) = floor(x + ½). Both ends are included, as by this package's rule for placing clips.
    """
    if k == 1:
        return np.array([num_clips // 2], dtype=np.int64)
    j = np.arange(k, dtype=np.int64)
    return (2 * j * (num_clips - 1) + (k - 1)) // (2 * (k - 1))  # in integers, so that halves are exact


@dataclass(frozen=True)
class ClipAccuracy:
    """Ranks of the right class in clips and in averages of clips; rank 0 is a top-1 hit.

    Args:
        video: Index of each video that has clips, ascending, int [v].
        clips_per_video: Its clips J, int [v].
        clip_rank: Rank in each clip alone, int [m].
        clip_video: Index of each clip's video, int [m].
        centre_rank: Rank in clip J//2 alone, int [v].
        k: Numbers of clips tried, ascending, int [q].
        rank_by_k: Rank in the mean of k clips (`evenly_spaced_clips`), int [q, v].
    """

    video: NDArray[np.int64]
    clips_per_video: NDArray[np.int64]
    clip_rank: NDArray[np.int64]
    clip_video: NDArray[np.int64]
    centre_rank: NDArray[np.int64]
    k: NDArray[np.int64]
    rank_by_k: NDArray[np.int64]

    @property
    def clip_level(self) -> float:
        """Clip-level top-1: the mean over all m clips."""
        return float(np.mean(self.clip_rank == 0))

    @property
    def centre_clip(self) -> float:
        """Centre-clip top-1: the mean over videos."""
        return float(np.mean(self.centre_rank == 0))

    @property
    def top1_by_k(self) -> NDArray[np.float64]:
        """Top-1 accuracy with k clips per video, [q]."""
        return np.mean(self.rank_by_k == 0, axis=1)


def accuracy_by_num_clips(clip_scores: ArrayLike, clip_video: ArrayLike, labels: ArrayLike) -> ClipAccuracy:
    """Rank the right class in every clip, and in the mean over k clips per video for k = 1…J.

    J is the smallest number of clips of any video; k counts every value up to J, or 32 of them spread from 1 to J.

    Args:
        clip_scores: Scores of clips, in the order of time within a video, [m, K].
        clip_video: Index of each clip's video in `labels`, ascending, int [m].
        labels: Class index of each video, int [n]. Videos without clips are left out.

    Raises:
        InputError: There are no clips, their videos are not ascending, or see `rank_of_label`.
    """
    clip_scores = np.asarray(clip_scores)
    clip_video = np.asarray(clip_video, dtype=np.int64)
    labels = np.asarray(labels, dtype=np.int64)
    if not len(clip_video):
        raise InputError("clip accuracy needs at least one clip, and there are none")
    if (np.diff(clip_video) < 0).any():
        raise InputError("clip_video must be ascending, so that the clips of a video stand together")
    video, first, counts = np.unique(clip_video, return_index=True, return_counts=True)
    clip_rank = rank_of_label(clip_scores, labels[clip_video])
    most = int(counts.min())
    k_values = np.unique(np.linspace(1, most, min(most, _MOST_K)).round().astype(np.int64))
    rank_by_k = np.empty((len(k_values), len(video)), dtype=np.int64)
    for row, k in enumerate(k_values):
        total = np.zeros((len(video), clip_scores.shape[1]), dtype=np.float32)
        for clip in _clips_of_each(counts, int(k)).T:  # one clip of every video at a time: [v, K] is all the memory
            total += clip_scores[first + clip]
        rank_by_k[row] = rank_of_label(total, labels[video])
    return ClipAccuracy(video, counts, clip_rank, clip_video, clip_rank[first + counts // 2], k_values, rank_by_k)


def _clips_of_each(counts: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the k clips of each video, int [v, k]."""
    sizes, which = np.unique(counts, return_inverse=True)
    return np.stack([evenly_spaced_clips(int(size), k) for size in sizes])[which]
