"""Contact sheets: frames across, maps down, colour scales at the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from dnl_video.visualize.clip import Clip
from dnl_video.visualize.panels import Row, Scale, coloured, stretched
from dnl_video.visualize.queries import Query

# Bright on the dark end of the maps and none of their colours.
QUERY_COLOURS = ("#00e5ff", "#76ff03", "#ff80ff", "#ffffff")
MOST_COLUMNS = 16
_LABEL_IN, _BAR_IN, _GAP_IN, _TOP_IN, _BOTTOM_IN = 1.9, 1.0, 0.06, 1.0, 0.34
_WIDTH_IN = 15.0


def draw_sheet(
    clip: Clip,
    rows: Sequence[Row],
    queries: Sequence[Query],
    *,
    title: str,
    note: str = "",
    columns: int = MOST_COLUMNS,
) -> Figure:
    """Draw a contact sheet: the frames, and below them each row's maps.

    Columns are the time steps of the first row's map, evenly thinned where there are more than ``columns``; those of
    the queries always stay.

    Args:
        clip: The frames.
        rows: The maps.
        queries: The query points that rows refer to.
        title: What the picture shows.
        note: A line below it.
        columns: Most columns.
    """
    height, width = clip.frames.shape[1:3]
    steps = _columns(rows[0], queries, columns)
    panel_w = min(max((_WIDTH_IN - _LABEL_IN - _BAR_IN) / len(steps) - _GAP_IN, 0.7), 1.7)
    panel_h = panel_w * height / width
    size = (
        _LABEL_IN + len(steps) * (panel_w + _GAP_IN) + _BAR_IN,
        _TOP_IN + (1 + len(rows)) * (panel_h + _GAP_IN) + _BOTTOM_IN,
    )
    figure = new_figure(size)
    figure.text(0.12 / size[0], 1 - 0.16 / size[1], title, va="top", fontsize=12, weight="bold")
    figure.text(0.12 / size[0], 1 - 0.42 / size[1], note, va="top", fontsize=9, color="#444444")
    omitted = len(rows[0].keys.frames) - len(steps)
    foot = ["circles mark the query; at its own frame it is filled and the panel framed"] if queries else []
    foot += [f"{len(steps)} of {len(steps) + omitted} time steps shown"] if omitted else []
    figure.text(0.12 / size[0], 0.1 / size[1], "; ".join(foot), fontsize=8, color="#444444")

    def box(line: int, column: float, w: float, h: float = panel_h) -> tuple[float, float, float, float]:
        left = _LABEL_IN + column * (panel_w + _GAP_IN)
        bottom = size[1] - _TOP_IN - (line + 1) * (panel_h + _GAP_IN) + _GAP_IN
        return left / size[0], bottom / size[1], w / size[0], h / size[1]

    def label(line: int, text: str, colour: str = "black") -> None:
        _, bottom, _, tall = box(line, 0, panel_w)
        figure.text(
            (_LABEL_IN - 0.12) / size[0], bottom + tall / 2, text, ha="right", va="center", fontsize=9, color=colour
        )

    own = [_nearest_step(steps, query.frame) for query in queries]
    label(0, "frames")
    for column, frame in enumerate(steps):
        axes = figure.add_axes(box(0, column, panel_w))
        show(axes, clip.frames[frame])
        axes.set_title(f"frame {frame}\n{clip.seconds[frame]:.2f} s", fontsize=8, pad=3)
        for index, query in enumerate(queries):
            if own[index] == frame:
                mark_query(axes, index, query, height, width, own=True, named=True)
    for line, row in enumerate(rows, 1):
        label(line, row_title(row, queries))
        for column, frame in enumerate(steps):
            axes = figure.add_axes(box(line, column, panel_w))
            show(axes, coloured(stretched(row, frame, height, width), clip.frames[frame], row.scale))
            if row.query is not None:
                mark_query(axes, row.query, queries[row.query], height, width, own=own[row.query] == frame)
        _colour_bar(figure, box(line, len(steps), 0.11), row.scale)
    return figure


def new_figure(size: tuple[float, float]) -> Figure:
    """Make a figure that belongs to nobody's global state."""
    figure = Figure(figsize=size, dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def show(axes: Any, image: Any) -> Any:
    """Fill axes with an image, a pixel of it a unit; return the artist."""
    axes.set_axis_off()
    return axes.imshow(image, aspect="auto")


def row_title(row: Row, queries: Sequence[Query]) -> str:
    """Return what is written beside a row."""
    if row.query is None:
        return row.title
    return f"{row.title}\nquery {letter(row.query)}: {queries[row.query].origin}"


def letter(index: int) -> str:
    """Return the name of a query in pictures: A, B, ..."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def mark_query(
    axes: Any, index: int, query: Query, height: int, width: int, *, own: bool, named: bool = False
) -> list[Any]:
    """Mark a query in a panel and return the artists.

    Args:
        axes: The panel.
        index: Number of the query: its colour and letter.
        query: Where it is.
        height: Pixels of the panel's image down.
        width: Pixels across.
        own: This is the query's own frame: the mark is filled and the panel framed.
        named: Write the query's letter beside.
    """
    colour = QUERY_COLOURS[index % len(QUERY_COLOURS)]
    y, x = query.pixel(height, width)
    outline = [withStroke(linewidth=3.0, foreground="black")]
    artists = axes.plot(
        [x],
        [y],
        "o",
        markersize=7 if own else 6,
        markerfacecolor=colour if own else "none",
        markeredgecolor=colour,
        markeredgewidth=1.4,
        path_effects=outline,
        clip_on=False,
        zorder=4,
    )
    if own:
        border = Rectangle(
            (-0.5, -0.5), width, height, fill=False, edgecolor=colour, linewidth=2.2, clip_on=False, zorder=3
        )
        artists.append(axes.add_patch(border))
    if named:
        side = "left" if query.x < 0.75 else "right"
        text = axes.annotate(
            letter(index),
            (x, y),
            xytext=(6 if side == "left" else -6, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            color=colour,
            weight="bold",
            path_effects=outline,
        )
        artists.append(text)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    return artists


def _columns(row: Row, queries: Sequence[Query], most: int) -> list[int]:
    """Return the clip's frames that become columns."""
    frames = [int(f) for f in row.keys.frames]
    if len(frames) <= most:
        return frames
    kept = {frames[i] for i in np.linspace(0, len(frames) - 1, most).round().astype(int)}
    kept |= {_nearest_step(frames, query.frame) for query in queries}
    return sorted(kept)


def _nearest_step(frames: Sequence[int], frame: int) -> int:
    return min(frames, key=lambda f: (abs(f - frame), f))


def _colour_bar(figure: Figure, box: tuple[float, float, float, float], scale: Scale) -> None:
    left, bottom, w, h = box
    axes = figure.add_axes((left, bottom + 0.07 * h, w, 0.86 * h))  # ticks of neighbours stay apart
    bar = figure.colorbar(ScalarMappable(Normalize(scale.low, scale.high), scale.colours), cax=axes)
    ticks = [scale.low, 0.0, scale.high] if scale.low < 0 else [0.0, scale.high]
    if scale.low == 0 and 1.6 < scale.high < 6:
        # What every key would get if all got the same, where its tick does not run into another.
        ticks = [0.0, 1.0, scale.high]
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    bar.ax.tick_params(labelsize=7, length=2, pad=2)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    bar.set_label(scale.unit, fontsize=7, labelpad=3)
