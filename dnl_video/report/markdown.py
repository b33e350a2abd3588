"""report.md: the report in GitHub-flavoured Markdown, for a paper's appendix or a model card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

_MOST_FAILED = 50  # failed videos listed by name; report.json has all


def headline(report: dict[str, Any]) -> str:
    """Return the result in one sentence: figures with their intervals, on what, by which protocol."""
    coverage, figures = report["coverage"], report["accuracy"]["evaluated"]["video"]
    if figures is None:
        return f"{model_name(report)}: no video could be evaluated, all {coverage['failed']} failed."
    shares = ", ".join(
        f"{name} {percent(figures[key]['value'])} ({interval(figures[key])})"
        for name, key in (("top-1", "top1"), ("top-5", "top5"), ("mean class accuracy", "mean_class_accuracy"))
    )
    of_listed = "videos" if coverage["listed"] is None else f"of {coverage['listed']:,} listed videos"
    of_listed = f"{coverage['evaluated']:,} {of_listed}"
    unfinished = "" if report["complete"] else f"Incomplete ({coverage['finished']} of {coverage['listed']} videos). "
    return f"{unfinished}{model_name(report)}: {shares} on {of_listed}; {report['protocol']['text']}."


def model_name(report: dict[str, Any]) -> str:
    """Return such as "slow_r50 + dnl"; of another project's results the file's name."""
    model = report["model"]
    if not model and "results file" in report["run"]:
        return PurePath(report["run"]["results file"]).name
    name, context = str(model.get("architecture", "model")), model.get("context", "none")
    return name if context == "none" else f"{name} + {context}"


def percent(share: float) -> str:
    """Return such as "73.5%"."""
    return f"{100 * share:.1f}%"


def interval(figure: dict[str, Any]) -> str:
    """Return such as "95% interval 72.9 to 74.1"."""
    return f"95% interval {100 * figure['low']:.1f} to {100 * figure['high']:.1f}"


def figure_text(figure: dict[str, Any] | None) -> str:
    """Return such as "73.5% [72.9, 74.1]", or a dash for None."""
    if figure is None:
        return "-"
    return f"{percent(figure['value'])} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def score_text(report: dict[str, Any], score: float | None) -> str:
    """Return a class score such as "73.5%"; as a plain number where scores are no probabilities."""
    if score is None:
        return "-"
    return f"{score:.3g}" if report["calibration"] is None else percent(score)


def levels(report: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the rows of the accuracy table: name, what exactly is scored, figures (empty when there are none)."""
    evaluated, coverage, protocol = report["accuracy"]["evaluated"], report["coverage"], report["protocol"]
    if protocol["num_clips"] is None:
        rows = [("video-level", f"as given, {coverage['evaluated']:,} evaluated videos", evaluated["video"])]
        if coverage["listed"] is not None:
            figures = report["accuracy"]["listed"]["video"]
            rows.append(
                ("video-level, listed", f"as given, {coverage['listed']:,} listed videos, failed = wrong", figures)
            )
        return [(name, what, figures or {}) for name, what, figures in rows]
    last, crops = protocol["num_clips"] - 1, protocol["num_crops"]
    views = f"mean of all {protocol['num_views']} views"
    averaged = f", its {crops} crops averaged" if crops > 1 else ""
    rows = [
        ("video-level", f"{views}, {coverage['evaluated']:,} evaluated videos", evaluated["video"]),
        (
            "video-level, listed",
            f"{views}, {coverage['listed']:,} listed videos, failed = wrong",
            report["accuracy"]["listed"]["video"],
        ),
        ("centre-clip", f"clip {protocol['num_clips'] // 2} of 0 to {last}{averaged}", evaluated["centre_clip"]),
        ("clip-level", f"every clip alone{averaged}", evaluated["clip"]),
    ]
    return [(name, what, figures or {}) for name, what, figures in rows]


def render_markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    parts = [f"# Accuracy of {escape(model_name(report))}", f"**{escape(headline(report))}**"]
    parts += [f"> **{escape(note)}**" for note in report["notes"]]
    for title, body in (
        ("Accuracy", _accuracy(report)),
        ("Top-1 by number of clips", _by_num_clips(report)),
        ("Coverage", _coverage(report)),
        ("What was evaluated", _origin(report)),
        ("Most confused classes", _confused(report)),
        ("Most confident mistakes", _mistakes(report)),
        ("Calibration", _calibration(report)),
        ("Classes", _classes(report)),
    ):
        if body:
            parts += [f"## {title}", body]
    return "\n\n".join(parts) + "\n"


def _accuracy(report: dict[str, Any]) -> str:
    rows = [
        [name, what, *(figure_text(figures.get(k)) for k in ("top1", "top5", "mean_class_accuracy"))]
        for name, what, figures in levels(report)
    ]
    trivial = f" With {report['num_classes']} classes, top-5 is always right." if report["num_classes"] <= 5 else ""
    return (
        table(["level", "scores", "top-1", "top-5", "mean class accuracy"], rows, "llrrr")
        + "\n\nBrackets are 95% intervals for the choice of videos, not of training seeds: Wilson's; for mean class "
        "accuracy and for clips Wilson's at the effective number of videos. Equal scores count as wrong." + trivial
    )


