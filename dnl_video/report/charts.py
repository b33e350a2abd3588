"""The charts of one report, each an `<svg>` or `<img>` made from the report's dictionary (`build.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.report.figures import COLORS, INK, interval_bars, new_figure, new_panels, percent_axis, plain, to_svg
from dnl_video.report.html import Html
from dnl_video.report.markdown import percent

MOST_BARS = 40  # classes that have a bar each; of more the best and the worst
MOST_NUMBERS = 16  # classes whose confusion matrix has a number in each cell
MOST_NAMES = 40  # classes whose names fit beside their confusion matrix
_ENDS = 20  # best and worst classes shown of many
_ZOOMED = 12  # classes of the part of a large confusion matrix that is shown large
_BLUE = np.array([0x1F, 0x5F, 0xBF]) / 255  # under numbers
_BRIGHT = np.array([0x3D, 0x86, 0xE0]) / 255  # of single pixels, on light and on dark pages


def accuracy_by_num_clips(report: dict[str, Any]) -> Html:
    """Draw top-1 accuracy against the number of clips, with its 95 % band."""
    points = report["by_num_clips"]
    k = [point["num_clips"] for point in points]
    value, low, high = ([point["top1"][key] for point in points] for key in ("value", "low", "high"))
    figure, axes = new_figure()
    axes.fill_between(k, low, high, color=COLORS[0], alpha=0.2, linewidth=0)
    axes.plot(k, value, color=COLORS[0], marker="o", markersize=3.5)
    margin = 0.15 * (max(high) - min(low)) + 1e-3
    percent_axis(axes, "y", max(0.0, min(low) - margin), min(1.0, max(high) + margin))
    axes.set_xlabel("clips per video (evenly spaced)")
    axes.set_ylabel("top-1")
    if len(k) > 12:
        _whole_numbers(axes.xaxis)
    else:
        axes.set_xticks(k)
    alt = f"Line: top-1 is {percent(value[0])} with one clip and {percent(value[-1])} with {k[-1]} clips."
    return to_svg(figure, "by-num-clips", alt)


def class_bars(report: dict[str, Any]) -> list[tuple[Html, str]]:
    """Draw the classes' accuracies with intervals; of many classes the curve of all, the worst and the best.

    Returns:
        Pairs of chart and caption.
    """
    rows = sorted((c for c in report["per_class"] if c["videos"]), key=lambda c: (-c["accuracy"], c["index"]))
    if not rows:
        return []
    if len(rows) <= MOST_BARS:
        return [(_bars(rows, "classes"), "Top-1 accuracy of each class with its 95% interval, the best first.")]
    return [
        (_sorted_curve(rows), f"Top-1 accuracy of all {len(rows)} classes, sorted, with 95% intervals."),
        (_bars(rows[-_ENDS:], "worst-classes"), f"The {_ENDS} least accurate classes, the worst last."),
        (_bars(rows[:_ENDS], "best-classes"), f"The {_ENDS} most accurate classes, the best first."),
    ]


def _bars(rows: Sequence[dict[str, Any]], name: str) -> Html:
    figure, axes = new_figure(4.4, 0.2 * len(rows) + 0.6)
    values, low, high = ([row[key] for row in rows] for key in ("accuracy", "low", "high"))
    interval_bars(axes, [row["name"] for row in rows], values, low, high)
    percent_axis(axes, "x")
    first, last = rows[0], rows[-1]
    alt = (
        f"Bars: top-1 of {len(rows)} classes, from {first['name']} ({percent(first['accuracy'])}) "
        f"to {last['name']} ({percent(last['accuracy'])}). The table of classes has the numbers."
    )
    return to_svg(figure, name, alt)


def _sorted_curve(rows: Sequence[dict[str, Any]]) -> Html:
    figure, axes = new_figure()
    place = np.arange(1, len(rows) + 1)
    values, low, high = (np.array([row[key] for row in rows]) for key in ("accuracy", "low", "high"))
    axes.fill_between(place, low, high, color=COLORS[0], alpha=0.2, linewidth=0, step="mid")
    axes.step(place, values, color=COLORS[0], where="mid")
    percent_axis(axes, "y")
    axes.set_xlim(1, len(rows))
    axes.set_xlabel("classes, the most accurate first")
    axes.set_ylabel("top-1")
    middle = percent(float(np.median(values)))
    alt = f"Curve: top-1 of {len(rows)} classes sorted, {percent(values[0])} to {percent(values[-1])}, median {middle}."
    return to_svg(figure, "all-classes", alt)


def confusion_counts(report: dict[str, Any]) -> NDArray[np.int64]:
    """Return the report's sparse confusion matrix as an array, int [K, K], true classes in rows."""
    matrix = np.zeros((report["num_classes"],) * 2, dtype=np.int64)
    for label, predicted, count in report["confusion"]:
        matrix[label, predicted] = count
    return matrix


