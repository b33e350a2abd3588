"""The comparison as a document, from the numbers of `compare.py`."""

from __future__ import annotations

from typing import Any

from dnl_video.report.charts import difference_chart
from dnl_video.report.document import (
    FIGURES,
    Document,
    Node,
    Section,
    SideBySide,
    Table,
    Text,
    Tiles,
    accuracy_cells,
    accuracy_text,
    difference_cells,
    percent,
    points,
)

_MOST_CHANGED = 10  # classes drawn on either side
_INTERVALS = (
    "Differences are in percentage points, a run minus the reference. Their 95% intervals account for the choice of "
    "videos, not for training seeds. They are Newcombe's square-and-add intervals for paired proportions (Stat Med "
    "17:2635, 1998, method 10); for mean class accuracy, the same construction from the intervals of that figure. No "
    "interval is adjusted for the number of runs. A tie counts as wrong."
)
_MCNEMAR = (
    "McNemar's exact test compares the videos that only one of two networks gets right: if both networks are equally "
    "good, either is right with probability 1/2. It is two-sided, over evaluated videos."
)


def compare_document(comparison: dict[str, Any]) -> Document:
    """Return the comparison of `build_comparison` as a document."""
    comparisons, reference = comparison["comparisons"], comparison["runs"][0]
    warnings = [Text(note, "warning") for note in comparison["notes"]]
    sections = [
        Section("Differences", _differences(comparisons)),
        Section("Accuracy", _accuracy(comparison)),
        Section("Who is right", _mcnemar(comparisons)),
    ]
    for one in comparisons:
        pair = f", {one['run']} against {one['reference']}" if len(comparisons) > 1 else ""
        sections += [Section(f"Classes{pair}", _classes(one)), Section(f"Videos{pair}", _videos(one))]
    sections.append(Section("What was compared", [_origin(comparison)]))
    return Document(
        title=f"Comparison with {reference['model_name']}",
        lead=[*warnings, *(_tiles(one, compare_headline(comparison, one)) for one in comparisons)],
        sections=sections,
    )


def compare_summary(comparison: dict[str, Any]) -> list[Text | Table]:
    """Return a comparison's nodes for the terminal: accuracy, differences and notes."""
    runs, comparisons = comparison["runs"], comparison["comparisons"]
    names = _names(comparisons)
    rows = [[run["letter"], *accuracy_cells(run["accuracy"]["evaluated"], names)] for run in runs]
    rows += [[_minus(one), *difference_cells(one["differences"]["evaluated"])] for one in comparisons]
    caption = "Accuracy, and differences in percentage points, with 95% intervals"
    table = Table(caption, ["", *names.values()], rows, "l" + "r" * len(names))
    headlines = [Text(compare_headline(comparison, one)) for one in comparisons]
    return [table, *headlines, *(Text(note, "warning") for note in comparison["notes"])]


def compare_headline(comparison: dict[str, Any], one: dict[str, Any]) -> str:
    """Return one run's difference from the reference in a sentence."""
    names = {run["letter"]: f"{run['letter']} ({run['model_name']})" for run in comparison["runs"]}
    top1 = one["differences"]["evaluated"]["top1"]
    return (
        f"{names[one['run']]} minus {names[one['reference']]}: top-1 {points(top1['value'])} points "
        f"({_interval(top1)}; McNemar's exact test {_p_text(one)}) on {comparison['videos']['compared']} videos."
    )


def _interval(figure: dict[str, float]) -> str:
    return f"95% interval {points(figure['low'])} to {points(figure['high'])}"