def _by_num_clips(report: dict[str, Any]) -> str:
    points = report["by_num_clips"]
    if not points or len(points) < 2:
        return ""
    rows = [[str(point["num_clips"]), figure_text(point["top1"])] for point in points]
    return table(["clips per video (evenly spaced)", "top-1"], rows, "rr")


def _coverage(report: dict[str, Any]) -> str:
    coverage = report["coverage"]
    names = ("listed", "finished", "evaluated", "failed")
    text = table(names, [["unknown" if coverage[name] is None else str(coverage[name]) for name in names]], "rrrr")
    if not coverage["failed"]:
        return text
    reasons = [[escape(f["reason"]), str(f["videos"]), code(f["example"])] for f in coverage["failures"]]
    failed = coverage["failed_videos"]
    listed = "\n".join(
        f"- {code(v['path'])}: {escape(v['error'].removeprefix(v['path'] + ': '))}" for v in failed[:_MOST_FAILED]
    )
    more = f"\n- and {len(failed) - _MOST_FAILED} more, in report.json" if len(failed) > _MOST_FAILED else ""
    return f"{text}\n\n{table(['why videos failed', 'videos', 'example'], reasons, 'lrl')}\n\n{listed}{more}"


def origin(report: dict[str, Any]) -> dict[str, str]:
    """Return what was evaluated and how: name to value, without what is unknown."""
    found = {
        "model": _settings(report["model"]),
        "weights": report["weights"]["name"],
        "weights sha256": report["weights"]["sha256"],
        "protocol": report["protocol"]["text"],
        "preprocessing": _settings(report["preprocessing"]),
        "videos": report["manifest"]["source"],
        "videos sha256": report["manifest"]["sha256"],
        "versions": _settings(report["versions"]),
        **{key: str(value) for key, value in report["run"].items()},
    }
    return {key: value for key, value in found.items() if value}


def _origin(report: dict[str, Any]) -> str:
    as_code = ("weights", "weights sha256", "videos", "videos sha256")
    rows = [[escape(k), code(v) if k in as_code else escape(v)] for k, v in origin(report).items()]
    return table(["", ""], rows, "ll")


def _settings(values: dict[str, Any]) -> str:
    """Return such as "architecture slow_r50, context dnl", nested values in parentheses, others as in YAML."""
    return ", ".join(
        f"{key} ({_settings(value)})"
        if isinstance(value, dict)
        else f"{key} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in values.items()
    )


def _confused(report: dict[str, Any]) -> str:
    rows = [
        [escape(p["label"]), escape(p["predicted"]), str(p["videos"]), percent(p["share_of_label"])]
        for p in report["confused_pairs"]
    ]
    return table(["label", "predicted", "videos", "of the label's videos"], rows, "llrr") if rows else ""


def _mistakes(report: dict[str, Any]) -> str:
    rows = [
        [
            code(m["video_id"]),
            escape(m["label"]),
            escape(m["predicted"]),
            score_text(report, m["confidence"]),
            str(m["label_place"]),
        ]
        for m in report["confident_mistakes"]
    ]
    return table(["video", "label", "predicted", "confidence", "place of the label"], rows, "lllrr") if rows else ""


def _calibration(report: dict[str, Any]) -> str:
    calibration = report["calibration"]
    if not calibration:
        return ""
    rows = [
        [f"{b['low']:.2f} to {b['high']:.2f}", str(b["videos"]), percent(b["confidence"]), percent(b["accuracy"])]
        for b in calibration["bins"]
        if b["videos"]
    ]
    return (
        f"Expected calibration error {percent(calibration['ece'])} ({len(calibration['bins'])} bins); "
        f"mean confidence {percent(calibration['mean_confidence'])}.\n\n"
        + table(["confidence", "videos", "mean confidence", "accuracy"], rows, "rrrr")
    )


def _classes(report: dict[str, Any]) -> str:
    rows = []
    for c in report["per_class"]:
        accuracy = figure_text({**c, "value": c["accuracy"]}) if c["videos"] else "-"
        other = c["most_taken_for"]
        taken = f"{escape(other['name'])} ({other['videos']})" if other else ""
        rows.append([escape(c["name"]), str(c["videos"]), accuracy, str(c["failed"]), taken])
    return table(["class", "videos", "top-1", "failed", "most often taken for"], rows, "lrrrl")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """Return a Markdown table; `align` has l or r for each column. Cells must be escaped."""
    rule = ["---:" if a == "r" else "---" for a in align]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    text = re.sub(r"[\\`*|<~]", r"\\\g<0>", text)
    # Underscores inside words, lone brackets and ampersands mean nothing, and are left readable.
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])|(?<=\])\(|&(?=#?\w+;)", r"\\\g<0>", text)
    return " ".join(text.split())


def code(text: str) -> str:
    """Return text as a code span that survives in a table."""
    text = " ".join(text.split()).replace("|", "\\|")
    if not text:
        return ""
    return f"`` {text} ``" if "`" in text else f"`{text}`"
