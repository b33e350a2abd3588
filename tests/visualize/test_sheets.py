from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dnl_video.visualize.clip import Query
from dnl_video.visualize.maps import clip_maps
from dnl_video.visualize.panels import QUERY_COLOURS, attention_rows, letter
from dnl_video.visualize.sheets import draw_sheet
from tests.visualize.planted import dnl_block, planted_clip, redness_network

HEIGHT, WIDTH = 72, 104
QUERIES = [Query(2, 44.5 / WIDTH, 28.5 / HEIGHT, "planted"), Query(0, 0.8, 0.25, "elsewhere")]


def sheet(num_frames: int = 4, **options: Any) -> Figure:
    clip = planted_clip(HEIGHT, WIDTH, frame=2, row=28, column=44, num_frames=num_frames)
    maps = clip_maps(redness_network(dnl_block(None), kernel=8, padding=0), clip, QUERIES)
    rows = attention_rows([("DNL", maps.blocks["res2.0"])], QUERIES)
    return draw_sheet(clip, rows, QUERIES, title="title", **options)


def pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def panel(image: np.ndarray, axes: Any) -> np.ndarray:
    box = axes.get_window_extent()
    top, bottom = image.shape[0] - box.y1, image.shape[0] - box.y0
    return image[round(top) : round(bottom), round(box.x0) : round(box.x1)]


def place_of(mask: np.ndarray) -> tuple[float, float]:
    """Middle of the marked pixels as (x, y) in shares of the panel."""
    rows, columns = np.nonzero(mask)
    return (columns.mean() + 0.5) / mask.shape[1], (rows.mean() + 0.5) / mask.shape[0]


def coloured_like(image: np.ndarray, colour: str) -> np.ndarray:
    return np.abs(image.astype(int) - np.round(255 * np.array(to_rgb(colour)))).max(axis=2) < 25


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_every_panel_has_a_mark_and_the_frame_of_the_query_a_border():
    figure = sheet()
    image = pixels(figure)
    # Frames row: 4 panels; unary, A and B: 4 panels and a colour bar each.
    assert len(figure.axes) == 4 + 3 * 5
    for index, query in enumerate(QUERIES):
        row = figure.axes[4 + 5 * (index + 1) :][:4]
        for column, axes in enumerate(row):
            shown = panel(image, axes)
            marked = coloured_like(shown, QUERY_COLOURS[index])
            inside = marked[6:-6, 6:-6]
            assert inside.any()
            x, y = place_of(np.pad(inside, 6))
            assert abs(x - query.x) < 0.03
            assert abs(y - query.y) < 0.03
            framed = marked[:, :2].mean() > 0.9 and marked[:2].mean() > 0.9
            assert framed == (column == query.frame)
            # The mark is a ring; the map inside stays visible.
            assert not marked[round(query.y * shown.shape[0]), round(query.x * shown.shape[1])]
    unary = [panel(image, axes) for axes in figure.axes[4:8]]
    assert not any(coloured_like(p, colour).any() for p in unary for colour in QUERY_COLOURS[:2])


def test_the_picture_is_brightest_where_the_map_is():
    figure = sheet()
    image = pixels(figure)
    unary = [panel(image, axes).astype(int).sum(axis=2) for axes in figure.axes[4:8]]
    assert int(np.argmax([p.max() for p in unary])) == 2
    row, column = np.unravel_index(unary[2].argmax(), unary[2].shape)
    assert abs((column + 0.5) / unary[2].shape[1] - 44 / WIDTH) < 1.5 / WIDTH
    assert abs((row + 0.5) / unary[2].shape[0] - 28 / HEIGHT) < 1.5 / HEIGHT
    # Panels have the frame's shape.
    assert unary[2].shape[1] / unary[2].shape[0] == pytest.approx(WIDTH / HEIGHT, rel=0.02)


def test_texts():
    figure = sheet(note="a note")
    written = texts(figure)
    assert written == [
        "title",
        "a note",
        "circles mark the query points; the panel of a query's frame has a border",
        "frames",
        "DNL: unary",
        "DNL: whitened pairwise\nquery A: planted",
        "DNL: whitened pairwise\nquery B: elsewhere",
    ]
    assert [axes.get_title() for axes in figure.axes[:4]] == [f"frame {i}\n{i / 10:.2f} s" for i in range(4)]
    for bar in (figure.axes[8], figure.axes[13], figure.axes[18]):
        assert bar.get_ylabel() == "attention \u00d7 M\n1 = uniform"
    assert [text.get_text() for axes in figure.axes[:4] for text in axes.texts] == ["B", "A"]  # frames 0 and 2
    assert letter(25) == "Z"
    assert letter(26) == "27"


def test_long_clips_are_thinned_but_keep_the_frames_of_queries():
    figure = sheet(num_frames=9, columns=3)
    titles = [axes.get_title().splitlines()[0] for axes in figure.axes if axes.get_title()]
    assert titles == ["frame 0", "frame 2", "frame 4", "frame 8"]
    assert any(text.endswith("; 4 of 9 time steps shown") for text in texts(figure))