def p_value(p: float) -> str:
    """Return a p value with two significant digits."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def _p_text(one: dict[str, Any]) -> str:
    """Return a text such as "p = 0.039, Holm-adjusted 0.077"."""
    p, adjusted = one["mcnemar"]["p"], one["mcnemar"]["p_holm"]
    text = f"p {p_value(p)}" if p < 0.0001 else f"p = {p_value(p)}"
    return text if adjusted is None else f"{text}, Holm-adjusted {p_value(adjusted)}"


def _minus(one: dict[str, Any]) -> str:
    return f"{one['run']} - {one['reference']}"


def _tiles(one: dict[str, Any], sentence: str) -> Tiles:
    figures = one["differences"]["evaluated"]
    items = [
        (f"Δ {FIGURES[key]}, {_minus(one)}", points(figure["value"]), _interval(figure))
        for key, figure in figures.items()
    ]
    name, value, interval = items[0]
    return Tiles([(name, value, f"{interval}; {_p_text(one)}"), *items[1:]], sentence, sentence)


def _names(comparisons: list[dict[str, Any]]) -> dict[str, str]:
    """Return the keys of the compared figures with their names."""
    return {key: FIGURES[key] for key in comparisons[0]["differences"]["evaluated"]}


def _differences(comparisons: list[dict[str, Any]]) -> list[Node]:
    names = _names(comparisons)
    rows = [
        [_minus(one), name, *difference_cells(figures)]
        for one in comparisons
        for over, name in (("evaluated", "evaluated"), ("listed", "listed, failed = wrong"))
        if (figures := one["differences"][over]) is not None
    ]
    bars = [
        (f"{name}, {_minus(one)}", one["differences"]["evaluated"][key])
        for one in comparisons
        for key, name in names.items()
    ]
    header = ["", "videos", *(f"Δ {name}" for name in names.values())]
    caption = "Differences over evaluated videos, with 95% intervals; to the right of the line the run is better."
    return [
        Table("Differences in percentage points, with 95% intervals", header, rows, "ll" + "r" * len(names)),
        difference_chart(bars, "differences", caption),
        Text(_INTERVALS, "note"),
    ]


def _accuracy(comparison: dict[str, Any]) -> list[Node]:
    names = _names(comparison["comparisons"])
    rows = [
        [
            f"{run['letter']}: {run['model_name']}",
            *accuracy_cells(run["accuracy"]["evaluated"], names),
            accuracy_text((run["accuracy"]["listed"] or {}).get("top1")),
            run["coverage"]["failed"],
        ]
        for run in comparison["runs"]
    ]
    header = ["", *names.values(), "top-1, failed = wrong", "failed"]
    videos = comparison["videos"]
    without = f", without the {videos['left_out']} that lack scores in some run" if videos["left_out"] else ""
    text = (
        f"Over the {videos['compared']:,} videos evaluated in every run{without}. The intervals of two runs may "
        "overlap although their difference is clear, because both saw the same videos."
    )
    nodes: list[Node] = [
        Table("Accuracy of each run, with 95% intervals", header, rows, "l" + "r" * len(names) + "rn"),
        Text(text, "note"),
    ]
    if videos["left_out"]:
        named = [[v["video_id"], ", ".join(v["failed_in"])] for v in videos["left_out_videos"]]
        more = videos["left_out"] - len(named)
        caption = "Videos left out" + (f"; {more:,} more" if more else "")
        nodes.append(Table(caption, ["video", "no scores in"], named, "cl"))
    return nodes


def _mcnemar(comparisons: list[dict[str, Any]]) -> list[Node]:
    several = len(comparisons) > 1
    keys = ("both_right", "only_run_right", "only_reference_right", "both_wrong")
    rows = [
        [
            f"{one['run']}, {one['reference']}",
            *(one["mcnemar"][key] for key in keys),
            *(p_value(one["mcnemar"][key]) for key in ("p", "p_holm")[: 1 + several]),
        ]
        for one in comparisons
    ]
    header = ["", "both right", "only the run", f"only {comparisons[0]['reference']}", "both wrong", "exact p"]
    text = _MCNEMAR
    if several:
        header.append("Holm-adjusted p")
        text += (
            f" With {len(comparisons)} runs against one reference, a small p occurs more often by chance; the "
            f"Holm-adjusted p accounts for these {len(comparisons)} tests."
        )
    caption = "Videos by who is right, and McNemar's exact test"
    return [Table(caption, header, rows, "lnnnnr" + "r" * several), Text(text, "note")]


def _classes(one: dict[str, Any]) -> list[Node]:
    run, reference, classes = one["run"], one["reference"], one["classes"]
    number = len(classes["table"])
    text = (
        f"{run} is better than {reference} in {classes['better']} classes, worse in {classes['worse']}, equal in "
        f"{classes['equal']}. The 95% interval excludes 0 in {classes['interval_without_0']} classes; for equally good "
        f"networks, this happens by chance in up to about {0.05 * number:.3g} of {number} classes. The largest changes "
        "among many classes are partly chance."
    )
    rows = [
        [
            row["name"],
            *(row[key] for key in ("videos", "reference", "run", "difference")),
            (f"{points(row['low'])} to {points(row['high'])}", row["low"]),
            row["won"],
            row["lost"],
        ]
        for row in sorted(classes["table"], key=lambda row: -row["difference"])
    ]
    header = ["class", "videos", reference, run, "Δ points", "95% interval", "won", "lost"]
    gained, lost = most_changed(one)
    charts = [
        difference_chart([(row["name"], {**row, "value": row["difference"]}) for row in changed], name, caption)
        for changed, name, caption in (
            (gained, f"{run}-gained", f"Classes in which {run} gains most, with 95% intervals."),
            (lost, f"{run}-lost", f"Classes in which {run} loses most, with 95% intervals."),
        )
        if changed
    ]
    table = Table("Top-1 by class, largest gain first", header, rows, "ln%%drnn", sortable=True)
    return [Text(text), SideBySide(charts), table]


def most_changed(one: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the classes that gained and that lost most: by difference, then by videos."""
    rows = sorted(one["classes"]["table"], key=lambda row: (-abs(row["difference"]), -abs(row["won"] - row["lost"])))
    gained, lost = ([row for row in rows if sign * row["difference"] > 0] for sign in (1, -1))
    return gained[:_MOST_CHANGED], lost[:_MOST_CHANGED]


def _videos(one: dict[str, Any]) -> list[Node]:
    nodes: list[Node] = []
    for key, right, total in (
        ("won", one["run"], one["mcnemar"]["only_run_right"]),
        ("lost", one["reference"], one["mcnemar"]["only_reference_right"]),
    ):
        rows = [[v["video_id"], v["label"], _answer(v["reference"]), _answer(v["run"])] for v in one[key]]
        if rows:
            caption = f"{len(rows)} of {total:,} videos that only {right} gets right, most confident first"
            header = ["video", "label", f"{one['reference']} says", f"{one['run']} says"]
            nodes.append(Table(caption, header, rows, "clll"))
    return nodes or [Text("Both are right on the same videos.")]


def _answer(answer: dict[str, Any]) -> str:
    return "NaN scores" if answer["predicted"] is None else f"{answer['predicted']}, {percent(answer['score'])}"


def _origin(comparison: dict[str, Any]) -> Table:
    rows = [
        [
            *(run["letter"], run["model_name"], run["name"], run["weights"]["name"] or "unknown"),
            *(run["protocol"]["text"], run["manifest"]["source"] or "unknown"),
        ]
        for run in comparison["runs"]
    ]
    return Table("The runs", ["", "model", "results", "weights", "protocol", "list of videos"], rows, "llcclc")
