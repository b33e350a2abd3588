"""The accuracy report as a document, from the numbers of `build.py`."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from dnl_video.report import charts
from dnl_video.report.build import model_name
from dnl_video.report.document import (
    Document,
    FilmStrips,
    Node,
    Section,
    Table,
    Text,
    Tiles,
    accuracy_cells,
    accuracy_text,
    figures_shown,
    percent,
)

_MOST_FAILED = 50  # failed videos listed by name; report.json has all
_MOST_REASONS = 5  # reasons for failures on the terminal
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_LEVELS = (
    "Papers call three different figures top-1. Video-level averages the scores of all views of a video before taking "
    "the highest; benchmarks quote this one. Centre-clip scores only the clip in the middle of each video, as "
    "validation during training does. Clip-level counts each clip separately. In many videos the action fills only a "
    "part of the time, and an average covers more of it: video-level is usually several points above the other two."
)
_INTERVALS = (
    "Brackets are 95% intervals. They account for the choice of videos, not for training seeds. They are Wilson "
    "intervals; for mean class accuracy and for clips, at the effective number of videos. A tie counts as wrong: the "
    "label must score higher than every other class to be a top-1 hit."
)
_COVERAGE = {
    "listed": "in the list of videos; a failed one counts as wrong",
    "finished": "evaluated or failed so far",
    "evaluated": "have scores",
    "failed": "could not be read or scored",
}


def report_document(report: dict[str, Any]) -> Document:
    """Return the report of `build_report` as a document."""
    sentence, figures = headline(report), report["accuracy"]["evaluated"]["video"] or {}
    over = f"Video-level, {_videos(report['coverage'])}, {report['num_classes']} classes"
    caption = f"{over}; {report['protocol']['text']}." if figures else sentence
    shown = figures_shown(report["num_classes"])
    tiles = [(name, percent(figures[key]["value"]), _interval(figures[key])) for key, name in shown.items() if figures]
    return Document(
        title=f"Accuracy of {model_name(report)}",
        lead=[*(Text(note, "warning") for note in report["notes"]), Tiles(tiles, caption, sentence)],
        sections=[
            Section("Accuracy", _accuracy(report)),
            Section("Coverage", _coverage(report)),
            Section("Classes", _classes(report)),
            Section("Confusion", _confusion(report)),
            Section("Calibration", _calibration(report)),
            Section("Most confident mistakes", _mistakes(report)),
            Section("What was evaluated", [_origin(report)]),
        ],
    )


def report_summary(report: dict[str, Any]) -> list[Text | Table]:
    """Return a report's nodes for the terminal: accuracy, coverage and notes."""
    coverage = report["coverage"]
    listed = "" if coverage["listed"] is None else f"{coverage['listed']:,} videos listed, "
    counts = f"{coverage['evaluated']:,} evaluated, {coverage['failed']:,} failed; brackets are 95% intervals"
    texts = [Text(listed + counts)]
    if coverage["failed"] and listed:
        texts.append(Text('Failed videos count as wrong in the row "listed".'))
    for failure in coverage["failures"][:_MOST_REASONS]:
        texts.append(Text(f"  {failure['videos']} failed: {failure['reason']} (such as {failure['example']})"))
    table = _levels(report, f"{model_name(report)}, {report['protocol']['text']}", brief=True)
    return [table, *texts, *(Text(note, "warning") for note in report["notes"])]


def headline(report: dict[str, Any]) -> str:
    """Return the result in one sentence: figures with their intervals, videos and protocol."""
    coverage, figures, name = report["coverage"], report["accuracy"]["evaluated"]["video"], model_name(report)
    if figures is None:
        return f"{name}: no video could be evaluated, all {coverage['failed']} failed."
    shown = figures_shown(report["num_classes"]).items()
    shares = ", ".join(f"{name} {percent(figures[k]['value'])} ({_interval(figures[k])})" for k, name in shown)
    unfinished = "" if report["complete"] else f"Incomplete ({coverage['finished']} of {coverage['listed']} videos). "
    return f"{unfinished}{name}: {shares} on {_videos(coverage)}; {report['protocol']['text']}."


