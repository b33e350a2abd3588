"""Accuracy of class scores: the one source of every number this package reports. numpy only.

Everywhere: `scores` [n, K] are class scores of n videos (or clips), higher is better; `labels` int [n] are class
indices in 0…K−1.

Two rules hold for all functions:

- **Ties count against the model.** A label's rank is the number of *other* classes that score at least as high, so a
  network that gives every class the same score has top-1 accuracy 0, not what the order of the classes happens to
  give. The predicted class of a tie is the first of the highest classes that is not the label. So the diagonal of the
  confusion matrix holds just the top-1 hits, and every figure is the worst that any breaking of ties could give.
- **NaN counts as wrong**, at every k: a row with any NaN has rank K and no predicted class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnl_video.errors import InputError

_CHUNK = 16384  # rows compared at once: 16384 x 400 classes are 7 MB of booleans


class Interval(NamedTuple):
    """A share in [0, 1] with its confidence interval."""

    value: float
    low: float
    high: float


def rank_of_label(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Return how many other classes score at least as high as the label, int [n]: 0 is a top-1 hit.

    Rows with a NaN have rank K.

    Raises:
        InputError: Shapes disagree, or a label is not in 0…K−1.
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


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, k: int = 1) -> float:
    """Return the share of rows whose label is among the k highest scores; k above K is taken as K.

    Raises:
        InputError: k is below 1, or there are no rows, or see `rank_of_label`.
    """
    if k < 1:
        raise InputError(f"k is {k}; give at least 1")
    ranks = rank_of_label(scores, labels)
    if not len(ranks):
        raise InputError("accuracy needs at least one video, and there are none")
    return float(np.mean(ranks < min(k, np.shape(scores)[1])))


def predicted_class(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Return the class of the highest score, int [n]; −1 for rows with a NaN.

    Of equal highest scores it is the first that is not the label's: equal to the label exactly where `rank_of_label`
    is 0.

    Raises:
        InputError: See `rank_of_label`.
    """
    scores, labels = _checked(scores, labels)
    best = np.argmax(scores, axis=1).astype(np.int64)
    lucky = np.flatnonzero((best == labels) & (rank_of_label(scores, labels) > 0))
    equals = scores[lucky] >= scores[lucky, labels[lucky]][:, None]
    equals[np.arange(len(lucky)), labels[lucky]] = False
    best[lucky] = np.argmax(equals, axis=1)
    best[np.isnan(scores).any(axis=1)] = -1
    return best


