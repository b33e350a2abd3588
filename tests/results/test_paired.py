"""Paired differences against published values, exact enumeration and simulation."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from dnl_video.errors import InputError
from dnl_video.results.metrics import mean_class_accuracy
from dnl_video.results.paired import (
    PairedCounts,
    count_pairs,
    holm,
    mcnemar_exact,
    paired_difference,
    paired_mean_class_difference,
    paired_per_class,
)


def hits_of(counts: PairedCounts) -> tuple[np.ndarray, np.ndarray]:
    cells = [counts.both, counts.only_first, counts.only_second, counts.neither]
    return np.repeat([1, 1, 0, 0], cells).astype(bool), np.repeat([1, 0, 1, 0], cells).astype(bool)


def test_pairs_are_counted() -> None:
    counts = count_pairs([1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0])
    assert counts == PairedCounts(both=2, only_first=1, only_second=1, neither=3)
    assert sum(counts) == 7
    with pytest.raises(InputError, match=r"hits of shapes \(2,\) and \(3,\); give the same videos for both"):
        count_pairs([1, 0], [1, 0, 1])
    with pytest.raises(InputError, match=r"hits of shapes \(1, 2\) and \(1, 2\)"):
        count_pairs([[1, 0]], [[1, 0]])


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (10, 2, 158 / 4096),  # 2 · (1 + 12 + 66) / 2^12
        (1, 7, 18 / 256),
        (0, 5, 2 / 32),
        (3, 3, 1.0),
        (0, 0, 1.0),
        (0, 1, 1.0),
    ],
)
def test_mcnemar_by_hand(b: int, c: int, p: float) -> None:
    assert mcnemar_exact(PairedCounts(50, b, c, 20)) == p
    assert mcnemar_exact(PairedCounts(0, c, b, 0)) == p


def test_mcnemar_equals_an_enumeration() -> None:
    """p is the share of all 2^n outcomes of n fair coins that are at least as unequal as the observed one."""
    for n in range(1, 11):
        unequal = [abs(n - 2 * sum(coins)) for coins in itertools.product((0, 1), repeat=n)]
        for b in range(n + 1):
            p = Fraction(sum(x >= abs(n - 2 * b) for x in unequal), 2**n)
            assert mcnemar_exact(PairedCounts(1, b, n - b, 1)) == float(p)


def test_mcnemar_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    for b, c in rng.integers(0, 400, size=(50, 2)).tolist():
        expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
        assert mcnemar_exact(PairedCounts(7, b, c, 9)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_many_videos() -> None:
    assert mcnemar_exact(PairedCounts(10**6, 20_000, 20_000, 0)) == 1.0
    p = mcnemar_exact(PairedCounts(0, 20_000, 20_400, 0))
    assert p == pytest.approx(0.0472, abs=2e-4)  # the normal tails beyond 399 / √40400 = 1.985
    assert mcnemar_exact(PairedCounts(0, 0, 20_000, 0)) == 0.0


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.03, 0.04: multiplied by 3, 2 and 1, and never below the previous one.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.6, 0.9]) == [1.0, 1.0]  # 2 x 0.6 is no probability
    assert holm([0.9, 0.01, 0.8]) == [1.0, pytest.approx(0.03), 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("table", "estimate", "low", "high"),
    [
        # Cavo et al. 2012 in Fagerland, Lydersen & Laake, Statistical Analysis of Contingency Tables (2017), chapter 8,
        # as tested in their R package contingencytables: -0.0621 (-0.1186 to -0.0046).
        ((59, 6, 16, 80), -0.0621, -0.1186, -0.0046),
        # Bentur et al. 2009, the same chapter and Fagerland et al., Stat Med 33:2850, 2014: -0.286 (-0.507 to -0.026).
        ((1, 1, 7, 12), -0.286, -0.507, -0.026),
    ],
)
def test_newcombe_published(table: tuple[int, int, int, int], estimate: float, low: float, high: float) -> None:
    """The sources state first minus second."""
    result = paired_difference(PairedCounts(*table))
    digits = 5e-5 if abs(estimate) < 0.1 else 5e-4
    np.testing.assert_allclose(result, (-estimate, -high, -low), atol=digits)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Wilson: 10 of 10 is [0.72247, 1], 7 of 10 is [0.39678, 0.89221], 4 of 10 is [0.16818, 0.68733].
        # -0.3 - sqrt(0 + 0.30322^2) and -0.3 + sqrt(0.27753^2 + 0.19221^2)
        ((7, 3, 0, 0), -0.60322, 0.03759),
        # 0.4 - sqrt(0.27753^2 + 0.23182^2) and 0.4 + sqrt(0 + 0.28733^2)
        ((0, 0, 4, 6), 0.03839, 0.68733),
        # 0 -+ sqrt(0.27753^2 + 0)
        ((10, 0, 0, 0), -0.27753, 0.27753),
        ((0, 0, 0, 10), -0.27753, 0.27753),
    ],
)
def test_a_network_that_is_always_right_or_always_wrong_has_no_correlation(table, low, high) -> None:
    counts = PairedCounts(*table)
    assert paired_difference(counts)[1:] == pytest.approx((low, high), abs=2e-5)
    by_class = paired_mean_class_difference(*hits_of(counts), np.zeros(10, dtype=int))
    assert by_class[1:] == pytest.approx((low, high), abs=2e-5)


def test_a_difference_mirrors_and_stays_within_bounds() -> None:
    for table in itertools.product((0, 1, 4), repeat=4):
        if not sum(table):
            continue
        a, b, c, d = table
        value, low, high = paired_difference(PairedCounts(a, b, c, d))
        assert -1 <= low <= value <= high <= 1
        np.testing.assert_allclose(paired_difference(PairedCounts(a, c, b, d)), (-value, -high, -low), atol=1e-12)
    with pytest.raises(InputError, match="a comparison needs at least one video"):
        paired_difference(PairedCounts(0, 0, 0, 0))


def test_agreement_narrows_the_interval() -> None:
    def width(counts: PairedCounts) -> float:
        return paired_difference(counts).high - paired_difference(counts).low

    # The networks are right on 75 and 70 of 100 videos; in the first table on nearly the same ones.
    assert width(PairedCounts(69, 6, 1, 24)) < 0.5 * width(PairedCounts(52, 23, 18, 7))
    assert width(PairedCounts(70, 0, 0, 30)) > 0, "no difference among 100 videos is not certainty"


def test_mean_class_difference_of_one_class_is_that_of_top1() -> None:
    for table in ((59, 6, 16, 80), (1, 1, 7, 12), (5, 20, 20, 5), (7, 0, 0, 3)):
        counts = PairedCounts(*table)
        labels = np.full(sum(counts), 3)
        by_class = paired_mean_class_difference(*hits_of(counts), labels)
        assert by_class.value == pytest.approx(paired_difference(counts).value)
        # The marginal intervals of `mean_class_accuracy` and Wilson's are the same for one class.
        np.testing.assert_allclose(by_class, paired_difference(counts), atol=1e-9)


def test_mean_class_difference_weighs_classes_equally() -> None:
    labels = np.repeat([0, 2], [90, 10])
    first = np.repeat([1, 0], [90, 10])
    second = np.repeat([1, 0, 1], [80, 10, 10])
    result = paired_mean_class_difference(first, second, labels)
    expected = mean_class_accuracy(second, labels).value - mean_class_accuracy(first, labels).value
    assert result.value == pytest.approx(expected) == pytest.approx((-10 / 90 + 1) / 2)


def test_per_class() -> None:
    labels = np.array([0, 0, 0, 2, 2])
    table = paired_per_class([1, 1, 0, 0, 1], [1, 0, 0, 1, 1], labels)
    assert list(table) == [0, 2]
    assert table[0][:6] == pytest.approx((3, 2 / 3, 1 / 3, 0, 1, -1 / 3))
    assert table[2][:6] == pytest.approx((2, 1 / 2, 1, 1, 0, 1 / 2))
    expected = paired_difference(PairedCounts(1, 1, 0, 1))
    assert (table[0].low, table[0].high) == (expected.low, expected.high)


def coverage(classes: int, videos: int, accuracy: float, differ: float, gain: float, by_class: bool) -> float:
    """Return how often the interval contains the true difference, over 2000 draws of paired hits.

    Args:
        classes: Number of classes, whose accuracies spread around `accuracy`.
        videos: Videos of each class.
        accuracy: Of the first network.
        differ: Share of the videos that exactly one network gets right.
        gain: True difference.
        by_class: Of mean class accuracy, not of top-1.
    """
    rng = np.random.default_rng(2 if by_class else 1)
    base = np.clip(rng.normal(accuracy, 0.1, classes), differ, 1 - differ)
    cells = np.stack([base - (differ - gain) / 2, (differ - gain) / 2 * np.ones(classes)])
    cells = np.concatenate([cells, (differ + gain) / 2 * np.ones((1, classes))])
    cells = np.concatenate([cells, 1 - cells.sum(axis=0, keepdims=True)])  # both, only first, only second, neither
    held, trials = 0, 2000
    labels = np.repeat(np.arange(classes), videos)
    draws = np.stack([rng.multinomial(videos, cells[:, c], size=trials) for c in range(classes)], axis=1)
    for draw in draws:  # [classes, 4]
        if by_class:
            first = np.concatenate([np.repeat([1, 1, 0, 0], row) for row in draw])
            second = np.concatenate([np.repeat([1, 0, 1, 0], row) for row in draw])
            result = paired_mean_class_difference(first, second, labels)
        else:
            result = paired_difference(PairedCounts(*(int(x) for x in draw.sum(axis=0))))
        held += result.low <= gain <= result.high
    return held / trials


@pytest.mark.parametrize(
    ("case", "by_class"),
    [
        *((case, False) for case in ((1, 100, 0.7, 0.2, 0.05), (1, 1000, 0.75, 0.15, 0.01), (1, 160, 0.9, 0.1, 0.0))),
        *(((8, 20, 0.7, 0.2, 0.05), by_class) for by_class in (False, True)),  # the size of the demo
        *((case, True) for case in ((100, 10, 0.7, 0.1, 0.02), (20, 5, 0.6, 0.3, 0.1), (50, 2, 0.7, 0.2, 0.05))),
    ],
)
def test_coverage_of_the_intervals(case: tuple[int, int, float, float, float], by_class: bool) -> None:
    """95 % intervals contain the truth in 95 % of the samples; 2000 trials have a noise of 1 % (two deviations)."""
    assert 0.93 <= coverage(*case, by_class) <= 0.97


def test_the_interval_is_as_wide_as_the_difference_varies() -> None:
    rng = np.random.default_rng(3)
    draws = rng.multinomial(500, [0.65, 0.05, 0.05, 0.25], size=500)
    intervals = [paired_difference(PairedCounts(*row)) for row in draws.tolist()]
    spread = np.std([interval.value for interval in intervals])
    assert np.mean([i.high - i.low for i in intervals]) == pytest.approx(2 * 1.96 * spread, rel=0.06)
