"""compare.md, and the words and numbers that compare.html shares with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dnl_video.report.markdown import code, escape, figure_text, percent, table

FIGURES = (("top1", "top-1"), ("top5", "top-5"), ("mean_class_accuracy", "mean class accuracy"))
_MOST_CHANGED = 10  # classes shown on either side

INTERVALS = (
    "Differences are in percentage points, a run minus the reference, with 95% intervals for the choice of videos, not "
    "of training seeds: Newcombe's square-and-add intervals for paired proportions (Stat Med 17:2635, 1998, method "
    "10), for mean class accuracy the same construction on that figure's own intervals. Each interval stands for "
    "itself; none is adjusted for the number of runs. A tie counts as wrong."
)


def compare_headline(comparison: dict[str, Any], one: dict[str, Any]) -> str:
    """Return one run's result in a sentence."""
    run, reference = run_of(comparison, one["run"]), run_of(comparison, one["reference"])
    top1 = one["differences"]["evaluated"]["top1"]
    return (
        f"{run['letter']} ({run['model_name']}) minus {reference['letter']} ({reference['model_name']}): top-1 "
        f"{points(top1['value'])} points (95% interval {points(top1['low'])} to {points(top1['high'])}; McNemar's "
        f"exact test {p_text(one)}) on {comparison['videos']['compared']} videos."
    )


def run_of(comparison: dict[str, Any], letter: str) -> dict[str, Any]:
    """Return the run that a letter stands for."""
    found: dict[str, Any] = next(run for run in comparison["runs"] if run["letter"] == letter)
    return found


def points(share: float) -> str:
    """Return a difference in percentage points, such as "+1.3" or "-0.4"."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def difference_text(figure: dict[str, float] | None) -> str:
    """Return such as "+1.3 [+0.2, +2.4]", or a dash for None."""
    if figure is None:
        return "-"
    return f"{points(figure['value'])} [{points(figure['low'])}, {points(figure['high'])}]"


def p_value(p: float) -> str:
    """Return a p value to two digits."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def p_text(one: dict[str, Any]) -> str:
    """Return such as "p = 0.039, 0.077 by Holm for 2 comparisons"."""
    p, adjusted = one["mcnemar"]["p"], one["mcnemar"]["p_holm"]
    text = f"p {p_value(p)}" if p < 0.0001 else f"p = {p_value(p)}"
    return text if adjusted is None else f"{text}, Holm-adjusted {p_value(adjusted)}"


def mcnemar_table(comparison: dict[str, Any], number: Callable[[int], str]) -> tuple[list[str], list[list[str]], str]:
    """Return header, rows and alignment of the table of who is right; ``number`` writes a count."""
    adjusted = len(comparison["comparisons"]) > 1
    rows = []
    for one in comparison["comparisons"]:
        m = one["mcnemar"]
        counts = [m[key] for key in ("both_right", "only_run_right", "only_reference_right", "both_wrong")]
        p = [p_value(m["p"])] + ([p_value(m["p_holm"])] if adjusted else [])
        rows.append([f"{one['run']}, {one['reference']}", *(number(n) for n in counts), *p])
    header = ["", "both right", "only the run", f"only {comparison['runs'][0]['letter']}", "both wrong", "exact p"]
    return [*header, *(["Holm-adjusted p"] if adjusted else [])], rows, "lrrrrr" + "r" * adjusted


def mcnemar_words(comparison: dict[str, Any]) -> str:
    """Return what the test asks, and how many times it was asked."""
    text = (
        "McNemar's exact test asks whether the videos that only one of two networks gets right fall to either side as "
        "a fair coin would; it is two-sided, over evaluated videos."
    )
    number = len(comparison["comparisons"])
    if number > 1:
        text += (
            f" With {number} runs against one reference a small p arises more easily by chance: the Holm-adjusted p "
            f"allows for these {number} tests."
        )
    return text


def class_words(comparison: dict[str, Any], one: dict[str, Any]) -> str:
    """Return how many classes gained and lost, and how much of that chance alone would give."""
    classes = one["classes"]
    return (
        f"{one['run']} is better than {one['reference']} in {classes['better']} classes, worse in {classes['worse']}, "
        f"equal in {classes['equal']}. In {classes['interval_without_0']} the class's own 95% interval leaves out 0; "
        f"between equally good networks chance alone gives up to about {0.05 * len(classes['table']):.3g} of "
        f"{len(classes['table'])}. The most changed of many classes owe part of their change to luck."
    )


