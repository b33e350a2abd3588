"""Accuracy of class scores: the source of every number in reports. numpy only.

In all functions, `scores` [n, K] are class scores of n videos (or clips), higher is better; `labels` int [n] are class
indices in 0…K−1; `hits` bool [n] says whether each video is right, such as ``rank_of_label(scores, labels) == 0``.
Intervals are 95 % intervals. Without videos, or if shapes or labels do not fit, InputError is raised. Two rules apply
everywhere:

- **Ties count as wrong.** A label's rank is the number of *other* classes that score at least as high, so a network
  that gives every class the same score has top-1 accuracy 0, whatever the order of the classes. The predicted class of
  a tie is the first of the highest classes that is not the label. So the diagonal of the confusion matrix counts
  exactly the top-1 hits, and every figure is the lowest that any breaking of ties could give.
- **NaN counts as wrong**, at every k: a row with any NaN has rank K and no predicted class.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnl_video.errors import InputError

CONFIDENCE = 0.95  # of all intervals
_CHUNK = 16384  # rows compared at once: 16384 x 400 classes are 7 MB of booleans


class Interval(NamedTuple):
    """A share in [0, 1] with its confidence interval."""

    value: float
    low: float
    high: float


def rank_of_label(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Return how many other classes score at least as high as the label, int [n]: 0 is a top-1 hit.

    Rows with a NaN have rank K.
    """
    scores, labels = _checked(scores, labels)
    num_rows, num_classes = scores.shape
    ranks = np.empty(num_rows, dtype=np.int64)
    for first in range(0, num_rows, _CHUNK):
        part = scores[first : first + _CHUNK]
        own = np.take_along_axis(part, labels[first : first + _CHUNK, None], axis=1)
        rank = np.count_nonzero(part >= own, axis=1) - 1
        rank[np.isnan(part).any(axis=1)] = num_classes
        ranks[first : first + _CHUNK] = rank
    return ranks


def reported_k(num_classes: int) -> tuple[int, ...]:
    """Return the k of the top-k accuracies to report; with five classes or fewer, top-5 is always right."""
    return (1, 5) if num_classes > 5 else (1,)


