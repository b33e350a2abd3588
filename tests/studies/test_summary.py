"""Means, spreads and paired differences, against numbers computed by hand and published tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnl_video.studies.curves import draw_curves
from dnl_video.studies.summary import paired_t, results_table, summarize, t_cdf, t_quantile

ROWS = [
    {"context": context, "seed": seed, "top1": top1, "val_top1": [[1, top1 / 2], [2, top1]]}
    for context, seeds in {
        "none": {0: 0.50, 1: 0.60, 2: 0.70},
        "nl": {0: 0.52, 1: 0.63, 2: 0.74},
        "dnl": {1: 0.80, 2: 0.80},
    }.items()
    for seed, top1 in seeds.items()
]
COSTS = {name: {"params": 1234567, "macs": 45_600_000} for name in ("none", "nl", "dnl")}


def test_summary_equals_numbers_computed_by_hand() -> None:
    none, nl, dnl = summarize(list(reversed(ROWS)), ("none", "nl", "snl", "dnl"))
    assert (none["context"], none["seeds"]) == ("none", [0, 1, 2])
    assert none["top1"] == pytest.approx({"mean": 0.6, "sd": 0.1})
    assert none["minus_none"] is None
    # nl - none: 2, 3, 4 points; sd 1, standard error 0.57735, t 4.30265.
    assert nl["minus_none"] == pytest.approx(
        {"mean": 0.03, "low": 0.03 - 0.0248414, "high": 0.03 + 0.0248414, "pairs": 3}, abs=1e-6
    )
    # dnl has seeds 1 and 2 only: 0.20 and 0.10 above none; sd 0.0707107, standard error 0.05, t 12.7062.
    assert dnl["minus_none"] == pytest.approx(
        {"mean": 0.15, "low": 0.15 - 0.635310, "high": 0.15 + 0.635310, "pairs": 2}, abs=1e-5
    )
    assert dnl["minus_nl"]["mean"] == pytest.approx(0.115)
    assert none["minus_nl"]["mean"] == pytest.approx(-0.03)


def test_results_table() -> None:
    lines = results_table(summarize(ROWS, ("none", "nl", "dnl")), COSTS).splitlines()
    assert lines[0] == "| context | parameters | GMACs | seeds | top-1, mean ± sd | minus `none` | minus `nl` |"
    assert lines[2] == "| `none` | 1,234,567 | 0.0456 | 3 | 60.0 ± 10.0 |  | -3.0 [-5.5, -0.5] |"
    assert lines[3] == "| `nl` | 1,234,567 | 0.0456 | 3 | 63.0 ± 11.0 | +3.0 [+0.5, +5.5] |  |"
    alone = results_table(summarize(ROWS[:1], ("none", "nl")), COSTS).splitlines()
    assert alone[2:] == ["| `none` | 1,234,567 | 0.0456 | 1 | 50.0 |  |  |"]


def test_curves_show_each_context(tmp_path: Path) -> None:
    draw_curves(ROWS, ("none", "nl", "dnl"), 4, tmp_path / "curves.png")
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).reshape(-1, 3)
    for color in ((0, 0, 0), (0xE6, 0x9F, 0x00), (0xD5, 0x5E, 0x00)):
        assert (pixels == color).all(axis=1).sum() > 300
    assert not (pixels == (0x56, 0xB4, 0xE9)).all(axis=1).any(), "snl has no rows"
    draw_curves([], ("none", "nl"), 4, tmp_path / "curves.png")  # before the first validation


@pytest.mark.parametrize(
    ("freedom", "two_sided_95", "two_sided_99"),
    # Student's table, e.g. Abramowitz & Stegun, table 26.10.
    [
        *((1, 12.706, 63.657), (2, 4.303, 9.925), (3, 3.182, 5.841), (4, 2.776, 4.604), (5, 2.571, 4.032)),
        *((9, 2.262, 3.250), (10, 2.228, 3.169), (30, 2.042, 2.750), (120, 1.980, 2.617)),
    ],
)
def test_t_quantiles_equal_published_tables(freedom: int, two_sided_95: float, two_sided_99: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(two_sided_95, abs=6e-4)
    assert t_quantile(0.995, freedom) == pytest.approx(two_sided_99, abs=6e-4)
    assert t_quantile(0.5, freedom) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 12])
def test_t_cdf_is_the_integral_of_the_density(freedom: int) -> None:
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    for end in (0.3, 1.0, 2.5, 6.0):
        x = np.linspace(0, end, 20001)
        density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        area = float(((density[1:] + density[:-1]) / 2).sum() * (x[1] - x[0]))
        assert t_cdf(end, freedom) == pytest.approx(0.5 + area, abs=1e-8)


def test_paired_difference_equals_numbers_computed_by_hand() -> None:
    # Differences 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, variance 7, standard error sqrt(7/3); t = 4.30265.
    half = 4.30265 * math.sqrt(7 / 3)
    found = paired_t([10.0, 20.0, 30.0], [11.0, 22.0, 36.0])
    assert found == pytest.approx({"mean": 3, "low": 3 - half, "high": 3 + half, "pairs": 3}, abs=1e-4)
    wider = paired_t([10.0, 20.0, 30.0], [11.0, 22.0, 36.0], confidence=0.99)
    assert wider["high"] == pytest.approx(3 + 9.92484 * math.sqrt(7 / 3), abs=1e-4)
    assert paired_t([0.1, 0.5, 0.9], [0.12, 0.52, 0.92])["low"] == pytest.approx(0.02), "the spread of seeds cancels"


def test_one_pair_has_no_interval() -> None:
    assert paired_t([0.5], [0.6]) == {"mean": pytest.approx(0.1), "low": None, "high": None, "pairs": 1}
