"""The accuracy report as a document, from the numbers of `build.py`."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from dnl_video.naming import run_folder
from dnl_video.report import charts
from dnl_video.report.build import count_text, model_name
from dnl_video.report.curves import draw_training
from dnl_video.report.document import (
    Chart,
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
    "validation during training does. Clip-level counts each clip separately."
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
    over = f"Video-level, {_videos(report['coverage'])}, {count_text(report['num_classes'], 'class', 'classes')}"
    caption = f"{over}; {report['protocol']['text']}." if figures else sentence
    shown = figures_shown(report["num_classes"])
    tiles = [(name, percent(figures[key]["value"]), _interval(figures[key])) for key, name in shown.items() if figures]
    return Document(
        title=report_title(report),
        lead=[*(Text(note, "warning") for note in report["notes"]), Tiles(tiles, caption, sentence)],
        sections=[
            Section("Accuracy", _accuracy(report)),
            Section("Coverage", _coverage(report)),
            Section("Training", _training(report)),
            Section("Classes", _classes(report)),
            Section("Confusion", _confusion(report)),
            Section("Calibration", _calibration(report)),
            Section("Most confident mistakes", _mistakes(report)),
            Section("What was evaluated", [_origin(report)]),
        ],
    )


def report_title(report: dict[str, Any]) -> str:
    """Return the model, the list of videos and the run, such as "slow_r50 + dnl on demo/val.csv (run slow_dnl)"."""
    source, weights = report["manifest"]["source"], report["weights"]["name"]
    videos = f" on {'/'.join(PurePath(source).parts[-2:])}" if source else ""
    return f"Accuracy of {model_name(report)}{videos}" + (f" (run {run_folder(weights).name})" if weights else "")


def report_summary(report: dict[str, Any]) -> list[Text | Table]:
    """Return a report's nodes for the terminal: accuracy, coverage and notes."""
    coverage = report["coverage"]
    listed = "" if coverage["listed"] is None else f"{count_text(coverage['listed'], 'video')} listed, "
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
        failed = "the only one" if coverage["failed"] == 1 else f"all {coverage['failed']}"
        return f"{name}: no video could be evaluated, {failed} failed."
    shown = figures_shown(report["num_classes"]).items()
    shares = ", ".join(f"{name} {percent(figures[k]['value'])} ({_interval(figures[k])})" for k, name in shown)
    unfinished = "" if report["complete"] else f"Incomplete ({coverage['finished']} of {coverage['listed']} videos). "
    return f"{unfinished}{name}: {shares} on {_videos(coverage)}; {report['protocol']['text']}."


def _videos(coverage: dict[str, Any]) -> str:
    listed, evaluated = coverage["listed"], coverage["evaluated"]
    part = "" if listed in (None, evaluated) else f"{evaluated:,} of "
    return part + count_text(listed, "listed video") if part else count_text(evaluated, "video")


def _interval(figure: dict[str, Any]) -> str:
    return f"95% interval {100 * figure['low']:.1f} to {100 * figure['high']:.1f}"


def _levels(report: dict[str, Any], caption: str, *, brief: bool = False) -> Table:
    """Return the accuracy of each level; when brief, without the column that explains the level."""
    accuracy, coverage, protocol = report["accuracy"], report["coverage"], report["protocol"]
    clips, views = protocol["num_clips"], "as given"
    if clips is not None:
        crops = f", mean of its {protocol['num_crops']} crops" if protocol["num_crops"] > 1 else ""
        views = f"the only clip{crops}" if clips == 1 else f"mean of all {protocol['num_views']} views"
    evaluated = count_text(coverage["evaluated"], "evaluated video")
    levels = [("video-level", accuracy["evaluated"]["video"], f"{views}, {evaluated}")]
    if coverage["listed"] not in (None, coverage["evaluated"]):
        over = f"{views}, {coverage['listed']:,} listed videos, failed = wrong"
        levels.append(("video-level, listed", accuracy["listed"]["video"], over))
    if clips not in (None, 1):  # with one clip, all levels have the same figures
        levels.append(("centre-clip", accuracy["evaluated"]["centre_clip"], _centre_clip(clips) + crops))
        levels.append(("clip-level", accuracy["evaluated"]["clip"], f"each clip{crops}"))
    shown = figures_shown(report["num_classes"])
    columns = 1 + len(shown) + (not brief)
    rows = [[name, *accuracy_cells(figures, shown), scored][:columns] for name, figures, scored in levels if figures]
    header = ["level", *shown.values(), "what is scored"]
    return Table(caption, header[:columns], rows, ("l" + "r" * len(shown) + "l")[:columns])


def _centre_clip(num_clips: int) -> str:
    if num_clips == 0:
        return "the middle clip"  # clips slide over the video
    centre = num_clips // 2  # counted from 0
    return f"{_ORDINALS[centre]} of {num_clips} clips" if centre < 10 else f"clip {centre + 1} of {num_clips}"


def _accuracy(report: dict[str, Any]) -> list[Node]:
    nodes: list[Node] = [_levels(report, "Accuracy by level, with 95% intervals")]
    if report["accuracy"]["evaluated"]["clip"] and report["protocol"]["num_clips"] != 1:
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
    if report["complete"] and coverage["listed"] is not None and not coverage["failed"]:
        return []
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


def _training(report: dict[str, Any]) -> list[Node]:
    curves = report["training"]
    if not curves:
        return []
    best = max((top1 for _, top1 in curves.get("val/top1", [])), default=None)
    known = "" if best is None else f"; the best validation top-1 is {percent(best)}"
    caption = "Loss, top-1 and learning rate of the training run. Its validation may score other views than this page."
    alt = f"Lines: loss, top-1 and learning rate by epoch{known}."
    return [Chart(draw_training(curves), "training", alt, caption)]


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
        f"confidence {percent(calibration['mean_confidence'])} over {count_text(calibration['videos'], 'video')}."
    )
    rows = [
        [f"{b['low']:.2f} to {b['high']:.2f}", b["videos"], b["confidence"], b["accuracy"]]
        for b in calibration["bins"]
        if b["videos"]
    ]
    table = Table("Bins of confidence", ["confidence", "videos", "mean confidence", "top-1"], rows, "rn%%")
    return [Text(text), charts.reliability_chart([("", calibration)]), table]


def _mistakes(report: dict[str, Any]) -> list[Node]:
    mistakes, top1 = report["confident_mistakes"], (report["accuracy"]["evaluated"]["video"] or {}).get("top1")
    wrong = top1["total"] - top1["correct"] if top1 else None
    if not mistakes:  # wrong videos without any: their scores are NaN
        return [Text("No evaluated video is wrong.")] if wrong == 0 else []

    def score(value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:.3g}" if report["calibration"] is None else percent(value)  # without calibration: no share

    rows = [
        [m["video_id"], m["predicted"], score(m["confidence"]), m["label"], score(m["label_score"]), m["label_place"]]
        for m in mistakes
    ]
    header = ["video", "predicted", "confidence", "label", "label score", "label rank"]
    which = f"{len(rows)} of {wrong:,} wrong videos, highest score first"
    if len(rows) == wrong:
        which = "The only wrong video" if wrong == 1 else f"The {wrong} wrong videos, highest score first"
    table = Table(f"{which}; a label may be wrong, too", header, rows, "clrlrn")
    return [FilmStrips(table, [m["path"] for m in mistakes])]


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
