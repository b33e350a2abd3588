"""Contact sheets: frames across, maps down, colour scales at the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dnl_video.visualize import panels
from dnl_video.visualize.clip import Clip, Query
from dnl_video.visualize.panels import Lines, Row, Scale

MOST_COLUMNS = 16
_LABEL_IN, _BAR_IN, _GAP_IN, _TITLES_IN, _FOOT_IN = 1.9, 1.0, 0.06, 0.42, 0.34
_WIDTH_IN, _LEAST_WIDTH_IN = 15.0, 7.0
_PANEL_IN = (0.95, 1.7)

Box = tuple[float, float, float, float]


def draw_sheet(
    clip: Clip,
    rows: Sequence[Row],
    queries: Sequence[Query],
    *,
    title: str,
    note: str = "",
    columns: int = MOST_COLUMNS,
) -> Figure:
    """Draw a contact sheet: the frames, and each row's maps below them.

    The columns are the time steps of the first row's map. If there are more than ``columns``, they are thinned evenly;
    the steps of the queries always stay. ``note`` is a line below the title.
    """
    height, width = clip.frames.shape[1:3]
    steps = _columns(rows[0], queries, columns)
    layout = _Layout.of(len(steps), len(rows), height / width, title, note)
    figure = panels.new_figure(layout.size, layout.heading)
    foot = ["circles mark the query points; the panel of a query's frame has a border"] if queries else []
    if len(steps) < len(rows[0].keys.frames):
        foot.append(f"{len(steps)} of {len(rows[0].keys.frames)} time steps shown")
    figure.text(0.12 / layout.size[0], 0.1 / layout.size[1], "; ".join(foot), fontsize=8, color="#444444")

    own = [panels.nearest_frame(steps, query.frame) for query in queries]
    _label(figure, layout, 0, "frames")
    for column, frame in enumerate(steps):
        axes = figure.add_axes(layout.box(0, column))
        panels.show(axes, clip.frames[frame])
        axes.set_title(f"frame {frame}\n{clip.seconds[frame]:.2f} s", fontsize=8, pad=3)
        for index, query in enumerate(queries):
            if own[index] == frame:
                panels.mark_query(axes, index, query, height, width, own=True, named=True)
    for line, row in enumerate(rows, 1):
        origin = "" if row.query is None else f"\nquery {panels.letter(row.query)}: {queries[row.query].origin}"
        _label(figure, layout, line, row.title + origin)
        for column, frame in enumerate(steps):
            axes = figure.add_axes(layout.box(line, column))
            panels.show(axes, panels.overlay(row, frame, clip.frames[frame]))
            if row.query is not None:
                panels.mark_query(axes, row.query, queries[row.query], height, width, own=own[row.query] == frame)
        _colour_bar(figure, layout.box(line, len(steps)), row.scale)
    return figure


@dataclass(frozen=True)
class _Layout:
    """Sizes and places in inches."""

    heading: Lines  # above the panels
    panel: tuple[float, float]  # width, height
    top: float  # from the upper edge to the first panels
    size: tuple[float, float]  # width, height of the figure

    @classmethod
    def of(cls, columns: int, rows: int, aspect: float, title: str, note: str) -> _Layout:
        room = (_WIDTH_IN - _LABEL_IN - _BAR_IN) / columns - _GAP_IN
        panel = min(max(room, _PANEL_IN[0]), _PANEL_IN[1])
        width = max(_LABEL_IN + columns * (panel + _GAP_IN) + _BAR_IN, _LEAST_WIDTH_IN)
        heading = panels.wrapped(title, width, 12) + panels.wrapped(note, width, 9)
        top = panels.heading_height(heading) + _TITLES_IN
        height = top + (1 + rows) * (panel * aspect + _GAP_IN) + _FOOT_IN
        return cls(heading, (panel, panel * aspect), top, (width, height))

    def box(self, line: int, column: int) -> Box:
        """Return a panel's left, bottom, width and height as shares of the figure."""
        left = _LABEL_IN + column * (self.panel[0] + _GAP_IN)
        bottom = self.size[1] - self.top - line * (self.panel[1] + _GAP_IN) - self.panel[1]
        return left / self.size[0], bottom / self.size[1], self.panel[0] / self.size[0], self.panel[1] / self.size[1]


def _label(figure: Figure, layout: _Layout, line: int, text: str) -> None:
    _, bottom, _, tall = layout.box(line, 0)
    figure.text((_LABEL_IN - 0.12) / layout.size[0], bottom + tall / 2, text, ha="right", va="center", fontsize=9)


def _columns(row: Row, queries: Sequence[Query], most: int) -> list[int]:
    """Return the frames of the clip that become columns."""
    frames = [int(f) for f in row.keys.frames]
    if len(frames) <= most:
        return frames
    kept = {frames[i] for i in np.linspace(0, len(frames) - 1, most).round().astype(int)}
    return sorted(kept | {panels.nearest_frame(frames, query.frame) for query in queries})


def _colour_bar(figure: Figure, panel: Box, scale: Scale) -> None:
    left, bottom, _, tall = panel
    width = 0.11 / figure.get_size_inches()[0]
    axes = figure.add_axes((left, bottom + 0.07 * tall, width, 0.86 * tall))  # separates the ticks of neighbours
    bar = figure.colorbar(ScalarMappable(Normalize(scale.low, scale.high), scale.colours), cax=axes)
    ticks = [scale.low, 0.0, scale.high] if scale.low < 0 else [0.0, scale.high]
    if scale.low == 0 and 1.6 < scale.high < 6:
        ticks = [0.0, 1.0, scale.high]  # uniform attention, if its tick has room
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    bar.ax.tick_params(labelsize=7, length=2, pad=2)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    bar.set_label(scale.unit, fontsize=7, labelpad=3)
