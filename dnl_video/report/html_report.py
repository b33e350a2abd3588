"""report.html: the report for people, in one file that opens offline, on a phone, and on paper."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from dnl_video.report import charts
from dnl_video.report.film_strips import FilmStrips, FrameReader
from dnl_video.report.html import (
    Cell,
    Html,
    Section,
    escape,
    facts,
    figure,
    join,
    page,
    paragraph,
    side_by_side,
    table,
    tiles,
)
from dnl_video.report.markdown import (
    figure_text,
    headline,
    interval,
    levels,
    model_name,
    origin,
    percent,
    score_text,
)

_MOST_FAILED = 50  # failed videos listed by name; report.json has all
_LEVELS = (
    "Papers call three different figures top-1. Video-level averages the scores of all views of a video before it "
    "takes the highest: that is what benchmarks quote. Centre-clip is one look at the middle of each video, as in "
    "validation during training. Clip-level counts each clip for itself. An action fills only a part of many videos, "
    "and averages see more of it: the first figure is usually several points above the other two."
)
_TIES = "A tie counts as wrong: a label must score higher than every other class to be a top-1 hit."


def render_html(report: dict[str, Any], read_frames: FrameReader | None = None) -> str:
    """Return the report as one HTML document.

    Args:
        report: The dictionary of `build_report`.
        read_frames: Reads a few frames of a video, to show beside confident mistakes; None shows none.
    """
    sections = [
        Section(title, body)
        for title, body in (
            ("Accuracy", _accuracy(report)),
            ("Coverage", _coverage(report)),
            ("Classes", _classes(report)),
            ("Confusion", _confusion(report)),
            ("Calibration", _calibration(report)),
            ("Most confident mistakes", _mistakes(report, FilmStrips(read_frames))),
            ("What was evaluated", facts(origin(report))),
        )
        if body
    ]
    return page(f"Accuracy of {model_name(report)}", sections, _lead(report))


def _lead(report: dict[str, Any]) -> Html:
    figures = report["accuracy"]["evaluated"]["video"]
    notes = [paragraph(note, "warning") for note in report["notes"]]
    if figures is None:
        return join([*notes, paragraph(headline(report), "headline")])
    shown = tiles(
        (name, percent(figures[key]["value"]), interval(figures[key]))
        for name, key in (("top-1", "top1"), ("top-5", "top5"), ("mean class accuracy", "mean_class_accuracy"))
    )
    coverage = report["coverage"]
    listed = "" if coverage["listed"] is None else f"of {coverage['listed']:,} listed "
    of = f"{coverage['evaluated']:,} {listed}videos, {report['num_classes']} classes"
    return join([*notes, shown, paragraph(f"Video-level, {of}; {report['protocol']['text']}.")])


def _accuracy(report: dict[str, Any]) -> Html:
    rows = [
        [name, what, *(figure_text(figures.get(k)) for k in ("top1", "top5", "mean_class_accuracy"))]
        for name, what, figures in levels(report)
    ]
    trivial = f" With {report['num_classes']} classes, top-5 is always right." if report["num_classes"] <= 5 else ""
    parts = [
        table(
            ["level", "top-1", "top-5", "mean class accuracy", "what is scored"],
            [[name, *numbers, what] for name, what, *numbers in rows],
            "lrrrl",
            caption="Accuracy by level, with 95% intervals",
        ),
        paragraph(_LEVELS, "note") if report["protocol"]["num_clips"] is not None else Html(""),
        paragraph(
            "Brackets are 95% intervals for the choice of videos, not of training seeds: Wilson's; for mean class "
            f"accuracy and for clips Wilson's at the effective number of videos. {_TIES}{trivial}",
            "note",
        ),
    ]
    points = report["by_num_clips"]
    if points and len(points) > 1:
        chart = figure(
            charts.accuracy_by_num_clips(report),
            "Top-1 of the mean of k clips of the same run; the band is the 95% interval.",
        )
        values = table(
            ["clips", "top-1"],
            [[str(point["num_clips"]), figure_text(point["top1"])] for point in points],
            "rr",
            caption="Top-1 by number of clips",
        )
        parts.append(side_by_side([chart, values]))
    return join(parts)


def _coverage(report: dict[str, Any]) -> Html:
    coverage, accuracy = report["coverage"], report["accuracy"]
    over = {
        "evaluated": (accuracy["evaluated"]["video"] or {}).get("top1"),
        "listed": (accuracy["listed"]["video"] or {}).get("top1"),
    }
    meaning = {
        "listed": "in the list of videos; a failed one counts as wrong",
        "finished": "evaluated or failed so far",
        "evaluated": "have scores",
        "failed": "could not be read or scored",
    }
    counts = {k: "unknown" if coverage[k] is None else f"{coverage[k]:,}" for k in meaning}
    rows = [[k, counts[k], figure_text(over[k]) if k in over else "", why] for k, why in meaning.items()]
    parts = [table(["videos", "number", "top-1", "which"], rows, "lrrl", caption="Videos, and top-1 over them")]
    if coverage["failed"]:
        reasons = [[f["reason"], str(f["videos"]), f["example"]] for f in coverage["failures"][:_MOST_FAILED]]
        failed = coverage["failed_videos"]
        named = [
            [v["path"], v["error"].removeprefix(v["path"] + ": ").replace(v["path"], PurePath(v["path"]).name)]
            for v in failed[:_MOST_FAILED]
        ]
        more = f"; {len(failed) - _MOST_FAILED:,} more are in report.json" if len(failed) > _MOST_FAILED else ""
        parts += [
            table(["reason", "videos", "such as"], reasons, "lrl", caption="Why videos failed"),
            table(["file", "reason"], named, "ll", caption=f"Failed videos{more}"),
        ]
    return join(parts)


def _classes(report: dict[str, Any]) -> Html:
    rows = []
    for c in report["per_class"]:
        other = c["most_taken_for"]
        rows.append(
            [
                c["name"],
                str(c["videos"]),
                Cell(percent(c["accuracy"]), c["accuracy"]) if c["videos"] else Cell(),
                Cell(f"{100 * c['low']:.1f} to {100 * c['high']:.1f}", c["low"]) if c["videos"] else Cell(),
                str(c["failed"]),
                Cell(f"{other['name']} ({other['videos']})", other["videos"]) if other else Cell(),
            ]
        )
    drawn = [figure(chart, caption) for chart, caption in charts.class_bars(report)]
    bars = [*drawn[:1], side_by_side(drawn[1:])] if len(drawn) > 1 else drawn
    header = ["class", "videos", "top-1", "95% interval", "failed", "most often taken for"]
    listing = table(header, rows, "lrrrrl", caption="Press a heading to sort, again to turn the order", sortable=True)
    return join([*bars, listing])


def _confusion(report: dict[str, Any]) -> Html:
    if not report["confusion"]:
        return Html("")
    many = report["num_classes"] > charts.MOST_NAMES
    numbers = "" if report["num_classes"] > charts.MOST_NUMBERS else " The numbers are videos."
    order = (
        " Classes are in the order of the model's outputs, from 0; the shade grows with the root of the share."
        if many
        else ""
    )
    caption = f"True classes in rows; the shade is the share of the true class's videos.{numbers}{order}"
    parts = [figure(charts.confusion_chart(report), caption)]
    zoom = charts.confusion_zoom(report)
    if zoom is not None:
        chart, size = zoom
        parts.append(figure(chart, f"The {size} classes of the most confused pairs, in videos; others are left out."))
    pairs = [
        [
            Cell(p["label"]),
            Cell(p["predicted"]),
            Cell(str(p["videos"])),
            Cell(percent(p["share_of_label"]), p["share_of_label"]),
        ]
        for p in report["confused_pairs"]
    ]
    header = ["label", "predicted", "videos", "of the label's"]
    listing = table(header, pairs, "llrr", caption="Most confused pairs", sortable=True) if pairs else Html("")
    return join([side_by_side(parts), listing])


def _calibration(report: dict[str, Any]) -> Html:
    calibration = report["calibration"]
    if not calibration:
        return Html("")
    text = (
        f"Expected calibration error (ECE) {percent(calibration['ece'])} with {len(calibration['bins'])} bins; mean "
        f"confidence {percent(calibration['mean_confidence'])} over {calibration['videos']:,} videos."
    )
    caption = (
        "Bars: top-1 in each bin of confidence; dots at the bin's mean confidence. On the dashed line a network is "
        "right as often as it says; below it, it is too sure of itself."
    )
    return join([paragraph(text), figure(charts.reliability(report), caption)])


def _mistakes(report: dict[str, Any], strips: FilmStrips) -> Html:
    mistakes = report["confident_mistakes"]
    if not mistakes:
        return Html("")
    parts = [paragraph("Wrong videos, the highest score first. Such a mistake may be a wrong label.", "note")]
    for number, m in enumerate(mistakes, start=1):
        frames = strips.strip(m["path"], f"Frames of {m['video_id']}, label {m['label']}")
        score, label_score = (score_text(report, m[key]) for key in ("confidence", "label_score"))
        text = (
            f"<p>{number}. <b>{escape(m['predicted'])}</b> {score}; label <b>{escape(m['label'])}</b> {label_score}, "
            f"place {m['label_place']}<br><code>{escape(m['video_id'])}</code></p>"
        )
        strip = f'<figure><div class="scroll">{frames}</div></figure>' if frames else ""
        parts.append(Html(f'<div class="mistake">{text}{strip}</div>'))
    return join(parts)
