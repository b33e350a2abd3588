"""Rows into the table: means, spreads and differences over shared seeds, against numbers made by hand."""

from __future__ import annotations

import pytest

from dnl_video.studies.curves import draw_curves
from dnl_video.studies.summary import results_table, summarize

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


def test_figures_by_hand() -> None:
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


def test_the_table_as_text() -> None:
    lines = results_table(summarize(ROWS, ("none", "nl", "dnl")), COSTS).splitlines()
    assert lines[0] == "| context | parameters | GMACs | seeds | top-1, mean ± sd | minus `none` | minus `nl` |"
    assert lines[2] == "| `none` | 1,234,567 | 0.0456 | 3 | 60.0 ± 10.0 |  | -3.0 [-5.5, -0.5] |"
    assert lines[3] == "| `nl` | 1,234,567 | 0.0456 | 3 | 63.0 ± 11.0 | +3.0 [+0.5, +5.5] |  |"
    alone = results_table(summarize(ROWS[:1], ("none", "nl")), COSTS).splitlines()
    assert alone[2:] == ["| `none` | 1,234,567 | 0.0456 | 1 | 50.0 |  |  |"]


def test_curves_are_a_picture_with_each_context(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import numpy as np
    from PIL import Image

    draw_curves(ROWS, ("none", "nl", "dnl"), 4, tmp_path / "curves.png")
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).reshape(-1, 3)
    for color in ((0, 0, 0), (0xE6, 0x9F, 0x00), (0xD5, 0x5E, 0x00)):
        assert (pixels == color).all(axis=1).sum() > 300
    assert not (pixels == (0x56, 0xB4, 0xE9)).all(axis=1).any(), "snl has no rows"
