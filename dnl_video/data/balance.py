"""Two answers to classes of unequal size: weights for the loss, and an order that draws every class equally often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def class_weights(labels: Sequence[int], num_classes: int) -> npt.NDArray[np.float32]:
    """Return the inverse frequency of each class, scaled to a mean of 1 over the videos.

    Args:
        labels: Class ids of the training videos.
        num_classes: Classes K.

    Returns:
        float32 [K]; 0 for a class without videos.
    """
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / np.count_nonzero(counts) / np.maximum(counts, 1) * (counts > 0)).astype(np.float32)


def balanced_order(labels: npt.NDArray[np.int64], size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw videos such that all classes, and within a class all videos, occur equally often (counts differ by 1).

    Args:
        labels: Class ids of the N training videos, [N].
        size: Draws.
        rng: Random generator.

    Returns:
        Keys of `ClipDataset`, [size]: i + r N is the draw r (from 0) of video i.
    """
    classes = rng.permutation(np.unique(labels))
    share, more = divmod(size, len(classes))
    drawn = []
    for place, label in enumerate(classes):
        videos = np.flatnonzero(labels == label)
        count = share + (place < more)
        rounds = [rng.permutation(videos) + r * len(labels) for r in range(count // len(videos) + 1)]
        drawn.append(np.concatenate(rounds)[:count])
    return rng.permutation(np.concatenate(drawn))