def confusion_chart(report: dict[str, Any]) -> Html:
    """Draw the confusion matrix: with numbers for few classes, with names for some, as an image for many."""
    names = [c["name"] for c in report["per_class"]]
    return _matrix(confusion_counts(report), names, "confusion")


def confusion_zoom(report: dict[str, Any]) -> tuple[Html, int] | None:
    """Draw the part of a large confusion matrix where the most confused pairs meet, with names and numbers.

    Returns:
        The chart and its number of classes; None where the whole matrix has names already or nothing is confused.
    """
    if report["num_classes"] <= MOST_NAMES or not report["confused_pairs"]:
        return None
    chosen: list[int] = []
    for pair in report["confused_pairs"]:
        new = [c for c in (pair["label_index"], pair["predicted_index"]) if c not in chosen]
        if len(chosen) + len(new) > _ZOOMED:
            break
        chosen += new
    names = [report["per_class"][c]["name"] for c in chosen]
    counts = confusion_counts(report)
    totals = counts.sum(axis=1)[chosen]
    return _matrix(counts[np.ix_(chosen, chosen)], names, "confusion-zoom", totals), len(chosen)


def _matrix(
    counts: NDArray[np.int64], names: Sequence[str], name: str, totals: NDArray[np.int64] | None = None
) -> Html:
    """Draw counts; a cell's colour is its share of the true class's videos (`totals`, by default the row's sum)."""
    totals = counts.sum(axis=1) if totals is None else totals
    share = counts / np.maximum(totals, 1)[:, None]
    size = len(counts)
    named = size <= MOST_NAMES
    side = 2.1 + (0.38 if size <= MOST_NUMBERS else 0.17) * size if named else 6.6
    figure, axes = new_figure(side, side * 0.93)
    # Colour over transparency: it reads on a light page and on a dark one. Of many classes the root lifts rare
    # confusions into sight.
    shade = share if named else np.where(counts > 0, 0.35 + 0.65 * np.sqrt(share), 0)
    pixels = np.dstack([np.broadcast_to(_BLUE if named else _BRIGHT, (*share.shape, 3)), shade])
    axes.imshow(pixels, interpolation="nearest", aspect="equal")
    axes.spines[:].set_visible(True)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if named:
        axes.set_xticks(range(size), [plain(n) for n in names], rotation=90)
        axes.set_yticks(range(size), [plain(n) for n in names])
        axes.tick_params(length=0)
    else:
        _whole_numbers(axes.xaxis)
        _whole_numbers(axes.yaxis)
    if size <= MOST_NUMBERS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if share[row, column] > 0.8 else INK
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    on_diagonal = percent(float(np.trace(counts) / max(totals.sum(), 1)))
    alt = f"Confusion matrix of {size} classes, true classes in rows; {on_diagonal} of the videos are on the diagonal."
    return to_svg(figure, name, alt, min_width=420 if size <= MOST_NUMBERS else 540)


def reliability(report: dict[str, Any]) -> Html:
    """Draw the reliability diagram: accuracy against confidence, and how many videos each bin has."""
    calibration = report["calibration"]
    bins = [b for b in calibration["bins"] if b["videos"]]
    width = calibration["bins"][0]["high"] - calibration["bins"][0]["low"]
    figure, (upper, lower) = new_panels(4.2, 3.6, [3, 1])
    middle = [(b["low"] + b["high"]) / 2 for b in bins]
    upper.bar(middle, [b["accuracy"] for b in bins], width=0.9 * width, color=COLORS[0])
    upper.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
    upper.plot(
        [b["confidence"] for b in bins],
        [b["accuracy"] for b in bins],
        "o",
        color=COLORS[1],
        markersize=4,
        clip_on=False,
    )
    percent_axis(upper, "y")
    upper.set_ylabel("top-1")
    lower.bar(middle, [b["videos"] for b in bins], width=0.9 * width, color=COLORS[0])
    lower.set_ylabel("videos")
    _whole_numbers(lower.yaxis, 3)
    percent_axis(lower, "x")
    lower.set_xlabel("confidence (highest score)")
    alt = (
        f"Reliability diagram: mean confidence {percent(calibration['mean_confidence'])}, "
        f"expected calibration error {percent(calibration['ece'])}."
    )
    return to_svg(figure, "reliability", alt)


def _whole_numbers(axis: Any, bins: int = 8) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=bins, integer=True))
