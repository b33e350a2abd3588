from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dnl_video.visualize.clip import Query
from dnl_video.visualize.maps import Positions, clip_maps
from dnl_video.visualize.panels import Row, Scale, attention_rows, coloured, logit_rows, stretched
from tests.visualize.planted import dnl_block, nl_block, planted_clip, redness_network

ATTENTION = Scale(0.0, 4.0, "inferno", "attention")
LOGITS = Scale(-2.0, 2.0, "RdBu_r", "logit")


def row_of(values: np.ndarray, *, spacing: float, offset: float, end: tuple[float, float]) -> Row:
    frames, height, width = values.shape
    centres = [offset + spacing * np.arange(n) for n in (height, width)]
    return Row("", values, Positions(2.0 * np.arange(frames) + 0.5, *centres, end), ATTENTION, None)


def test_stretching_is_bilinear():
    """If cells cover the frame, torch's interpolation gives the same."""
    values = np.random.default_rng(0).random((2, 5, 7)).astype(np.float32)
    row = row_of(values, spacing=8, offset=3.5, end=(40, 56))
    expected = F.interpolate(torch.from_numpy(values)[None], size=(40, 56), mode="bilinear")[0].numpy()
    for frame, step in ((0, 0), (1, 0), (2, 1), (3, 1), (9, 1)):
        np.testing.assert_allclose(stretched(row, frame, 40, 56), expected[step], atol=1e-6)


def test_pixels_without_a_key_are_nan():
    row = row_of(np.ones((1, 2, 3), dtype=np.float32), spacing=16, offset=4, end=(32, 48))
    image = stretched(row, 0, 35, 49)
    assert np.isnan(image[32:]).all()
    assert np.isnan(image[:, 48:]).all()
    np.testing.assert_allclose(image[:32, :48], 1)


def test_colours():
    frame = np.full((1, 4, 3), 255, dtype=np.uint8)
    panel = coloured(np.array([[0.0, 2.0, 4.0, np.nan]]), frame, ATTENTION)
    grey = round(255 * 0.65)
    np.testing.assert_array_equal(panel[0, [0, 3]], np.full((2, 3), grey))  # no weight or no key: the grey frame
    np.testing.assert_allclose(panel[0, 2], 0.1 * grey + 0.9 * np.array([252, 255, 164]), atol=1.5)  # inferno's end
    signed = coloured(np.array([[-2.0, 0.0, 2.0, np.nan]]), frame, LOGITS)[0].astype(int)
    assert signed[0, 2] > signed[0, 0] + 40  # below: blue
    assert np.ptp(signed[1]) <= 2  # at zero: neither
    assert signed[2, 0] > signed[2, 2] + 40  # above: red
    flat = coloured(np.zeros((1, 4)), frame, Scale(0.0, 0.0, "inferno", ""))
    np.testing.assert_array_equal(flat, np.full((1, 4, 3), grey))


@pytest.mark.parametrize("pool", [None, (1, 2, 2)])
@pytest.mark.parametrize(("kernel", "padding", "centre"), [(8, 0, 4), (7, 3, 0)])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 104), (65, 99)])
def test_the_panel_is_brightest_at_the_planted_place(pool, kernel, padding, centre, height, width):
    """For odd sizes, oblong frames, both alignments of features with the frame, and pooled keys."""
    y, x = 24 + centre, 40 + centre
    clip = planted_clip(height, width, frame=1, row=y, column=x)
    queries = [Query(1, (x + 0.5) / width, (y + 0.5) / height)]
    networks = [("DNL", dnl_block(pool)), ("NL", nl_block(pool))]
    found = [
        (name, clip_maps(redness_network(b, kernel=kernel, padding=padding), clip, queries).blocks["res2.0"])
        for name, b in networks
    ]
    rows = attention_rows(found, queries)
    assert [row.title for row in rows] == ["DNL: unary", "DNL: whitened pairwise", "NL: coupled"]
    for row in rows:
        panels = [coloured(stretched(row, t, height, width), clip.frames[t], row.scale) for t in range(4)]
        brightness = np.stack(panels).astype(int).sum(axis=3)
        t, py, px = np.unravel_index(brightness.argmax(), brightness.shape)
        # The square fills one position; of pooled keys the centre is up to half a position away.
        reach = 1 if pool is None else 5
        assert t == 1
        assert abs(py - y) <= reach
        assert abs(px - x) <= reach


def test_scales_and_order():
    clip = planted_clip(64, 64, frame=1, row=28, column=44)
    queries = [Query(1, 44 / 64, 28 / 64), Query(3, 0.1, 0.1)]
    block = clip_maps(redness_network(nl_block(None), kernel=8, padding=0), clip, queries).blocks["res2.0"]
    rows = attention_rows([("NL (1)", block), ("NL (2)", block)], queries)
    assert [(row.title, row.query) for row in rows] == [
        ("NL (1): coupled", 0),
        ("NL (2): coupled", 0),
        ("NL (1): coupled", 1),
        ("NL (2): coupled", 1),
    ]
    # Weights times M have the mean 1: 1 is uniform.
    assert all(row.values.mean() == pytest.approx(1, abs=1e-4) for row in rows)
    assert all((row.scale.low, row.scale.high) == (0, row.values.max()) for row in rows[:2])
    # The other query attends evenly; its scale still reaches twice uniform.
    assert rows[2].values.max() < 2
    assert rows[2].scale.high == 2
    parts = logit_rows(block, queries)
    assert [row.title.splitlines()[0] for row in parts] == [
        "unary logits",
        "whitened pairwise logits",
        "coupled attention",
        "whitened pairwise logits",
        "coupled attention",
    ]
    limits = {(row.scale.low, row.scale.high) for row in parts if "logits" in row.title}
    ((low, high),) = limits
    assert low == -high
    assert high == max(np.abs(row.values).max() for row in parts if "logits" in row.title)
    shares = [int(parts[i].title.splitlines()[1].partition("%")[0]) for i in (0, 1)]
    assert 99 <= sum(shares) <= 101
