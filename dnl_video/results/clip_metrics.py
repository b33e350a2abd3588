"""Clip-level and centre-clip accuracy, and accuracy by the number of clips per video.

Papers call video-level, clip-level and centre-clip accuracy "top-1", although they differ by 5 to 10 points. Rules for
ties and NaN: `metrics.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnl_video.errors import InputError
from dnl_video.results.metrics import rank_of_label

_MOST_K = 32  # numbers of clips tried


def evenly_spaced_clips(num_clips: int, k: int) -> NDArray[np.int64]:
    """Return the indices of k evenly spaced clips out of J, int [k]: floor(j·(J−1)/(k−1) + ½); J//2 for k = 1."""
    if k == 1:
        return np.array([num_clips // 2], dtype=np.int64)
    j = np.arange(k, dtype=np.int64)
    return (2 * j * (num_clips - 1) + (k - 1)) // (2 * (k - 1))  # in integers, so that halves are exact


@dataclass(frozen=True)
class ClipAccuracy:
    """Ranks of the label in clips and in means of clips; rank 0 is a top-1 hit."""

    video: NDArray[np.int64]  # index of each video that has clips, ascending [v]
    clip_rank: NDArray[np.int64]  # rank in each clip alone [m]
    clip_video: NDArray[np.int64]  # index of each clip's video [m]
    centre_rank: NDArray[np.int64]  # rank in clip J//2 of each video [v]
    k: NDArray[np.int64]  # numbers of clips tried, ascending [q]
    rank_by_k: NDArray[np.int64]  # rank in the mean of k evenly spaced clips [q, v]


def accuracy_by_num_clips(clip_scores: ArrayLike, clip_video: ArrayLike, labels: ArrayLike) -> ClipAccuracy:
    """Rank the label in every clip, and in the mean over k clips per video for k = 1…J.

    J is the smallest number of clips of any video. Above 32, only 32 values of k are tried, spread from 1 to J.

    Args:
        clip_scores: Scores of clips, sorted by time within a video, [m, K].
        clip_video: Index of each clip's video in `labels`, ascending, int [m].
        labels: Class index of each video, int [n]. Videos without clips are left out.

    Raises:
        InputError: There are no clips, their videos are not ascending, or shapes or labels do not fit.
    """
    clip_scores = np.asarray(clip_scores)
    clip_video = np.asarray(clip_video, dtype=np.int64)
    labels = np.asarray(labels, dtype=np.int64)
    if not len(clip_video):
        raise InputError("clip accuracy needs at least one clip, and there are none")
    if (np.diff(clip_video) < 0).any():
        raise InputError("clip_video must be ascending, so that the clips of a video are adjacent")
    video, first, counts = np.unique(clip_video, return_index=True, return_counts=True)
    clip_rank = rank_of_label(clip_scores, labels[clip_video])
    most = int(counts.min())
    k_values = np.unique(np.linspace(1, most, min(most, _MOST_K)).round().astype(np.int64))
    sizes, which = np.unique(counts, return_inverse=True)
    rank_by_k = np.empty((len(k_values), len(video)), dtype=np.int64)
    for row, k in enumerate(k_values.tolist()):
        clips = np.stack([evenly_spaced_clips(size, k) for size in sizes.tolist()])[which]  # [v, k]
        total = np.zeros((len(video), clip_scores.shape[1]), dtype=np.float32)
        for clip in clips.T:  # one clip of every video at a time, to need only [v, K] of memory
            total += clip_scores[first + clip]
        rank_by_k[row] = rank_of_label(total, labels[video])
    return ClipAccuracy(video, clip_rank, clip_video, clip_rank[first + counts // 2], k_values, rank_by_k)
