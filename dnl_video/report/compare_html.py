"""compare.html: the comparison as one self-contained page."""

from __future__ import annotations

from typing import Any

import numpy as np

from dnl_video.report.compare_markdown import (
    FIGURES,
    INTERVALS,
    answer_words,
    class_words,
    compare_headline,
    difference_text,
    mcnemar_table,
    mcnemar_words,
    most_changed,
    p_text,
    points,
)
from dnl_video.report.figures import COLORS, INK, new_figure, plain, to_svg
from dnl_video.report.html import Cell, Html, Section, figure, join, page, paragraph, side_by_side, table, tiles
from dnl_video.report.markdown import figure_text, percent


def render_compare_html(comparison: dict[str, Any]) -> str:
    """Return the comparison as one HTML document.

    Args:
        comparison: The dictionary of `build_comparison`.
    """
    sections = [
        Section("Differences", _differences(comparison)),
        Section("Accuracy", _accuracy(comparison)),
        Section("Who is right", _mcnemar(comparison)),
    ]
    several = len(comparison["comparisons"]) > 1
    for one in comparison["comparisons"]:
        pair = f", {one['run']} against {one['reference']}" if several else ""
        sections += [Section(f"Classes{pair}", _classes(comparison, one)), Section(f"Videos{pair}", _videos(one))]
    sections.append(Section("What was compared", _origin(comparison)))
    return page(f"Comparison with {comparison['runs'][0]['model_name']}", sections, _lead(comparison))


def _lead(comparison: dict[str, Any]) -> Html:
    parts = [paragraph(note, "warning") for note in comparison["notes"]]
    for one in comparison["comparisons"]:
        figures = one["differences"]["evaluated"]
        shown = [
            (
                f"Δ {name}, {one['run']} - {one['reference']}",
                points(figures[key]["value"]),
                f"95% interval {points(figures[key]['low'])} to {points(figures[key]['high'])}"
                + (f"; {p_text(one)}" if key == "top1" else ""),
            )
            for key, name in FIGURES
        ]
        parts += [tiles(shown), paragraph(compare_headline(comparison, one))]
    return join(parts)


def _differences(comparison: dict[str, Any]) -> Html:
    rows = [
        [f"{one['run']} - {one['reference']}", name, *(difference_text(figures[key]) for key, _ in FIGURES)]
        for one in comparison["comparisons"]
        for over, name in (("evaluated", "evaluated"), ("listed", "listed, failed = wrong"))
        if (figures := one["differences"][over]) is not None
    ]
    header = ["", "videos", *(f"Δ {name}" for _, name in FIGURES)]
    bars = [
        (f"{name}, {one['run']} - {one['reference']}", one["differences"]["evaluated"][key])
        for one in comparison["comparisons"]
        for key, name in FIGURES
    ]
    chart = _intervals(bars, "differences")
    return join(
        [
            table(header, rows, "llrrr", caption="Differences in percentage points, with 95% intervals"),
            figure(
                chart, "Differences over evaluated videos, with 95% intervals; right of the line the run is better."
            ),
            paragraph(INTERVALS, "note"),
        ]
    )


