"""The attention explorer: what its page stores and, in Chromium, what it shows."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dnl_video.errors import InputError
from dnl_video.inference.predictor import Predictor
from dnl_video.visualize import explorer
from dnl_video.visualize.clip import Clip, Query
from dnl_video.visualize.examine import Examination
from dnl_video.visualize.explorer import explorer_page
from dnl_video.visualize.maps import BlockMaps, clip_maps
from tests.browser import Browser, chromium
from tests.visualize.planted import untrained

H, W = 72, 104  # the ninth row and the thirteenth column of res3 have no partner to be pooled with
BLOCKS = {"positions": {"res3": [1], "res4": [1]}, "temperature": 0.01}
PLACES = [(0, 0.01, 0.01), (7, 0.99, 0.9), (3, 0.4, 0.7), (5, 0.62, 0.13)]


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def clip() -> Clip:
    frames = np.random.default_rng(0).integers(0, 256, (8, H, W, 3), dtype=np.uint8)
    return Clip("noise.mp4", frames, np.arange(8) / 10, 0.8)


@pytest.fixture(scope="module")
def pair() -> list[tuple[str, Predictor]]:
    """Two networks whose grids differ in time, with maps that are far from uniform."""
    networks = [("DNL", untrained("slow_r50", "dnl", **BLOCKS)), ("NL", untrained("i3d_r50", "nl", **BLOCKS))]
    for _, predictor in networks:
        for name, module in predictor.network.named_modules():
            if name.endswith(("query", "unary")):
                module.weight.data *= 30
    return networks


def examination(networks: list[tuple[str, Predictor]], clip: Clip, *queries: Query) -> Examination:
    return Examination(clip, list(queries), [(name, clip_maps(one, clip, queries)) for name, one in networks])


@pytest.fixture(scope="module")
def file(pair: list[tuple[str, Predictor]], clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explorer, "_MOST_WEIGHTS", 200_000)  # four parts of the 936 queries of res3
        path.write_text(explorer_page(examination(pair, clip, Query(3, 0.5, 0.5))), encoding="utf-8")
    return path


def opened(page: Browser, file: Path, width: int = 1280, **options: bool) -> None:
    page.open(file, width, **options)
    settle(page)


def settle(page: Browser) -> None:
    """Wait until the maps are drawn."""
    end = time.monotonic() + 30
    drawn = "!planned && maps.length && maps.every(m => m.at >= 0) && $('stored').textContent.startsWith(state.block)"
    while not page.evaluate(drawn):
        assert time.monotonic() < end, page.problems
        time.sleep(0.02)


def point(page: Browser, place: tuple[int, float, float], view: int = 0, kind: str = "mouseMoved") -> None:
    """Move the mouse to a place of a frame in a strip: 0 is the strip of the frames, n that of map n."""
    frame, x, y = place
    left, top = page.evaluate(
        f"(() => {{ const canvas = views.filter(view => view.strip)[{view}].canvas; canvas.scrollIntoView();"
        "const box = canvas.getBoundingClientRect(), step = box.width / count;"
        f"return [box.left + {frame} * step + {x} * (step - GAP), box.top + {y} * (box.height - 0.01)]; }})()"
    )
    button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
    page.call("Input.dispatchMouseEvent", type=kind, x=left, y=top, **button)
    settle(page)


def shown_maps(page: Browser) -> dict[str, dict[str, Any]]:
    data = "({title, values}, i) => [title, {values: [...values], ...document.querySelectorAll('.bar')[i]"
    return dict(page.evaluate(f"maps.map({data}.previousSibling.dataset}}])"))


def entropy(weights: np.ndarray) -> float:
    weights = weights[weights > 0].astype(np.float64)
    return float(-(weights * np.log(weights)).sum())


def exact_maps(pair: list[tuple[str, Predictor]], clip: Clip, block: str, place: tuple[int, float, float]) -> Any:
    dnl, nl = (clip_maps(one, clip, [Query(*place)]).blocks[block] for _, one in pair)
    total = dnl.pairwise[0] + dnl.unary
    return {
        "DNL: whitened pairwise": (dnl.pairwise[0], dnl, 1),
        "DNL: unary": (dnl.unary, dnl, 1),
        "DNL: sum": (total, dnl, 2),
        "NL: coupled": (nl.pairwise[0], nl, 1),
    }


def key_of(maps: BlockMaps, place: tuple[int, float, float]) -> tuple[int, ...]:
    centres = (maps.keys.frames, maps.keys.rows, maps.keys.columns)
    wanted = (place[0], place[2] * H - 0.5, place[1] * W - 0.5)
    return tuple(min(range(len(c)), key=lambda i: abs(c[i] - w)) for c, w in zip(centres, wanted, strict=True))


@pytest.mark.parametrize("block", ["res3.1", "res4.1"])
def test_pointing_at_a_frame_shows_the_maps_of_that_query(page, file, pair, clip, block):
    opened(page, file)
    page.evaluate(f"choose('{block}')")
    settle(page)
    for place in PLACES:
        point(page, place)
        found, expected = shown_maps(page), exact_maps(pair, clip, block, place)
        assert list(found) == list(expected)
        for title, (weights, _, total) in expected.items():
            assert weights.sum() == pytest.approx(total, abs=1e-5)
            m, largest = weights.size, float(weights.max())
            assert largest > 1.5 * total / m  # a uniform map would agree with any other
            np.testing.assert_allclose(found[title]["values"], weights.ravel(), rtol=0, atol=largest / 255)
            assert float(found[title]["largest"]) == pytest.approx(largest, rel=0.01)
            assert float(found[title]["entropy"]) == pytest.approx(entropy(weights / total) / np.log(m), abs=1e-4)
            assert sum(found[title]["values"]) == pytest.approx(total, abs=m * largest / 255)
    assert page.problems == []


def test_pointing_at_a_map_shows_the_number_of_the_key(page, file, pair, clip):
    opened(page, file)
    query = PLACES[2]
    for kind in ("mousePressed", "mouseReleased"):
        point(page, query, kind=kind)
    expected = exact_maps(pair, clip, "res3.1", query)
    for view, place in enumerate([(1, 0.3, 0.2), (6, 0.72, 0.8), (3, 0.1, 0.5)], 1):
        point(page, place, view)
        for title, found in shown_maps(page).items():
            weights, maps, _ = expected[title]
            assert float(found["here"]) == pytest.approx(weights[key_of(maps, place)], abs=float(weights.max()) / 255)
        pooled = expected["DNL: sum"][0]
        (text,) = page.evaluate("[...document.querySelectorAll('figure')].slice(3, 4).map(f => f.innerText)")
        assert "at the pointer" in text
        assert f"largest\n{pooled.max() * pooled.size:.3g}"[:12] in text
    point(page, (2, 0.5, 0.99), 1)
    assert {found["here"] for found in shown_maps(page).values()} == {""}  # the last row of pixels has no key
    point(page, (5, 0.5, 0.2))
    assert page.evaluate("[state.query[0], state.hover[0]]") == [3, 5]  # pointing elsewhere keeps the query


def test_thinned_queries(page, pair, clip, tmp_path, monkeypatch):
    """A small page has fewer queries, says so, and shows the nearest query that it has."""
    full = explorer_page(examination(pair[:1], clip))
    monkeypatch.setattr(explorer, "MAX_PAGE_BYTES", limit := int(len(full) * 0.6))
    file = tmp_path / "small.html"
    file.write_text(explorer_page(examination(pair[:1], clip)), encoding="utf-8")
    assert 0.8 * limit < file.stat().st_size <= limit
    opened(page, file)
    for kept, full_count in zip(page.evaluate("[asked.rows, asked.columns]"), (9, 13), strict=True):
        assert set(kept) < {8.0 * i for i in range(full_count)}
        assert 8 <= min(np.diff(kept)) <= max(np.diff(kept)) <= 16
        assert max(kept[0], 8 * (full_count - 1) - kept[-1]) <= 8
    rows, columns = page.evaluate("[asked.rows, asked.columns]")
    note = f"res3.1: DNL has 8 \u00d7 {len(rows)} \u00d7 {len(columns)} of 8 \u00d7 9 \u00d7 13 queries"
    assert note in page.evaluate("$('stored').textContent")
    point(page, (2, 0.45, 0.5))
    row, column = (
        min(rows, key=lambda y: abs(y - (0.5 * H - 0.5))),
        min(columns, key=lambda x: abs(x - (0.45 * W - 0.5))),
    )
    block = clip_maps(pair[0][1], clip, []).blocks["res3.1"]
    index = np.ravel_multi_index((2, int(row) // 8, int(column) // 8), (8, 9, 13))
    exact = block.block.attention_maps(block.x, torch.tensor([index])).pairwise[0, 0].detach().numpy()
    np.testing.assert_allclose(shown_maps(page)["DNL: whitened pairwise"]["values"], exact, atol=exact.max() / 255)
    monkeypatch.setattr(explorer, "MAX_PAGE_BYTES", 50_000)
    with pytest.raises(InputError, match=r"over 0\.05 MB, its limit; name fewer blocks"):
        explorer_page(examination(pair[:1], clip))


@pytest.mark.parametrize(
    ("architecture", "context", "terms", "frames"),
    [
        ("slow_r50", "nl", ["coupled"], 8),
        ("slow_r50", "pairwise", ["whitened pairwise"], 8),
        ("slow_r50", "unary", ["unary"], 8),
        ("slow_r50", "gc", ["unary"], 8),
        ("slowfast_r50", "dnl", ["whitened pairwise", "unary", "sum"], 2),
    ],
)
def test_blocks_show_the_maps_that_they_have(page, clip, tmp_path, architecture, context, terms, frames):
    network = untrained(architecture, context, positions={"res3": [1]})
    queries = [] if terms == ["unary"] else [Query(7, 0.5, 0.5)]
    # The name must not end the data, nor become markup.
    file = tmp_path / "page.html"
    name = "</script><b>&"
    file.write_text(explorer_page(examination([(name, network)], clip, *queries)), encoding="utf-8")
    opened(page, file)
    assert page.evaluate("maps.map(map => map.title)") == [f"{name}: {term}" for term in terms]
    assert page.evaluate("[count, pictures.length, document.querySelectorAll('b').length]") == [frames, frames, 0]
    assert page.evaluate("state.frame") == (frames - 1 if queries else 0)
    point(page, (1, 0.5, 0.5))
    assert page.evaluate("maps[0].values.reduce((a, b) => a + b)") == pytest.approx(1, abs=0.01)
    assert page.evaluate("document.querySelector('.frame dl').innerText").startswith(
        "query\nframe 7" if frames == 2 else "query\nframe 1" if queries else "query\nthe same for all"
    )
    for key in ("ArrowLeft", " ", "."):
        page.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    assert page.problems == []


def test_keys(page, file):
    opened(page, file)

    def press(key: str, shift: bool = False) -> Any:
        page.call("Input.dispatchKeyEvent", type="keyDown", key=key, modifiers=8 if shift else 0)
        settle(page)
        return page.evaluate("[locate(asked, state.query), state.query[0], state.frame]")

    start = page.evaluate("locate(asked, state.query)")
    assert press("ArrowRight")[0]["c"] == start["c"] + 1
    assert press("ArrowUp")[0]["r"] == start["r"] - 1
    assert press("ArrowLeft")[0]["index"] == start["index"] - 13
    assert press("ArrowDown")[0] == start
    assert press("ArrowLeft", shift=True)[1:] == [2, 2]
    assert press(".")[1:] == [2, 3]
    assert press(",")[1:] == [2, 2]
    for _ in range(20):
        at = press("ArrowRight")
    assert at[0]["c"] == 12  # the edge
    press(" ")
    assert page.evaluate("$('play').textContent") == "Pause"
    end = time.monotonic() + 10
    while page.evaluate("state.frame") == 2:
        assert time.monotonic() < end
    press(" ")
    assert page.evaluate("$('play').textContent") == "Play"
    page.evaluate("$('tabs').firstChild.focus()")
    press("ArrowRight")
    settle(page)
    assert page.evaluate("[document.activeElement.textContent, state.block]") == ["res4.1"] * 2
    assert page.evaluate("[...document.querySelectorAll('[aria-selected=true]')].map(tab => tab.textContent)") == [
        "res4.1"
    ]
    order = (
        "[...document.querySelectorAll('button, input, canvas, #strips')].filter(e => e.tabIndex === 0).map(e => e.id)"
    )
    assert page.evaluate(order) == ["", "", "play", "back", "next", "time", "strips"]


def test_touch(page, file):
    """A finger on the frame moves the query; a tap on a map shows its number."""
    opened(page, file, 390)
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        for part, (x, y) in ((0, (0.25, 0.75)), (2, (0.5, 0.5))):
            at = page.evaluate(
                f"(() => {{ const box = views[{part}].canvas.getBoundingClientRect();"
                f"return [box.left + {x} * box.width, box.top + {y} * box.height]; }})()"
            )
            page.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": at[0], "y": at[1]}])
            page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            settle(page)
    finally:
        page.call("Emulation.setTouchEmulationEnabled", enabled=False)
    assert page.evaluate("[state.query[0], state.query[1], state.query[2]]") == [
        3,
        pytest.approx(0.25, abs=0.01),
        pytest.approx(0.75, abs=0.01),
    ]
    assert page.evaluate("state.pointer") == [3, pytest.approx(0.5, abs=0.01), pytest.approx(0.5, abs=0.01)]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_fits_without_console_errors(page, file, width, dark):
    opened(page, file, width, dark=dark)
    assert page.problems == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate("pictures.every(picture => picture.complete && picture.naturalWidth > 0)")
    sizes = page.evaluate(
        "views.filter(view => !view.strip).map(view => [view.canvas.clientWidth, view.canvas.clientHeight])"
    )
    assert all(wide >= 150 and tall == pytest.approx(wide * H / W, abs=2) for wide, tall in sizes)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(17, 17, 17)" if dark else "rgb(255, 255, 255)")


def test_the_page_is_one_file(file):
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"https?://", text)
    assert set(re.findall(r'src="(.{11})', text)) == {"data:image/"}
    stored = json.loads(re.search(r'id="res4.1">(.*?)</script>', text)[1])
    assert [one["title"] for one in stored] == ["DNL", "NL"]
