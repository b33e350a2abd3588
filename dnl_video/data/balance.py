"""Balance classes: weights for the loss, or an order that draws every class equally often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def class_weights(labels: Sequence[int], num_classes: int) -> npt.NDArray[np.float32]:
    """Return the inverse frequencies [K] of the classes, with mean 1 over the videos; 0 for a class without videos."""
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / np.count_nonzero(counts) / np.maximum(counts, 1) * (counts > 0)).astype(np.float32)


def balanced_order(labels: npt.NDArray[np.int64], size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw videos such that all classes, and within a class all videos, occur equally often (counts differ by 1).

    Args:
        labels: Class ids [N] of the training videos.
        size: Draws.
        rng: Random generator.

    Returns:
        Indices for `ClipDataset` [size]: i + r N is the draw r (from 0) of video i.
    """
    classes, drawn = rng.permutation(np.unique(labels)), []
    for place, label in enumerate(classes):
        videos, count = np.flatnonzero(labels == label), (size + place) // len(classes)
        rounds = [rng.permutation(videos) + r * len(labels) for r in range(count // len(videos) + 1)]
        drawn.append(np.concatenate(rounds)[:count])
    return rng.permutation(np.concatenate(drawn))
