"""The comparison as a document, from the numbers of `compare.py`."""

from __future__ import annotations

from typing import Any

from dnl_video.naming import settings_text
from dnl_video.report.build import count_text
from dnl_video.report.charts import difference_chart, reliability_chart
from dnl_video.report.document import (
    Document,
    Node,
    Section,
    Table,
    Text,
    Tiles,
    accuracy_text,
    difference_text,
    figures_shown,
    percent,
    points,
)

_MOST_CHANGED = 20  # classes drawn
_INTERVALS = (
    "Differences are in percentage points, a run minus the reference. Their 95% intervals account for the choice of "
    "videos, not for training seeds. They are Newcombe's square-and-add intervals for paired proportions (Stat Med "
    "17:2635, 1998, method 10); for mean class accuracy, the same construction from the intervals of that figure. No "
    "interval is adjusted for the number of runs. The intervals of two accuracies may overlap although the difference "
    "is clear, because both networks saw the same videos. A tie counts as wrong."
)
_MCNEMAR = (
    "McNemar's exact test compares the videos that only one of two networks gets right: if both networks are equally "
    "good, either is right with probability 1/2. It is two-sided, over evaluated videos."
)


def compare_document(comparison: dict[str, Any]) -> Document:
    """Return the comparison of `build_comparison` as a document."""
    comparisons, names = comparison["comparisons"], _names(comparison)
    sections = [
        Section("Differences", _differences(comparison)),
        Section("Who is right", _mcnemar(comparisons)),
        Section("Changed classes", _changed_classes(comparison)),
        Section("Calibration", _calibration(comparison)),
    ]
    for one in comparisons:
        title = f"{names[one['run']]}, classes and videos" if len(comparisons) > 1 else "Classes and videos"
        sections.append(Section(title, [*_classes(one), *_videos(one)]))
    sections.append(Section("What was compared", _origin(comparison)))
    run, reference = (names[letter].partition(": ")[2] for letter in "BA")
    others = run if len(names) == 2 else f"{len(comparisons)} networks"
    return Document(
        title=f"{others} compared with {reference}",
        lead=[*_notes(comparison), _networks(comparison), *(_tiles(comparison, one) for one in comparisons)],
        sections=sections,
    )


def compare_summary(comparison: dict[str, Any]) -> list[Text | Table]:
    """Return a comparison's nodes for the terminal: networks, differences and notes."""
    headlines = [Text(compare_headline(comparison, one)) for one in comparison["comparisons"]]
    return [_networks(comparison), _difference_table(comparison), *headlines, *_notes(comparison)]


def compare_headline(comparison: dict[str, Any], one: dict[str, Any]) -> str:
    """Return one run's difference from the reference in a sentence."""
    named = {run["letter"]: f"{run['letter']} ({run['short_name']})" for run in comparison["runs"]}
    top1, number = one["differences"]["evaluated"]["top1"], count_text(comparison["videos"]["compared"], "video")
    return (
        f"{named[one['run']]} minus {named[one['reference']]}: top-1 {points(top1['value'])} points "
        f"({_interval(top1)}; McNemar's exact test {_p_text(one)}) on {number}."
    )


def _names(comparison: dict[str, Any]) -> dict[str, str]:
    return {run["letter"]: f"{run['letter']}: {run['short_name']}" for run in comparison["runs"]}


def _notes(comparison: dict[str, Any]) -> list[Text]:
    return [Text(note, "warning") for note in comparison["notes"]]


def _networks(comparison: dict[str, Any]) -> Table:
    """Return the legend: letters and names of the networks, their accuracy, model and settings that differ."""
    shown, rows = figures_shown(comparison["num_classes"]), []
    for run in comparison["runs"]:
        model = run["model_name"] if run["model_name"] != run["short_name"] else ""
        about = ", ".join(filter(None, (model, settings_text(run["settings"]))))
        top1, *others = (run["accuracy"]["evaluated"][key] for key in shown)
        accuracies = [accuracy_text(top1), *(percent(figure["value"]) for figure in others)]
        rows.append([run["letter"], run["short_name"], about, *accuracies])
    number = count_text(comparison["videos"]["compared"], "video")
    caption = f"The networks and their accuracy on the {number} evaluated in every run; A is the reference"
    header = ["", "network", "model and settings", *shown.values()]
    return Table(caption, header, rows, f"lll{'r' * len(shown)}")


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


def _tiles(comparison: dict[str, Any], one: dict[str, Any]) -> Tiles:
    """Return the differences of one run; with several runs the sentence alone, because tiles repeat the table."""
    figures, sentence = one["differences"]["evaluated"], compare_headline(comparison, one)
    items = [
        (f"Δ {name}, {_minus(one)}", points(figures[key]["value"]), _interval(figures[key]))
        for key, name in figures_shown(comparison["num_classes"]).items()
    ]
    name, value, interval = items[0]
    items[0] = (name, value, f"{interval}; {_p_text(one)}")
    return Tiles(items if len(comparison["runs"]) == 2 else [], sentence, sentence)