def confusion_matrix(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Return how often each true class (row) was predicted as each class (column), int [K, K].

    Predictions are `predicted_class`, so the diagonal counts the top-1 hits of each class. Rows with a NaN are left
    out.
    """
    scores, labels = _checked(scores, labels)
    num_classes = scores.shape[1]
    predicted = predicted_class(scores, labels)
    valid = predicted >= 0
    cells = labels[valid] * num_classes + predicted[valid]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def wilson_interval(correct: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share `correct` / n (Wilson, JASA 22:209, 1927).

    Unlike the textbook p ± 1.96·√(p(1−p)/n) it stays in [0, 1] and has a width at 0 % and 100 %. `n` may be an
    effective, fractional number. Without observations (n = 0) nothing is known: (0, 1).

    Raises:
        InputError: Not 0 <= correct <= n, or confidence is outside (0, 1).
    """
    if not 0 <= correct <= n:
        raise InputError(f"{correct} of {n} is no share; give 0 <= correct <= n")
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the interval touches 0 or 1 exactly; rounding must not move it.
    return 0.0 if correct == 0 else max(0.0, centre - half), 1.0 if correct == n else min(1.0, centre + half)


@dataclass(frozen=True)
class PerClass:
    """Top-1 accuracy of every class.

    Args:
        num_videos: Videos of the class, int [K].
        correct: Top-1 hits among them, int [K].
        accuracy: correct / num_videos, [K]; NaN for a class without videos.
        low: Lower end of its Wilson interval, [K].
        high: Upper end, [K].
    """

    num_videos: NDArray[np.int64]
    correct: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def per_class(hits: ArrayLike, labels: ArrayLike, num_classes: int, confidence: float = 0.95) -> PerClass:
    """Count top-1 hits per class.

    Args:
        hits: Whether each video is right, bool [n], such as ``rank_of_label(scores, labels) == 0``. Failed videos can
            be counted as wrong.
        labels: Class indices, int [n].
        num_classes: K.
        confidence: Confidence of the intervals.
    """
    labels = np.asarray(labels, dtype=np.int64)
    num_videos = np.bincount(labels, minlength=num_classes).astype(np.int64)
    correct = np.bincount(labels[np.asarray(hits, dtype=bool)], minlength=num_classes).astype(np.int64)
    with np.errstate(invalid="ignore"):
        accuracy = correct / num_videos
    ends = np.array([wilson_interval(int(c), int(n), confidence) for c, n in zip(correct, num_videos, strict=True)])
    return PerClass(num_videos, correct, accuracy, ends[:, 0], ends[:, 1])


def mean_class_accuracy(hits: ArrayLike, labels: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean of the classes' top-1 accuracies, over the classes with at least one video.

    Interval: Wilson's at the effective number of videos n* = q(1−q) / V (Korn & Graubard, Survey Methodology 24:193,
    1998, with Wilson in place of Clopper-Pearson as in Franco et al., JSSAM 7:334, 2019). V = Σ_c p_c(1−p_c)/n_c / C²
    is the variance of a mean over C classes of n_c videos; in it and in q, the mean of the p_c, classes enter with
    p_c = (correct + 1)/(n_c + 2), so that a few classes that are all right or all wrong do not pretend certainty. With
    one class this is Wilson's interval.

    Args:
        hits: Whether each video is right, bool [n].
        labels: Class indices, int [n].
        confidence: Confidence of the interval.

    Raises:
        InputError: There are no videos.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if not len(labels):
        raise InputError("accuracy needs at least one video, and there are none")
    counts = np.bincount(labels)
    correct = np.bincount(labels[np.asarray(hits, dtype=bool)], minlength=len(counts))[counts > 0]
    counts = counts[counts > 0]
    mean = float(np.mean(correct / counts))
    smooth = (correct + 1) / (counts + 2)
    variance = float(np.sum(smooth * (1 - smooth) / counts)) / len(counts) ** 2
    effective = float(smooth.mean() * (1 - smooth.mean())) / variance
    return Interval(mean, *wilson_interval(min(mean, 1.0) * effective, effective, confidence))


def share_interval(hits: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the share of true values in `hits` [n] with Wilson's interval.

    Raises:
        InputError: There are none.
    """
    hits = np.asarray(hits, dtype=bool)
    if not len(hits):
        raise InputError("accuracy needs at least one video, and there are none")
    correct = int(np.count_nonzero(hits))
    return Interval(correct / len(hits), *wilson_interval(correct, len(hits), confidence))


def clustered_interval(hits: ArrayLike, group: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the share of true values in `hits` [m] where values of one group (clips of one video) go together.

    Ten clips of a video are not ten independent trials. The interval is Wilson's at the effective number
    n* = p(1−p) / V, where V is the variance of a ratio of totals over groups (Cochran, Sampling Techniques, 1977,
    section 6.3). n* is held between the number of groups and m.

    Args:
        hits: Whether each clip is right, bool [m].
        group: Index of each clip's video, int [m].
        confidence: Confidence of the interval.

    Raises:
        InputError: There are no clips.
    """
    hits = np.asarray(hits, dtype=bool)
    if not len(hits):
        raise InputError("accuracy needs at least one clip, and there are none")
    _, index = np.unique(np.asarray(group), return_inverse=True)
    sizes = np.bincount(index)
    correct = np.bincount(index, weights=hits)
    groups, p = len(sizes), float(np.mean(hits))
    effective = float(groups)
    if groups > 1:
        variance = float(np.sum((correct - p * sizes) ** 2)) / (groups * (groups - 1)) / float(sizes.mean()) ** 2
        if variance > 0:
            effective = min(max(p * (1 - p) / variance, groups), len(hits))
    return Interval(p, *wilson_interval(p * effective, effective, confidence))


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram and its expected calibration error.

    Args:
        ece: Expected calibration error, in [0, 1].
        edges: Edges of the B bins of confidence, [B + 1]; a bin excludes its lower edge and includes its upper one.
        count: Videos in each bin, int [B].
        confidence: Mean confidence in each bin, [B]; NaN when empty.
        accuracy: Top-1 accuracy in each bin, [B]; NaN when empty.
    """

    ece: float
    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def expected_calibration_error(scores: ArrayLike, labels: ArrayLike, bins: int = 15) -> Calibration:
    """Return how far confidence (the highest score) is from accuracy (Guo et al., ICML 2017, equation 3).

    ECE = Σ_b n_b/n · |accuracy_b − confidence_b| over equal-width bins; 15 bins are that paper's. Scores must be
    probabilities. Rows with a NaN have no confidence and are left out.

    Raises:
        InputError: There are no usable rows, `bins` is below 1, or scores are outside [0, 1].
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
        mean_confidence = np.bincount(index, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(index, weights=hits, minlength=bins) / count
    gaps = np.abs(accuracy - mean_confidence)[count > 0]
    ece = float(np.sum(gaps * count[count > 0])) / len(confidence)
    return Calibration(ece, np.linspace(0, 1, bins + 1), count.astype(np.int64), mean_confidence, accuracy)


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
