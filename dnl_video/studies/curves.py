"""Plot validation accuracy against epochs, one line for each context, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from dnl_video.report.figures import new_figure, percent_axis, save_png

# Colours of Okabe & Ito, "Color universal design", 2008, for any colour vision; markers for print without colour.
_STYLES = {
    "none": ("#000000", "o", "--"),
    "nl": ("#e69f00", "s", "-"),
    "snl": ("#56b4e9", "^", "-"),
    "gc": ("#009e73", "v", "-"),
    "pairwise": ("#cc79a7", "D", "-"),
    "unary": ("#0072b2", "P", "-"),
    "dnl": ("#d55e00", "X", "-"),
}
_FAINT = "#777777"
_SPREAD = 0.5  # the contexts are drawn side by side over this share of an epoch


def draw_curves(rows: Sequence[Mapping[str, Any]], contexts: Sequence[str], classes: int, path: Path) -> None:
    """Draw the mean over seeds as a line and the range as a bar, for each context.

    Args:
        rows: Finished runs, each with context and val_top1, a list of (epochs done, share).
        contexts: The contexts, in the order of the legend.
        classes: Number of classes, for the line of chance.
        path: The PNG to write.
    """
    figure, axes = new_figure(6.4, 3.8)
    for place, context in enumerate(contexts):
        by_epoch: dict[int, list[float]] = {}
        for row in rows:
            if row["context"] == context:
                for epoch, top1 in row["val_top1"]:
                    by_epoch.setdefault(epoch, []).append(top1)
        if not by_epoch:
            continue
        epochs = sorted(by_epoch)
        color, marker, line = _STYLES[context]
        x = [epoch + _SPREAD * (place - (len(contexts) - 1) / 2) / len(contexts) for epoch in epochs]
        middle = [sum(by_epoch[epoch]) / len(by_epoch[epoch]) for epoch in epochs]
        low, high = ([end(by_epoch[epoch]) for epoch in epochs] for end in (min, max))
        axes.vlines(x, low, high, color=color, linewidth=1.0)
        axes.plot(x, middle, color=color, marker=marker, linestyle=line, markersize=4.5, linewidth=1.3, label=context)
    axes.axhline(1 / classes, color=_FAINT, linewidth=0.8, linestyle=":")
    axes.annotate(
        "chance", (1, 1 / classes), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
        color=_FAINT, fontsize=8,
    )  # fmt: skip
    percent_axis(axes, "y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    axes.set_xlabel("epochs")
    axes.set_ylabel("validation top-1, mean and range over seeds")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_png(figure, path)
