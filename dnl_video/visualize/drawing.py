"""What contact sheets and animations share: figures, their headings, and the marks of queries."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from dnl_video.visualize.queries import Query

# Bright on the dark end of the maps and none of their colours.
QUERY_COLOURS = ("#00e5ff", "#76ff03", "#ff80ff", "#ffffff")
_MARGIN_IN = 0.12


def new_figure(size: tuple[float, float]) -> Figure:
    """Make a figure that belongs to nobody's global state."""
    figure = Figure(figsize=size, dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def wrapped(text: str, wide: float, points: float) -> list[str]:
    """Break a heading into lines that fit a figure ``wide`` inches across."""
    # A character is 0.6 of the size wide on average, bold ones included; 72 points are an inch.
    return textwrap.wrap(text, max(int((wide - 2 * _MARGIN_IN) * 72 / (0.6 * points)), 20))


def heading_height(lines: Sequence[tuple[str, float]]) -> float:
    """Return the inches that heading lines (text, points) take."""
    return _MARGIN_IN + sum(1.5 * points / 72 for _, points in lines)


def write_heading(figure: Figure, lines: Sequence[tuple[str, float]]) -> None:
    """Write lines (text, points) at the top left; the largest are bold."""
    wide, tall = figure.get_size_inches()
    y = tall - _MARGIN_IN
    for text, points in lines:
        weight, colour = ("bold", "black") if points > 10 else ("normal", "#444444")
        figure.text(_MARGIN_IN / wide, y / tall, text, va="top", fontsize=points, weight=weight, color=colour)
        y -= 1.5 * points / 72


def show(axes: Any, image: Any) -> Any:
    """Fill axes with an image, a pixel of it a unit; return the artist."""
    axes.set_axis_off()
    return axes.imshow(image, aspect="auto")


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
        own: This is the query's own frame, and the panel gets a border.
        named: Fill the mark and write the query's letter beside; in a map it must not hide what it marks.
    """
    colour = QUERY_COLOURS[index % len(QUERY_COLOURS)]
    y, x = query.pixel(height, width)
    outline = [withStroke(linewidth=3.0, foreground="black")]
    artists = axes.plot(
        [x],
        [y],
        "o",
        markersize=8 if own else 6,
        markerfacecolor=colour if named else "none",
        markeredgecolor=colour,
        markeredgewidth=1.8 if own else 1.4,
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
