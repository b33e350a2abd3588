"""Means, spreads and paired differences over a few seeds. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dnl_video.errors import InputError


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences with its t interval.

    Args:
        mean: The mean.
        low: Lower end of the interval; None with one pair, which has no spread.
        high: Upper end.
        pairs: How many pairs.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int


def mean(values: Sequence[float]) -> float:
    """Return the mean.

    Raises:
        InputError: There are no values.
    """
    if not values:
        raise InputError("a mean needs at least one value, and there are none")
    return math.fsum(values) / len(values)


def standard_deviation(values: Sequence[float]) -> float | None:
    """Return the sample's standard deviation (n - 1); None of fewer than two values."""
    if len(values) < 2:
        return None
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


def paired_t(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Difference:
    """Return the mean of second minus first, pair by pair, with Student's t interval.

    Raises:
        InputError: The two differ in length, or are empty.
    """
    if len(first) != len(second):
        raise InputError(f"{len(first)} values against {len(second)}; give pairs")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    middle, spread = mean(differences), standard_deviation(differences)
    if spread is None:
        return Difference(middle, None, None, len(differences))
    half = t_quantile((1 + confidence) / 2, len(differences) - 1) * spread / math.sqrt(len(differences))
    return Difference(middle, middle - half, middle + half, len(differences))


def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution, by bisection of its exact distribution function.

    Args:
        probability: In [0.5, 1).
        freedom: Degrees of freedom, at least 1.
    """
    high = 1.0
    while t_cdf(high, freedom) < probability:
        high *= 2
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        if t_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def t_cdf(t: float, freedom: int) -> float:
    """Return P(T <= t) for t >= 0, as the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    theta = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    odd = freedom % 2
    # A(t|v), the probability of [-t, t]: products of (even/odd) for odd v, of (odd/even) for even v.
    term, total = (math.cos(theta) if odd else 1.0), 0.0
    for k in range(freedom // 2):
        total += term
        term *= square * (2 * k + 2) / (2 * k + 3) if odd else square * (2 * k + 1) / (2 * k + 2)
    inside = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return (1 + inside) / 2