def _intervals(rows: list[tuple[str, dict[str, float]]], name: str) -> Html:
    """Draw differences as dots with whiskers around a line at 0, the first row on top."""
    chart, axes = new_figure(5.4, 0.8 + 0.24 * len(rows))
    place = np.arange(len(rows))
    value, low, high = (100 * np.array([row[1][key] for row in rows]) for key in ("value", "low", "high"))
    whiskers = np.maximum([value - low, high - value], 0)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.errorbar(value, place, xerr=whiskers, fmt="o", color=COLORS[0], ecolor=INK, elinewidth=0.9, markersize=4.5)
    axes.set_yticks(place, [plain(text, 34) for text, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", linewidth=0.6)
    axes.set_xlabel("difference in percentage points")
    values = "; ".join(f"{text} {difference_text(figures)}" for text, figures in rows[:6])
    return to_svg(chart, name, f"Differences with 95% intervals: {values}.", min_width=420)


def _accuracy(comparison: dict[str, Any]) -> Html:
    rows = []
    for run in comparison["runs"]:
        evaluated, listed = run["accuracy"]["evaluated"], run["accuracy"]["listed"]
        figures = [figure_text(evaluated[key]) for key, _ in FIGURES]
        over_listed = figure_text(listed and listed["top1"])
        name = f"{run['letter']}: {run['model_name']}"
        rows.append([name, *figures, over_listed, str(run["coverage"]["failed"])])
    header = ["", *(name for _, name in FIGURES), "top-1, failed = wrong", "failed"]
    videos = comparison["videos"]
    without = f", without the {videos['left_out']} that some run has no scores for" if videos["left_out"] else ""
    text = (
        f"Over the {videos['compared']:,} videos evaluated in every run{without}. Intervals of two runs may overlap "
        "although their difference is clear: both saw the same videos."
    )
    parts = [
        table(header, rows, "lrrrrr", caption="Accuracy of each run, with 95% intervals"),
        paragraph(text, "note"),
    ]
    if videos["left_out"]:
        named = [[v["video_id"], ", ".join(v["failed_in"])] for v in videos["left_out_videos"]]
        more = videos["left_out"] - len(named)
        caption = "Videos left out" + (f"; {more:,} more" if more else "")
        parts.append(table(["video", "no scores in"], named, "ll", caption=caption))
    return join(parts)


def _mcnemar(comparison: dict[str, Any]) -> Html:
    columns = mcnemar_table(comparison, "{:,}".format)
    listing = table(*columns, caption="Videos by who is right, and McNemar's exact test")
    return join([listing, paragraph(mcnemar_words(comparison), "note")])


def _classes(comparison: dict[str, Any], one: dict[str, Any]) -> Html:
    gained, lost = most_changed(one)
    charts = [
        figure(
            _intervals([(row["name"], {**row, "value": row["difference"]}) for row in rows], f"{one['run']}-{name}"),
            caption,
        )
        for rows, name, caption in (
            (gained, "gained", f"Classes in which {one['run']} gains most, with their own 95% intervals."),
            (lost, "lost", f"Classes in which {one['run']} loses most."),
        )
        if rows
    ]
    rows = [
        [
            row["name"],
            str(row["videos"]),
            Cell(percent(row["reference"]), row["reference"]),
            Cell(percent(row["run"]), row["run"]),
            Cell(points(row["difference"]), row["difference"]),
            Cell(f"{points(row['low'])} to {points(row['high'])}", row["low"]),
            str(row["won"]),
            str(row["lost"]),
        ]
        for row in one["classes"]["table"]
    ]
    header = ["class", "videos", one["reference"], one["run"], "Δ points", "95% interval", "won", "lost"]
    caption = "Top-1 by class; press a heading to sort, again to turn the order"
    return join(
        [
            paragraph(class_words(comparison, one)),
            side_by_side(charts),
            table(header, rows, "lrrrrrrr", caption=caption, sortable=True),
        ]
    )


def _videos(one: dict[str, Any]) -> Html:
    parts = []
    for key, right in (("won", one["run"]), ("lost", one["reference"])):
        total = one["mcnemar"]["only_run_right" if key == "won" else "only_reference_right"]
        rows = [
            [video["video_id"], video["label"], answer_words(video["reference"]), answer_words(video["run"])]
            for video in one[key]
        ]
        if rows:
            header = ["video", "label", f"{one['reference']} says", f"{one['run']} says"]
            caption = f"{len(rows)} of {total:,} videos that only {right} gets right, the most confident first"
            parts.append(table(header, rows, "llll", caption=caption))
    return join(parts) if parts else paragraph("Both are right on the same videos.")


def _origin(comparison: dict[str, Any]) -> Html:
    rows = [
        [
            run["letter"],
            run["model_name"],
            run["name"],
            run["weights"]["name"] or "unknown",
            run["protocol"]["text"],
            run["manifest"]["source"] or "unknown",
        ]
        for run in comparison["runs"]
    ]
    return table(["", "model", "results", "weights", "protocol", "list of videos"], rows, "llllll", caption="The runs")
