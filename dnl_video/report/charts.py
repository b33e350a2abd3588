"""The charts of a report and of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dnl_video.report.document import Chart, difference_text, percent
from dnl_video.report.figures import (
    COLORS,
    INK,
    error_bars,
    interval_bars,
    new_figure,
    percent_axis,
    plain,
    small_multiples,
)

_MOST_BARS = 40  # with more classes, only the best and the worst have a bar
_MOST_NUMBERS = 16  # with more classes, the confusion matrix has no numbers
_MOST_NAMES = 40  # with more classes, the confusion matrix has no names
_ENDS = 20  # best and worst classes shown of many
_ZOOMED = 12  # classes in the zoom into a large confusion matrix
_BLUE = np.array([0x1F, 0x5F, 0xBF]) / 255  # behind numbers
_BRIGHT = np.array([0x3D, 0x86, 0xE0]) / 255  # of single pixels, on light and on dark pages


def num_clips_chart(by_num_clips: Sequence[dict[str, Any]]) -> Chart:
    """Return top-1 accuracy against the number of clips with its 95 % band."""
    k = [point["num_clips"] for point in by_num_clips]
    value, low, high = ([point["top1"][key] for point in by_num_clips] for key in ("value", "low", "high"))
    figure, axes = new_figure()
    axes.fill_between(k, low, high, color=COLORS[0], alpha=0.2, linewidth=0)
    axes.plot(k, value, color=COLORS[0], marker="o", markersize=3.5)
    margin = 0.15 * (max(high) - min(low)) + 1e-3
    percent_axis(axes, "y", max(0.0, min(low) - margin), min(1.0, max(high) + margin))
    axes.set(xlabel="clips per video (evenly spaced)", ylabel="top-1")
    if len(k) > 12:
        axes.xaxis.set_major_locator(_whole_numbers())
    else:
        axes.set_xticks(k)
    alt = f"Line: top-1 is {percent(value[0])} with one clip and {percent(value[-1])} with {k[-1]} clips."
    caption = "Top-1 of the mean over k clips of each video; the band is the 95% interval."
    return Chart(figure, "by-num-clips", alt, caption)


def class_charts(report: dict[str, Any]) -> list[Chart]:
    """Return the accuracy of each class; of many classes the sorted curve, the worst and the best."""
    rows = sorted((c for c in report["per_class"] if c["videos"]), key=lambda c: (-c["accuracy"], c["index"]))
    if not rows:
        return []
    if len(rows) <= _MOST_BARS:
        return [_bars(rows, "classes", "Top-1 accuracy of each class with its 95% interval, best first.")]
    return [
        _sorted_curve(rows),
        _bars(rows[-_ENDS:], "worst-classes", f"The {_ENDS} least accurate classes, worst last."),
        _bars(rows[:_ENDS], "best-classes", f"The {_ENDS} most accurate classes, best first."),
    ]


def _bars(rows: Sequence[dict[str, Any]], name: str, caption: str) -> Chart:
    figure, axes = new_figure(height=0.22 * len(rows) + 0.6)
    values, low, high = ([row[key] for row in rows] for key in ("accuracy", "low", "high"))
    interval_bars(axes, [row["name"] for row in rows], values, low, high)
    percent_axis(axes, "x")
    ends = " to ".join(f"{row['name']} ({percent(row['accuracy'])})" for row in (rows[0], rows[-1]))
    alt = f"Bars: top-1 of {len(rows)} classes, from {ends}. The table of classes has the numbers."
    return Chart(figure, name, alt, caption)


def _sorted_curve(rows: Sequence[dict[str, Any]]) -> Chart:
    values, low, high = (np.array([row[key] for row in rows]) for key in ("accuracy", "low", "high"))
    figure, axes = new_figure()
    place = np.arange(1, len(rows) + 1)
    axes.fill_between(place, low, high, color=COLORS[0], alpha=0.2, linewidth=0, step="mid")
    axes.step(place, values, color=COLORS[0], where="mid")
    percent_axis(axes, "y")
    axes.set(xlim=(1, len(rows)), xlabel="classes, most accurate first", ylabel="top-1")
    middle = percent(float(np.median(values)))
    alt = f"Curve: top-1 of {len(rows)} classes sorted, {percent(values[0])} to {percent(values[-1])}, median {middle}."
    return Chart(figure, "all-classes", alt, f"Top-1 accuracy of all {len(rows)} classes, sorted, with 95% intervals.")


def confusion_charts(report: dict[str, Any]) -> list[Chart]:
    """Return the confusion matrix, and of a large one also the part with the most confused pairs."""
    names = [c["name"] for c in report["per_class"]]
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for label, predicted, count in report["confusion"]:
        counts[label, predicted] = count
    totals = counts.sum(axis=1)
    caption = "True classes in rows; the shade is the share of the true class's videos."
    if len(names) <= _MOST_NUMBERS:
        caption += " The numbers are videos."
    if len(names) > _MOST_NAMES:
        order = "True classes in rows, in the order of the model's outputs"
        caption = f"{order}; the shade grows with the square root of the share of the true class's videos."
    charts = [_confusion_matrix(counts, totals, names, "confusion", caption)]
    if len(names) > _MOST_NAMES and report["confused_pairs"]:
        chosen: list[int] = []
        for pair in report["confused_pairs"]:
            new = [c for c in (pair["label_index"], pair["predicted_index"]) if c not in chosen]
            if len(chosen) + len(new) > _ZOOMED:
                break
            chosen += new
        caption = f"The {len(chosen)} classes of the most confused pairs. The numbers are videos."
        part, chosen_names = counts[np.ix_(chosen, chosen)], [names[c] for c in chosen]
        charts.append(_confusion_matrix(part, totals[chosen], chosen_names, "confusion-zoom", caption))
    return charts


def _confusion_matrix(
    counts: NDArray[np.int64], totals: NDArray[np.int64], names: Sequence[str], name: str, caption: str
) -> Chart:
    """Return a chart of counts [K, K]; a cell's shade is its share of the true class's videos, `totals` [K]."""
    size, named = len(counts), len(counts) <= _MOST_NAMES
    share = counts / np.maximum(totals, 1)[:, None]
    side = 2.1 + (0.38 if size <= _MOST_NUMBERS else 0.17) * size if named else 6.6
    figure, axes = new_figure(side, side * 0.93)
    # Transparent colour is readable on light and on dark pages. In a large matrix, the root makes rare confusions
    # visible.
    shade = share if named else np.where(counts > 0, 0.35 + 0.65 * np.sqrt(share), 0)
    pixels = np.dstack([np.broadcast_to(_BLUE if named else _BRIGHT, (*share.shape, 3)), shade])
    axes.imshow(pixels, interpolation="nearest", aspect="equal")
    axes.spines[:].set_visible(True)
    axes.set(xlabel="predicted class", ylabel="true class")
    if named:
        axes.set_xticks(range(size), [plain(n) for n in names], rotation=90)
        axes.set_yticks(range(size), [plain(n) for n in names])
        axes.tick_params(length=0)
    else:
        axes.xaxis.set_major_locator(_whole_numbers())
        axes.yaxis.set_major_locator(_whole_numbers())
    if size <= _MOST_NUMBERS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if share[row, column] > 0.8 else INK
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    diagonal = percent(float(np.trace(counts) / max(totals.sum(), 1)))
    alt = f"Confusion matrix of {size} classes, true classes in rows; {diagonal} of the videos are on the diagonal."
    return Chart(figure, name, alt, caption, min_width=420 if size <= _MOST_NUMBERS else 540)


def reliability_chart(networks: Sequence[tuple[str, dict[str, Any]]]) -> Chart:
    """Return the reliability diagrams of networks (name, calibration), one panel for each: accuracy by confidence."""
    figure, grid = small_multiples([name for name, _ in networks], 1.5 if len(networks) > 1 else 2.6)
    for axes, (_, calibration) in zip(grid, networks, strict=True):
        bins = [b for b in calibration["bins"] if b["videos"]]
        width = 0.9 * calibration["bins"][0]["high"]
        axes.bar([(b["low"] + b["high"]) / 2 for b in bins], [b["accuracy"] for b in bins], width, color=COLORS[0])
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
        axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], "o", color=COLORS[1], markersize=4)
        percent_axis(axes, "x")
        percent_axis(axes, "y")
    figure.supxlabel("confidence (highest score)", fontsize=9, color=INK)
    figure.supylabel("top-1", fontsize=9, color=INK)
    errors = "; ".join(f"{name} {percent(calibration['ece'])}".strip() for name, calibration in networks)
    caption = (
        "Bars: top-1 in each bin of confidence; dots: at the bin's mean confidence. On the dashed line, confidence "
        "equals accuracy; below it, the network is overconfident."
    )
    return Chart(figure, "reliability", f"Reliability diagram: expected calibration error {errors}.", caption)


def difference_chart(
    panels: Sequence[tuple[str, Sequence[tuple[str, dict[str, float]]]]], name: str, caption: str
) -> Chart:
    """Return differences, each {value, low, high}, as dots with whiskers around a line at 0.

    Each panel has a title and rows (label, difference), the first on top; the panels share the labels and the scale.
    """
    labels = [plain(text, 26) for text, _ in panels[0][1]]
    figure, grid = small_multiples([title for title, _ in panels], 0.24 * len(labels) + 0.35)
    for axes, (_, rows) in zip(grid, panels, strict=True):
        value, low, high = (100 * np.array([row[key] for _, row in rows]) for key in ("value", "low", "high"))
        axes.axvline(0, color=INK, linewidth=0.8)
        error_bars(axes, labels, value, low, high, fmt="o", color=COLORS[0], markersize=4.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.grid(axis="x", linewidth=0.6)
    figure.supxlabel("difference in percentage points", fontsize=9, color=INK)
    values = "; ".join(f"{title}, {text} {difference_text(row)}" for title, rows in panels for text, row in rows[:2])
    return Chart(figure, name, f"Differences with 95% intervals: {values}.", caption, min_width=420)


def _whole_numbers(bins: int = 8) -> MaxNLocator:
    return MaxNLocator(nbins=bins, integer=True)
