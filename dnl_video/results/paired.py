"""Differences of two networks' accuracies on the same videos. numpy only.

In all functions, `first` and `second` bool [n] say whether each network is right about each of n videos, by the rules
of `metrics.py` (ties and NaN are wrong); `labels` int [n] are class indices. A difference is second minus first, with
a 95 % interval. Without videos, or if lengths differ, InputError is raised.

The hits of two networks on the same videos are correlated, so the interval of their difference is narrower than two
separate intervals suggest: those may overlap although the difference is clear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnl_video.errors import InputError
from dnl_video.results.metrics import Interval, mean_class_accuracy, wilson_interval


class PairedCounts(NamedTuple):
    """The numbers of videos that both, one or neither of two networks got right."""

    both: int
    only_first: int
    only_second: int
    neither: int


def count_pairs(first: ArrayLike, second: ArrayLike) -> PairedCounts:
    """Count the videos by which networks are right."""
    first, second = _checked(first, second)
    both, one, two = (int(np.count_nonzero(x)) for x in (first & second, first & ~second, second & ~first))
    return PairedCounts(both, one, two, len(first) - both - one - two)


def mcnemar_exact(counts: PairedCounts) -> float:
    """Return the two-sided p value of McNemar's exact test that both networks are equally often right.

    p = 2·P(X <= min(b, c)), at most 1, with X binomial(b + c, ½), b and c being the videos that only one network gets
    right (McNemar, Psychometrika 12:153, 1947; exact form as in Fagerland, Lydersen & Laake, BMC Med Res Methodol
    13:91, 2013). In integers, so that it is exact for any number of videos.
    """
    fewer, coins = min(counts.only_first, counts.only_second), counts.only_first + counts.only_second
    term = total = 1  # C(coins, 0)
    for k in range(1, fewer + 1):
        term = term * (coins - k + 1) // k
        total += term
    return min(1.0, 2 * total / 2**coins)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for the number of tests, in the same order (Holm, Scand J Stat 6:65, 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def paired_difference(counts: PairedCounts) -> Interval:
    """Return the difference of two accuracies with Newcombe's square-and-add interval for paired proportions.

    Method 10 of Newcombe, Stat Med 17:2635, 1998, recommended by Fagerland, Lydersen & Laake (Stat Med 33:2850, 2014):
    Wilson's intervals of both accuracies, combined with the correlation φ of the hits. A positive φ has a continuity
    correction.
    """
    n = sum(counts)
    if not n:
        raise InputError("a comparison needs at least one video, and there are none")
    right_1, right_2 = counts.both + counts.only_first, counts.both + counts.only_second
    excess = counts.both * counts.neither - counts.only_first * counts.only_second
    scale = math.sqrt(right_1 * (n - right_1)) * math.sqrt(right_2 * (n - right_2))
    phi = (max(excess - n / 2, 0.0) if excess > 0 else excess) / scale if scale else 0.0
    first = Interval(right_1 / n, *wilson_interval(right_1, n))
    second = Interval(right_2 / n, *wilson_interval(right_2, n))
    return _square_and_add(first, second, phi)


def paired_mean_class_difference(first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> Interval:
    """Return the difference of two mean class accuracies with its interval.

    Newcombe's construction with the intervals of `mean_class_accuracy` instead of Wilson's; the general form is MOVER
    (Donner & Zou, Stat Methods Med Res 21:347, 2012). φ = Σ_c cov_c/n_c / √(Σ_c v1_c/n_c · Σ_c v2_c/n_c) over classes
    of n_c videos, with the same continuity correction. With one class it is `paired_difference`.
    """
    first, second = _checked(first, second)
    labels = np.asarray(labels, dtype=np.int64)
    means = [mean_class_accuracy(hits, labels) for hits in (first, second)]
    counts = np.bincount(labels)
    seen = counts > 0
    n = counts[seen]
    p1, p2, p_both = (
        np.bincount(labels, weights=hits, minlength=len(counts))[seen] / n for hits in (first, second, first & second)
    )
    covariance = float(np.sum((p_both - p1 * p2) / n))
    if covariance > 0:
        covariance = max(0.0, covariance - float(np.sum(1 / n)) / (2 * len(labels)))
    scale = math.sqrt(float(np.sum(p1 * (1 - p1) / n))) * math.sqrt(float(np.sum(p2 * (1 - p2) / n)))
    return _square_and_add(means[0], means[1], covariance / scale if scale else 0.0)


class PairedClass(NamedTuple):
    """Two networks on one class: accuracies, numbers of videos, and the difference with its interval."""

    videos: int
    reference: float  # accuracy of the first network
    run: float  # accuracy of the second network
    won: int  # videos that only the second network gets right
    lost: int  # videos that only the first network gets right
    difference: float
    low: float
    high: float


def paired_per_class(first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> dict[int, PairedClass]:
    """Compare two networks on each class that has videos. Intervals are not adjusted for the number of classes."""
    first, second = _checked(first, second)
    labels = np.asarray(labels, dtype=np.int64)
    table = {}
    for c in np.unique(labels).tolist():
        counts = count_pairs(first[labels == c], second[labels == c])
        (both, lost, won, _), n = counts, sum(counts)
        _, low, high = paired_difference(counts)
        table[c] = PairedClass(n, (both + lost) / n, (both + won) / n, won, lost, (won - lost) / n, low, high)
    return table


def _square_and_add(first: Interval, second: Interval, phi: float) -> Interval:
    """Return second − first; each end combines the two margins in its direction, reduced by the correlation."""

    def half(margin_1: float, margin_2: float) -> float:
        return math.sqrt(max(0.0, margin_1**2 - 2 * phi * margin_1 * margin_2 + margin_2**2))

    difference = second.value - first.value
    low = difference - half(first.high - first.value, second.value - second.low)
    high = difference + half(first.value - first.low, second.high - second.value)
    return Interval(difference, max(-1.0, low), min(1.0, high))


def _checked(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape or first.ndim != 1:
        raise InputError(f"hits of shapes {first.shape} and {second.shape}; give the same videos for both, [n]")
    return first, second