def predicted_class(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Return the class of the highest score, int [n]; −1 for rows with a NaN.

    Of equal highest scores, it is the first class that is not the label. So it is the label exactly where
    `rank_of_label` is 0.
    """
    scores, labels = _checked(scores, labels)
    best = np.argmax(scores, axis=1).astype(np.int64)
    tied = np.flatnonzero((best == labels) & (rank_of_label(scores, labels) > 0))
    equals = scores[tied] >= scores[tied, labels[tied]][:, None]
    equals[np.arange(len(tied)), labels[tied]] = False
    best[tied] = np.argmax(equals, axis=1)
    best[np.isnan(scores).any(axis=1)] = -1
    return best


def confusion_matrix(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Return how often each true class (row) was predicted as each class (column), int [K, K].

    Predictions are those of `predicted_class`. Rows with a NaN are left out.
    """
    scores, labels = _checked(scores, labels)
    num_classes = scores.shape[1]
    predicted = predicted_class(scores, labels)
    valid = predicted >= 0
    cells = labels[valid] * num_classes + predicted[valid]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def wilson_interval(correct: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the score interval of the share `correct` / n (Wilson, JASA 22:209, 1927).

    Unlike p ± 1.96·√(p(1−p)/n), it stays in [0, 1] and has a width at 0 % and 100 %. `n` may be an effective,
    fractional number. Without observations (n = 0) it is (0, 1).
    """
    if not 0 <= correct <= n:
        raise InputError(f"{correct} of {n} is not a share; give 0 <= correct <= n")
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Without rounding errors, the interval of 0 % starts at 0 and that of 100 % ends at 1.
    return 0.0 if correct == 0 else max(0.0, centre - half), 1.0 if correct == n else min(1.0, centre + half)


class ClassAccuracy(NamedTuple):
    """Top-1 accuracy of one class with its Wilson interval; None for a class without videos."""

    videos: int
    correct: int
    accuracy: float | None
    low: float | None
    high: float | None


def per_class(hits: ArrayLike, labels: ArrayLike, num_classes: int) -> list[ClassAccuracy]:
    """Return the top-1 accuracy of each of the K classes."""
    labels = np.asarray(labels, dtype=np.int64)
    videos = np.bincount(labels, minlength=num_classes).tolist()
    correct = np.bincount(labels[np.asarray(hits, dtype=bool)], minlength=num_classes).tolist()
    return [
        ClassAccuracy(n, c, c / n, *wilson_interval(c, n)) if n else ClassAccuracy(0, 0, None, None, None)
        for n, c in zip(videos, correct, strict=True)
    ]


def mean_class_accuracy(hits: ArrayLike, labels: ArrayLike) -> Interval:
    """Return the mean top-1 accuracy over the classes with at least one video.

    Interval: Wilson's at the effective number of videos n* = q(1−q) / V (Korn & Graubard, Survey Methodology 24:193,
    1998, with Wilson instead of Clopper-Pearson as in Franco et al., JSSAM 7:334, 2019). V = Σ_c p_c(1−p_c)/n_c / C² is
    the variance of a mean over C classes of n_c videos, and q is the mean of the p_c. Both use the smoothed accuracies
    p_c = (correct + 1)/(n_c + 2), so that small classes that are all right or all wrong do not shrink the interval to
    zero. With one class this is Wilson's interval.
    """
    hits, labels = _not_empty(hits), np.asarray(labels, dtype=np.int64)
    counts = np.bincount(labels)
    correct = np.bincount(labels[hits], minlength=len(counts))[counts > 0]
    counts = counts[counts > 0]
    mean = float(np.mean(correct / counts))
    smooth = (correct + 1) / (counts + 2)
    variance = float(np.sum(smooth * (1 - smooth) / counts)) / len(counts) ** 2
    effective = float(smooth.mean() * (1 - smooth.mean())) / variance
    return Interval(mean, *wilson_interval(mean * effective, effective))


def share_interval(hits: ArrayLike) -> Interval:
    """Return the share of hits with Wilson's interval."""
    hits = _not_empty(hits)
    correct = int(np.count_nonzero(hits))
    return Interval(correct / len(hits), *wilson_interval(correct, len(hits)))


def clustered_interval(hits: ArrayLike, group: ArrayLike) -> Interval:
    """Return the share of hits of m clips, whose videos are `group` int [m]; clips of one video are correlated.

    The interval is Wilson's at the effective number n* = p(1−p) / V, where V is the variance of a ratio of totals over
    groups (Cochran, Sampling Techniques, 1977, section 6.3). n* is clipped to between the number of groups and m.
    """
    hits = _not_empty(hits)
    _, index = np.unique(np.asarray(group), return_inverse=True)
    sizes = np.bincount(index)
    correct = np.bincount(index, weights=hits)
    groups, p = len(sizes), float(np.mean(hits))
    effective = float(groups)
    if groups > 1:
        variance = float(np.sum((correct - p * sizes) ** 2)) / (groups * (groups - 1)) / float(sizes.mean()) ** 2
        if variance > 0:
            effective = min(max(p * (1 - p) / variance, groups), len(hits))
    return Interval(p, *wilson_interval(p * effective, effective))


class ConfidenceBin(NamedTuple):
    """The videos whose confidence is in (low, high], with their mean confidence and accuracy; None when empty."""

    low: float
    high: float
    videos: int
    confidence: float | None
    accuracy: float | None


class Calibration(NamedTuple):
    """The expected calibration error in [0, 1], the mean confidence, the number of videos and the bins."""

    ece: float
    mean_confidence: float
    videos: int
    bins: list[ConfidenceBin]


def expected_calibration_error(scores: ArrayLike, labels: ArrayLike, bins: int = 15) -> Calibration:
    """Return the difference between confidence (the highest score) and accuracy (Guo et al., ICML 2017, equation 3).

    ECE = Σ_b n_b/n · |accuracy_b − confidence_b| over equal-width bins, 15 in that paper. Scores must be probabilities.
    Rows with a NaN are left out.
    """
    if bins < 1:
        raise InputError(f"bins is {bins}; give at least 1")
    scores, labels = _checked(scores, labels)
    highest = scores.max(axis=1)
    usable = ~np.isnan(highest)
    if not usable.any():
        raise InputError("calibration needs at least one video with scores, and there are none")
    hits = rank_of_label(scores, labels)[usable] == 0
    confidence = highest[usable].astype(np.float64)
    if confidence.min() < 0 or confidence.max() > 1 + 1e-4:  # a float32 softmax may sum to a little more than 1
        raise InputError(
            f"the highest scores span [{confidence.min():g}, {confidence.max():g}]; "
            "calibration needs probabilities in [0, 1], such as softmax outputs"
        )
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(index, weights=hits, minlength=bins) / count
    used, edges = count > 0, np.linspace(0, 1, bins + 1).tolist()
    found = [
        ConfidenceBin(low, high, n, *((m, a) if n else (None, None)))
        for low, high, n, m, a in zip(edges, edges[1:], count.tolist(), mean.tolist(), accuracy.tolist(), strict=False)
    ]
    ece = float(np.sum((np.abs(accuracy - mean) * count)[used])) / len(confidence)
    return Calibration(ece, float(np.nansum(mean * count) / count.sum()), len(confidence), found)


def _not_empty(hits: ArrayLike) -> NDArray[np.bool_]:
    hits = np.asarray(hits, dtype=bool)
    if not len(hits):
        raise InputError("accuracy needs at least one video or clip, and there are none")
    return hits


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    scores = np.asarray(scores)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    if scores.ndim != 2 or scores.shape[1] < 1 or labels.shape != scores.shape[:1]:
        raise InputError(
            f"scores of shape {scores.shape} with labels of shape {labels.shape}; give [n, K] with K >= 1, and [n]"
        )
    wrong = (labels < 0) | (labels >= scores.shape[1])
    if wrong.any():
        raise InputError(f"label {labels[wrong][0]} has no score; allowed: 0 to {scores.shape[1] - 1}")
    return scores, labels