def _videos(coverage: dict[str, Any]) -> str:
    listed = "" if coverage["listed"] is None else f"of {coverage['listed']:,} listed "
    return f"{coverage['evaluated']:,} {listed}videos"


def _interval(figure: dict[str, Any]) -> str:
    return f"95% interval {100 * figure['low']:.1f} to {100 * figure['high']:.1f}"


def _levels(report: dict[str, Any], caption: str, *, brief: bool = False) -> Table:
    """Return the accuracy of each level; when brief, without the column that explains the level."""
    accuracy, coverage, protocol = report["accuracy"], report["coverage"], report["protocol"]
    clips, views = protocol["num_clips"], "as given"
    if clips is not None:
        views = f"mean of all {protocol['num_views']} views"
        crops = f", mean of its {protocol['num_crops']} crops" if protocol["num_crops"] > 1 else ""
    levels = [("video-level", accuracy["evaluated"]["video"], f"{views}, {coverage['evaluated']:,} evaluated videos")]
    if coverage["listed"] is not None:
        over = f"{views}, {coverage['listed']:,} listed videos, failed = wrong"
        levels.append(("video-level, listed", accuracy["listed"]["video"], over))
    if clips is not None:
        levels.append(("centre-clip", accuracy["evaluated"]["centre_clip"], _centre_clip(clips) + crops))
        levels.append(("clip-level", accuracy["evaluated"]["clip"], f"each clip{crops}"))
    shown = figures_shown(report["num_classes"])
    columns = 1 + len(shown) + (not brief)
    rows = [[name, *accuracy_cells(figures, shown), scored][:columns] for name, figures, scored in levels]
    header = ["level", *shown.values(), "what is scored"]
    return Table(caption, header[:columns], rows, ("l" + "r" * len(shown) + "l")[:columns])


def _centre_clip(num_clips: int) -> str:
    if num_clips < 2:
        return "the only clip" if num_clips else "the middle clip"  # 0: clips slide over the video
    centre = num_clips // 2  # counted from 0
    return f"{_ORDINALS[centre]} of {num_clips} clips" if centre < 10 else f"clip {centre + 1} of {num_clips}"


def _accuracy(report: dict[str, Any]) -> list[Node]:
    nodes: list[Node] = [_levels(report, "Accuracy by level, with 95% intervals")]
    if report["protocol"]["num_clips"] is not None:
        nodes.append(Text(_LEVELS, "note"))
    nodes.append(Text(_INTERVALS, "note"))
    by_num_clips = report["by_num_clips"]
    if by_num_clips and len(by_num_clips) > 1:
        rows = [[point["num_clips"], accuracy_text(point["top1"])] for point in by_num_clips]
        table = Table("Top-1 by number of clips", ["clips", "top-1"], rows, "nr")
        nodes += [charts.num_clips_chart(by_num_clips), table]
    return nodes


def _coverage(report: dict[str, Any]) -> list[Node]:
    coverage, accuracy = report["coverage"], report["accuracy"]
    top1 = {over: accuracy_text((accuracy[over]["video"] or {}).get("top1")) for over in accuracy}
    rows = [
        [name, "unknown" if coverage[name] is None else coverage[name], top1.get(name), meaning]
        for name, meaning in _COVERAGE.items()
    ]
    nodes: list[Node] = [Table("Videos, and top-1 over them", ["videos", "number", "top-1", "meaning"], rows, "lnrl")]
    if coverage["failed"]:
        reasons = [[f["reason"], f["videos"], f["example"]] for f in coverage["failures"][:_MOST_FAILED]]
        nodes.append(Table("Why videos failed", ["reason", "videos", "example"], reasons, "lnc"))
        failed = coverage["failed_videos"]
        named = [[v["path"], _without_path(v["error"], v["path"])] for v in failed[:_MOST_FAILED]]
        more = f"; {len(failed) - _MOST_FAILED:,} more are in report.json" if len(failed) > _MOST_FAILED else ""
        nodes.append(Table(f"Failed videos{more}", ["file", "reason"], named, "cl"))
    return nodes