def _difference_table(comparison: dict[str, Any]) -> Table:
    shown, over = figures_shown(comparison["num_classes"]), {"evaluated": "", "listed": ", failed = wrong"}
    if not comparison["videos"]["left_out"]:
        del over["listed"]  # the same figures
    rows = [
        [f"{_minus(one)}{name}", *(difference_text(figures[key]) for key in shown)]
        for one in comparison["comparisons"]
        for key, name in over.items()
        if (figures := one["differences"][key]) is not None
    ]
    header = ["", *(f"Δ {name}" for name in shown.values())]
    return Table("Differences in percentage points, with 95% intervals", header, rows, "l" + "r" * len(shown))


def _differences(comparison: dict[str, Any]) -> list[Node]:
    names = _names(comparison)
    panels = [
        (name, [(names[one["run"]], one["differences"]["evaluated"][key]) for one in comparison["comparisons"]])
        for key, name in figures_shown(comparison["num_classes"]).items()
    ]
    caption = "Differences over evaluated videos, with 95% intervals; to the right of the line the run is better."
    chart = difference_chart(panels, "differences", caption)
    return [chart, _difference_table(comparison), Text(_INTERVALS, "note")]


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
    only = "only the run" if several else f"only {comparisons[0]['run']}"
    header = ["", "both right", only, f"only {comparisons[0]['reference']}", "both wrong", "exact p"]
    text = _MCNEMAR
    if several:
        header.append("Holm-adjusted p")
        text += (
            f" With {len(comparisons)} runs against one reference, a small p occurs more often by chance; the "
            f"Holm-adjusted p accounts for these {len(comparisons)} tests."
        )
    caption = "Videos by who is right, and McNemar's exact test"
    return [Table(caption, header, rows, "lnnnnr" + "r" * several), Text(text, "note")]


def _changed_classes(comparison: dict[str, Any]) -> list[Node]:
    """Draw the classes in which any run differs most from the reference, one panel for each run."""
    comparisons, names = comparison["comparisons"], _names(comparison)
    by_class = list(zip(*(one["classes"]["table"] for one in comparisons), strict=True))
    changed = [rows for rows in by_class if any(row["difference"] for row in rows)]
    changed.sort(key=lambda rows: max((abs(r["difference"]), abs(r["won"] - r["lost"])) for r in rows), reverse=True)
    drawn = sorted(changed[:_MOST_CHANGED], key=lambda rows: -sum(row["difference"] for row in rows))
    if not drawn:
        return [Text("No class differs in top-1.")]
    panels = [
        (names[one["run"]], [(rows[i]["name"], {**rows[i], "value": rows[i]["difference"]}) for rows in drawn])
        for i, one in enumerate(comparisons)
    ]
    which = f"The {len(drawn)} classes that differ most" if len(drawn) < len(changed) else "The classes that differ"
    caption = f"{which} in top-1 from A, with 95% intervals; to the right, the run is better."
    return [difference_chart(panels, "changed-classes", caption)]


def _calibration(comparison: dict[str, Any]) -> list[Node]:
    names = _names(comparison)
    found = [(names[run["letter"]], run["calibration"]) for run in comparison["runs"] if run["calibration"]]
    rows = [[name, calibration["ece"], calibration["mean_confidence"]] for name, calibration in found]
    table = Table("Calibration", ["", "expected calibration error", "mean confidence"], rows, "l%%")
    return [reliability_chart(found), table] if found else []


def _classes(one: dict[str, Any]) -> list[Node]:
    run, reference, classes = one["run"], one["reference"], one["classes"]
    number = len(classes["table"])
    text = (
        f"Of {count_text(number, 'class', 'classes')}, {run} is better than {reference} in {classes['better']}, worse "
        f"in {classes['worse']} and equal in {classes['equal']}. The 95% interval excludes 0 in "
        f"{classes['interval_without_0']}; for equally good networks, this happens by chance in up to about "
        f"{0.05 * number:.3g} of {number}."
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
    return [Text(text), Table("Top-1 by class, largest gain first", header, rows, "ln%%drnn", sortable=True)]


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
    return nodes or [Text("There is no video that only one of the two gets right.")]


def _answer(answer: dict[str, Any]) -> str:
    return "NaN scores" if answer["predicted"] is None else f"{answer['predicted']}, {percent(answer['score'])}"


def _origin(comparison: dict[str, Any]) -> list[Node]:
    rows = [
        [
            *(run["letter"], run["name"], run["weights"]["name"] or "unknown"),
            *(run["protocol"]["text"], run["manifest"]["source"] or "unknown"),
        ]
        for run in comparison["runs"]
    ]
    videos = comparison["videos"]
    named = [[v["video_id"], ", ".join(v["failed_in"])] for v in videos["left_out_videos"]]
    more = f"; {videos['left_out'] - len(named):,} more" if videos["left_out"] > len(named) else ""
    left_out = Table(f"Videos left out, because a run has no scores{more}", ["video", "no scores in"], named, "cl")
    runs = Table("The runs", ["", "results", "weights", "protocol", "list of videos"], rows, "lcclc")
    return [runs, left_out] if named else [runs]
