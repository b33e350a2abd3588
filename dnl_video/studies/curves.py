"""Plot validation accuracy against epochs, one panel for each context, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from dnl_video.report.figures import percent_axis, save_png, small_multiples

# Colours of Okabe & Ito, "Color universal design", 2008, for any colour vision.
_COLORS = {
    "none": "#000000",
    "nl": "#e69f00",
    "snl": "#56b4e9",
    "gc": "#009e73",
    "pairwise": "#cc79a7",
    "unary": "#0072b2",
    "dnl": "#d55e00",
}
_FAINT = "#bbbbbb"


def draw_curves(rows: Sequence[Mapping[str, Any]], contexts: Sequence[str], classes: int, path: Path) -> None:
    """Draw the mean over seeds as a line and the range as a bar, and faintly the means of the other contexts.

    Args:
        rows: Finished runs, each with context and val_top1, a list of (epochs done, share).
        contexts: The contexts, in the order of the panels.
        classes: Number of classes, for the line of chance.
        path: The PNG to write.
    """
    values: dict[str, dict[int, list[float]]] = {}
    for name in contexts:
        for epoch, top1 in (point for row in rows if row["context"] == name for point in row["val_top1"]):
            values.setdefault(name, {}).setdefault(epoch, []).append(top1)
    means = {name: sorted((e, sum(v) / len(v)) for e, v in found.items()) for name, found in values.items()}
    figure, panels = small_multiples(list(values) or [""], 1.4)
    for axes, name in zip(panels, values, strict=False):
        for line in means.values():
            axes.plot(*zip(*line, strict=True), color=_FAINT, linewidth=0.8)
        for epoch, found in values[name].items():
            axes.vlines(epoch, min(found), max(found), color=_COLORS[name], linewidth=1.2)
        axes.plot(*zip(*means[name], strict=True), color=_COLORS[name], marker="o", markersize=3.5)
        axes.axhline(1 / classes, color=_FAINT, linewidth=0.8, linestyle=":")
        percent_axis(axes, "y")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    figure.supxlabel("epochs; grey: the other contexts; dotted: chance", fontsize=9)
    figure.supylabel("validation top-1, mean and range over seeds", fontsize=9)
    save_png(figure, path)