def _without_path(error: str, path: str) -> str:
    return error.removeprefix(f"{path}: ").replace(path, PurePath(path).name) if path else error


def _classes(report: dict[str, Any]) -> list[Node]:
    rows = []
    for c in report["per_class"]:
        other = c["most_taken_for"]
        taken = (f"{other['name']} ({other['videos']})", other["videos"]) if other else None
        interval = (f"{100 * c['low']:.1f} to {100 * c['high']:.1f}", c["low"]) if c["videos"] else None
        rows.append([c["name"], c["videos"], c["accuracy"], interval, c["failed"], taken])
    header = ["class", "videos", "top-1", "95% interval", "failed", "most often taken for"]
    return [*charts.class_charts(report), Table("Top-1 by class", header, rows, "ln%rnl", sortable=True)]


def _confusion(report: dict[str, Any]) -> list[Node]:
    if not report["confusion"]:
        return []
    nodes: list[Node] = [*charts.confusion_charts(report)]
    if report["confused_pairs"]:
        rows = [[p["label"], p["predicted"], p["videos"], p["share_of_label"]] for p in report["confused_pairs"]]
        header = ["label", "predicted", "videos", "of the label's videos"]
        nodes.append(Table("Most confused pairs", header, rows, "lln%", sortable=True))
    return nodes


def _calibration(report: dict[str, Any]) -> list[Node]:
    calibration = report["calibration"]
    if not calibration:
        return []
    text = (
        f"Expected calibration error (ECE) {percent(calibration['ece'])} with {len(calibration['bins'])} bins; mean "
        f"confidence {percent(calibration['mean_confidence'])} over {calibration['videos']:,} videos."
    )
    rows = [
        [f"{b['low']:.2f} to {b['high']:.2f}", b["videos"], b["confidence"], b["accuracy"]]
        for b in calibration["bins"]
        if b["videos"]
    ]
    table = Table("Bins of confidence", ["confidence", "videos", "mean confidence", "top-1"], rows, "rn%%")
    return [Text(text), charts.reliability_chart([("", calibration)]), table]


def _mistakes(report: dict[str, Any]) -> list[Node]:
    mistakes = report["confident_mistakes"]

    def score(value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:.3g}" if report["calibration"] is None else percent(value)  # without calibration: no share

    rows = [
        [m["video_id"], m["predicted"], score(m["confidence"]), m["label"], score(m["label_score"]), m["label_place"]]
        for m in mistakes
    ]
    header = ["video", "predicted", "confidence", "label", "label score", "label rank"]
    table = Table("Wrong videos, highest score first; some may have a wrong label", header, rows, "clrlrn")
    return [FilmStrips(table, [m["path"] for m in mistakes])] if mistakes else []


def _origin(report: dict[str, Any]) -> Table:
    weights, manifest = report["weights"], report["manifest"]
    facts = {
        "model": _settings(report["model"]),
        "weights": weights["name"],
        "weights sha256": weights["sha256"],
        "protocol": report["protocol"]["text"],
        "preprocessing": _settings(report["preprocessing"]),
        "videos": manifest["source"],
        "videos sha256": manifest["sha256"],
        "versions": _settings(report["versions"]),
        **{key: str(value) for key, value in report["run"].items()},
    }
    rows = [[key, fact] for key, fact in facts.items() if fact]
    return Table("Model, weights, videos and run", ["setting", "value"], rows, "ll")


def _settings(values: dict[str, Any]) -> str:
    """Return settings such as "architecture slow_r50, context dnl"; nested ones in parentheses, values as in YAML."""
    return ", ".join(
        f"{key} ({_settings(value)})"
        if isinstance(value, dict)
        else f"{key} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in values.items()
    )
