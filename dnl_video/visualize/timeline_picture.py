"""A picture of a long video: the scores of its leading classes over seconds, and its segments below."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dnl_video.files import write_atomic
from dnl_video.inference.segments import Timeline, condense, find_segments, leading_classes

_OTHER = "#c7c7c7"
_MINUTES_FROM_S = 120.0
# More steps than this across the page hide each other.
_MOST_CELLS = 150


def draw_timeline(timeline: Timeline, class_names: Sequence[str], *, title: str = "", k: int = 5) -> Figure:
    """Draw the k leading classes (see `leading_classes`): their scores as steps over seconds, and who is best when.

    A timeline of over 150 cells is drawn as 150 means, and the axis says so.

    Args:
        timeline: Scores along time.
        class_names: Names of the K classes.
        title: What stands above, such as the file's name.
        k: Classes with a colour of their own, 10 at most; all others share grey.
    """
    leaders = leading_classes(timeline, min(k, 10))
    colours = dict(zip(leaders, mpl.colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
    figure = Figure(figsize=(11, 4), layout="constrained")
    curves, strip = figure.subplots(2, 1, sharex=True, height_ratios=[6, 1])
    label = "score"
    if len(timeline.scores) > _MOST_CELLS:
        timeline = condense(timeline, _MOST_CELLS)
        label = f"score, mean of {timeline.edges[1] - timeline.edges[0]:.3g} s"
    edges = timeline.edges
    for index in leaders:
        curves.stairs(timeline.scores[:, index], edges, color=colours[index], linewidth=1.8, baseline=None)
    curves.set(ylabel=label, ylim=(0, 1.02), xlim=(edges[0], edges[-1]))
    curves.grid(alpha=0.3)
    curves.set_title(title, loc="left", fontsize=10)
    _draw_strip(strip, timeline, colours)
    _label_seconds(strip, float(edges[-1]))
    legend = [Patch(color=colours[index], label=_shortened(class_names[index])) for index in leaders]
    if set(timeline.scores.argmax(axis=1).tolist()) - set(leaders):
        legend.append(Patch(color=_OTHER, label="other classes"))
    figure.legend(handles=legend, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all; the suffix (.png or .svg) chooses the format.

    Raises:
        InputError: The file cannot be written.
    """
    picture = io.BytesIO()
    # No date, so that the same scores give the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(picture, format=path.suffix.removeprefix("."), dpi=120, metadata=metadata)
    write_atomic(path, picture.getvalue())


def _draw_strip(axes: Axes, timeline: Timeline, colours: dict[int, tuple[float, ...]]) -> None:
    for segment in find_segments(timeline):
        # The gap to the next segment is drawn, not in the data: two neighbours of one grey are still two.
        axes.axvspan(
            segment.start_s, segment.end_s, color=colours.get(segment.class_index, _OTHER), linewidth=0.4, ec="white"
        )
    axes.set_yticks([])
    axes.set_ylabel("best", rotation=0, ha="right", va="center")


def _label_seconds(axes: Axes, end_s: float) -> None:
    if end_s < _MINUTES_FROM_S:
        axes.set_xlabel("seconds")
        return
    axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda second, _: clock(second)))
    axes.set_xlabel("h:mm:ss" if end_s >= 3600 else "minutes:seconds")


def clock(second: float) -> str:
    """Return a moment as m:ss or h:mm:ss."""
    minutes, seconds = divmod(int(second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _shortened(name: str, length: int = 32) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
