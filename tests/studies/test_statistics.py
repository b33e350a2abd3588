"""Means, spreads and t intervals against hand-computed numbers and published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dnl_video.errors import InputError
from dnl_video.studies.statistics import mean, paired_t, standard_deviation, t_cdf, t_quantile


@pytest.mark.parametrize(
    ("freedom", "two_sided_95", "two_sided_99"),
    # Student's table, e.g. Abramowitz & Stegun, table 26.10.
    [
        *((1, 12.706, 63.657), (2, 4.303, 9.925), (3, 3.182, 5.841), (4, 2.776, 4.604), (5, 2.571, 4.032)),
        *((9, 2.262, 3.250), (10, 2.228, 3.169), (30, 2.042, 2.750), (120, 1.980, 2.617)),
    ],
)
def test_quantiles_are_the_published_ones(freedom: int, two_sided_95: float, two_sided_99: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(two_sided_95, abs=6e-4)
    assert t_quantile(0.995, freedom) == pytest.approx(two_sided_99, abs=6e-4)
    assert t_quantile(0.5, freedom) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 12])
def test_the_distribution_is_the_integral_of_its_density(freedom: int) -> None:
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    for end in (0.3, 1.0, 2.5, 6.0):
        x = np.linspace(0, end, 20001)
        density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        area = float(((density[1:] + density[:-1]) / 2).sum() * (x[1] - x[0]))
        assert t_cdf(end, freedom) == pytest.approx(0.5 + area, abs=1e-8)


def test_a_paired_difference_by_hand() -> None:
    # Differences 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, variance 7, standard error sqrt(7/3); t = 4.30265.
    found = paired_t([10.0, 20.0, 30.0], [11.0, 22.0, 36.0])
    half = 4.30265 * math.sqrt(7 / 3)
    assert found.pairs == 3
    assert (found.mean, found.low, found.high) == pytest.approx((3, 3 - half, 3 + half), abs=1e-4)
    wider = paired_t([10.0, 20.0, 30.0], [11.0, 22.0, 36.0], confidence=0.99)
    assert wider.high == pytest.approx(3 + 9.92484 * math.sqrt(7 / 3), abs=1e-4)


def test_pairing_takes_out_what_seeds_share() -> None:
    first = [0.1, 0.5, 0.9]
    assert paired_t(first, [x + 0.02 for x in first]).low == pytest.approx(0.02)


def test_few_values() -> None:
    one = paired_t([0.5], [0.6])
    assert one.mean == pytest.approx(0.1)
    assert (one.low, one.high, one.pairs) == (None, None, 1)
    assert standard_deviation([3.0]) is None
    assert standard_deviation([1.0, 2.0, 3.0, 4.0]) == pytest.approx(math.sqrt(5 / 3))
    assert mean([1.0, 2.0, 6.0]) == 3
    with pytest.raises(InputError, match="a mean needs at least one value, and there are none"):
        mean([])
    with pytest.raises(InputError, match="2 values against 1; give pairs"):
        paired_t([1.0, 2.0], [1.0])
