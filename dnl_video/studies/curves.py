"""Validation accuracy against epochs, one line a context, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dnl_video.report.figures import new_figure, percent_axis
from dnl_video.results.shards import write_atomically

# Okabe & Ito, "Color universal design", 2008: told apart with any colour vision; markers tell them apart in print.
_STYLES = {
    "none": ("#000000", "o", "--"),
    "nl": ("#e69f00", "s", "-"),
    "snl": ("#56b4e9", "^", "-"),
    "gc": ("#009e73", "v", "-"),
    "pairwise": ("#cc79a7", "D", "-"),
    "unary": ("#0072b2", "P", "-"),
    "dnl": ("#d55e00", "X", "-"),
}


def draw_curves(rows: Sequence[Mapping[str, Any]], contexts: Sequence[str], classes: int, path: Path) -> None:
    """Draw the mean over seeds, and the range as a band.

    Args:
        rows: Finished runs, each with context and val_top1, pairs of (epochs done, share).
        contexts: Which ones, in the order of the legend.
        classes: Classes of the task, for the line of chance.
        path: The PNG.
    """
    figure, axes = new_figure(6.4, 3.8)
    for context in contexts:
        by_epoch: dict[int, list[float]] = {}
        for row in rows:
            if row["context"] == context:
                for epoch, top1 in row["val_top1"]:
                    by_epoch.setdefault(epoch, []).append(top1)
        if not by_epoch:
            continue
        epochs = sorted(by_epoch)
        color, marker, line = _STYLES[context]
        middle = [sum(by_epoch[epoch]) / len(by_epoch[epoch]) for epoch in epochs]
        low, high = ([end(by_epoch[epoch]) for epoch in epochs] for end in (min, max))
        axes.fill_between(epochs, low, high, color=color, alpha=0.1, linewidth=0)
        axes.plot(epochs, middle, color=color, marker=marker, linestyle=line, markersize=4, label=context)
    axes.axhline(1 / classes, color="#888888", linewidth=0.8, linestyle=":")
    axes.annotate("chance", (1, 1 / classes), (0, 3), textcoords="offset points", color="#666666", fontsize=8)
    percent_axis(axes, "y")
    axes.set_xlabel("epochs")
    axes.set_ylabel("validation top-1, mean and range over seeds")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, facecolor="white")
    write_atomically(path, picture.getvalue())