def most_changed(one: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the classes that gained most and that lost most: by difference, then by videos."""
    rows = sorted(one["classes"]["table"], key=lambda row: (-abs(row["difference"]), -abs(row["won"] - row["lost"])))
    gained = [row for row in rows if row["difference"] > 0][:_MOST_CHANGED]
    return gained, [row for row in rows if row["difference"] < 0][:_MOST_CHANGED]


def render_compare_markdown(comparison: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    reference = comparison["runs"][0]
    parts = [f"# Comparison with {escape(reference['model_name'])}"]
    parts += [f"**{escape(compare_headline(comparison, one))}**" for one in comparison["comparisons"]]
    parts += [f"> **{escape(note)}**" for note in comparison["notes"]]
    parts += ["## Accuracy", _accuracy(comparison), "## Differences", _differences(comparison), escape(INTERVALS)]
    parts += ["## Who is right", _mcnemar(comparison), escape(mcnemar_words(comparison))]
    for one in comparison["comparisons"]:
        pair = f"{one['run']} against {one['reference']}"
        parts += [f"## Classes, {pair}", escape(class_words(comparison, one)), _classes(one)]
        for key, title in (("won", f"only {one['run']}"), ("lost", f"only {one['reference']}")):
            if one[key]:
                parts += [f"## Videos that {title} gets right, {pair}", _examples(one, key)]
    parts += ["## What was compared", _origin(comparison)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _accuracy(comparison: dict[str, Any]) -> str:
    rows = []
    for run in comparison["runs"]:
        evaluated, listed = run["accuracy"]["evaluated"], run["accuracy"]["listed"]
        over_listed = figure_text(listed and listed["top1"])
        figures = [figure_text(evaluated[key]) for key, _ in FIGURES]
        name = escape(f"{run['letter']}: {run['model_name']}")
        rows.append([name, *figures, over_listed, str(run["coverage"]["failed"])])
    header = ["", *(name for _, name in FIGURES), "top-1, failed = wrong", "failed"]
    left_out = comparison["videos"]["left_out"]
    without = f", without the {left_out} that some run has no scores for" if left_out else ""
    return (
        table(header, rows, "lrrrrr")
        + f"\n\nOver the {comparison['videos']['compared']} videos evaluated in every run{without}. Intervals of two "
        "runs may overlap although their difference is clear: both saw the same videos."
    )


def _differences(comparison: dict[str, Any]) -> str:
    rows = []
    for one in comparison["comparisons"]:
        for over, name in (("evaluated", "evaluated"), ("listed", "listed, failed = wrong")):
            figures = one["differences"][over]
            if figures is not None:
                cells = [difference_text(figures[key]) for key, _ in FIGURES]
                rows.append([f"{one['run']} - {one['reference']}", name, *cells])
    return table(["", "videos", *(f"Δ {name}" for _, name in FIGURES)], rows, "llrrr")


def _mcnemar(comparison: dict[str, Any]) -> str:
    return table(*mcnemar_table(comparison, str))


def _classes(one: dict[str, Any]) -> str:
    rows = [
        [
            escape(row["name"]),
            str(row["videos"]),
            percent(row["reference"]),
            percent(row["run"]),
            difference_text({**row, "value": row["difference"]}),
            str(row["won"]),
            str(row["lost"]),
        ]
        for side in most_changed(one)
        for row in side
    ]
    if not rows:
        return ""
    return table(["class", "videos", one["reference"], one["run"], "Δ", "videos won", "lost"], rows, "lrrrrrr")


def _examples(one: dict[str, Any], key: str) -> str:
    rows = [
        [code(video["video_id"]), escape(video["label"]), answer_text(video["reference"]), answer_text(video["run"])]
        for video in one[key]
    ]
    return table(["video", "label", f"{one['reference']} says", f"{one['run']} says"], rows, "llll")


def answer_text(answer: dict[str, Any]) -> str:
    """Return such as "growing, 73.5%", escaped for Markdown."""
    return escape(answer_words(answer))


def answer_words(answer: dict[str, Any]) -> str:
    """Return such as "growing, 73.5%"."""
    return "not a number" if answer["predicted"] is None else f"{answer['predicted']}, {percent(answer['score'])}"


def _origin(comparison: dict[str, Any]) -> str:
    rows = []
    for run in comparison["runs"]:
        of = run["weights"]["name"] or "unknown"
        rows.append(
            [run["letter"], escape(run["model_name"]), code(run["name"]), code(of), escape(run["protocol"]["text"])]
        )
    return table(["", "model", "results", "weights", "protocol"], rows, "lllll")
