"""The training curves of a run: loss, top-1 and learning rate by epoch, from its CSV logs."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dnl_video.files import list_folder
from dnl_video.report.figures import COLORS, INK, WIDTH, new_panels, percent_axis

Curves = dict[str, list[tuple[float, float]]]
"""Points (epochs done, value) of "train/loss", "train/top1", "val/loss", "val/top1" and "lr", as far as logged."""

_COLUMN_OF = {"train/loss": "train/loss_epoch"}  # the mean over the epoch, not that of a step


def read_logs(run: Path) -> Iterator[dict[str, str]]:
    """Yield the lines of a run's CSV logs: csv, csv-resumed-1, csv-resumed-2 and so on."""
    logs = [log / "metrics.csv" for log in list_folder(run / "logs", "csv*")]
    for path in sorted(filter(Path.is_file, logs), key=lambda p: (len(p.parent.name), p.parent.name)):
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def read_curves(run: Path) -> Curves:
    """Return the curves of a run's folder; a repeated epoch of a resumed run counts once. Empty without logs."""
    found: dict[str, dict[float, float]] = {}
    rates: dict[int, float] = {}  # by step
    steps_per_epoch = 0.0
    for row in read_logs(run):
        for name in ("train/loss", "train/top1", "val/loss", "val/top1"):
            column = _COLUMN_OF.get(name, name)
            if row.get(column) and row.get("epoch"):
                found.setdefault(name, {})[int(row["epoch"]) + 1] = float(row[column])
                steps_per_epoch = (int(row["step"]) + 1) / (int(row["epoch"]) + 1)
        rate = next((value for key, value in row.items() if value and (key or "").startswith("lr-")), "")
        if rate and row["step"]:  # a killed run may end in half a line
            rates[int(row["step"]) + 1] = float(rate)
    if steps_per_epoch:
        found["lr"] = {step / steps_per_epoch: rate for step, rate in rates.items()}
    return {name: sorted(points.items()) for name, points in found.items() if points}


def draw_training(curves: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Draw loss, top-1 and learning rate against epochs, a panel for each."""
    figure, (loss, top1, rate) = new_panels(3, 1, WIDTH, 4.4, sharex=True, height_ratios=[3, 3, 1.4])
    for axes, metric in ((loss, "loss"), (top1, "top1")):
        for part, color in (("train", COLORS[1]), ("val", COLORS[0])):
            epochs, values = zip(*curves.get(f"{part}/{metric}", [(0, float("nan"))]), strict=True)
            marker = "o" if part == "val" or len(epochs) == 1 else ""
            axes.plot(epochs, values, color=color, marker=marker, markersize=3, label=part)
        axes.grid(axis="y", linewidth=0.6)
    percent_axis(top1, "y")
    loss.set_ylabel("loss")
    top1.set_ylabel("top-1")
    rate.plot(*zip(*curves.get("lr", [(0, float("nan"))]), strict=True), color=COLORS[0])
    rate.set(xlabel="epochs", ylabel="lr", ylim=(0, None))
    rate.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    lines, names = loss.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper left", ncols=2, frameon=False, labelcolor=INK)
    figure.align_ylabels()
    return figure
