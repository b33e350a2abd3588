"""Counts of `dnl-video prepare`: what a list and its files are like. Standard library only."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from dnl_video.data.class_ids import some
from dnl_video.data.prepare_list import CheckedVideo

_LISTED_NAMES = 5
_LISTED_REASONS = 8


def summarise(videos: Sequence[CheckedVideo], source: str, class_names: Sequence[str] = ()) -> dict[str, Any]:
    """Count videos by status, reason, class, codec and decoder.

    Args:
        videos: The videos, checked.
        source: The list.
        class_names: All names of the class list, also of classes without a listed video.

    Returns:
        listed = duplicates + missing + broken + usable; found = broken + usable; reasons: number of broken files by
        reason; duplicate_rows: reason by id; copies: paths of usable files with equal content; longer: number of usable
        files that are much longer than their clip; and, of the usable videos, numbers by class, codec and decoder.
    """
    status = Counter(video.status for video in videos)
    usable = [video for video in videos if video.status == "ok"]
    reasons = Counter(v.reason.replace(v.path, "the file") for v in videos if v.status == "broken")
    longer = [video for video in usable if video.is_longer]
    copies = defaultdict(list)
    for video in usable:
        if video.content is not None and not video.cut:
            copies[video.content].append(video.path)
    return {
        "schema": "dnl-video-prepare/1",
        "source": source,
        "listed": len(videos),
        "duplicates": status["duplicate"],
        "found": status["ok"] + status["broken"],
        "missing": status["missing"],
        "broken": status["broken"],
        "usable": status["ok"],
        "reasons": dict(reasons.most_common()),
        "classes": _classes(videos, class_names),
        "duplicate_rows": {v.row.video_id: v.reason for v in videos if v.status == "duplicate"},
        "copies": [paths for paths in copies.values() if len(paths) > 1],
        "longer": len(longer),
        "longer_example": longer[0].path if longer else "",
        "variable_rate": sum(bool(video.facts.get("variable_rate")) for video in usable),
        "codecs": dict(Counter(video.facts["codec"] for video in usable).most_common()),
        "decoders": dict(Counter(video.facts["decoder"] or "images" for video in usable).most_common()),
        "hours": round(sum(video.facts["num_frames"] / video.facts["fps"] for video in usable) / 3600, 3),
    }


def _classes(videos: Sequence[CheckedVideo], class_names: Sequence[str]) -> dict[str, Any] | None:
    listed = Counter(video.label for video in videos if video.status != "duplicate" and video.label)
    if not listed:
        return None
    listed.update(dict.fromkeys(class_names, 0))
    usable = Counter(video.label for video in videos if video.status == "ok")
    counts = [usable[name] for name in listed]
    smallest = sorted(listed, key=lambda name: (usable[name], name))[:_LISTED_NAMES]
    return {
        "count": len(listed),
        "min": min(counts),
        "median": statistics.median(counts),
        "max": max(counts),
        "smallest": {name: {"usable": usable[name], "listed": listed[name]} for name in smallest},
        "empty": sorted(name for name in listed if not usable[name]),
    }


def summary_text(summary: dict[str, Any]) -> str:
    """Return the summary as lines for a terminal."""
    share = 100 * summary["usable"] / max(summary["listed"] - summary["duplicates"], 1)
    lines = [f"{name:<12}{summary[name]:>9,}" for name in ("listed", "duplicates", "missing", "found", "broken")]
    lines.append(
        f"{'usable':<12}{summary['usable']:>9,}  ({share:.1f} % of the videos listed, {summary['hours']:.1f} h)"
    )
    shown = list(summary["reasons"].items())[:_LISTED_REASONS]
    if shown:
        lines.append("broken files by reason")
        lines += [f"  {count:>7,}  {reason}" for reason, count in shown]
        if len(summary["reasons"]) > len(shown):
            lines.append(f"           and {len(summary['reasons']) - len(shown)} more reasons")
    if classes := summary["classes"]:
        lines.append(
            f"{classes['count']} classes with {classes['min']} to {classes['max']} usable videos, "
            f"median {classes['median']:g}; smallest: "
            + ", ".join(f"{name} {n['usable']} of {n['listed']}" for name, n in classes["smallest"].items())
        )
        if classes["empty"]:
            lines.append(f"warning: {len(classes['empty'])} classes have no usable video: {some(classes['empty'])}")
    if division := summary.get("division"):
        lines.append(f"divided into {division['train']:,} training and {division['val']:,} validation videos")
        if division["groups"] < division["train"] + division["val"]:
            lines[-1] += f", in {division['groups']:,} groups"
        if names := division["one_side"]:
            lines.append(f"warning: {len(names)} classes have videos on one side only: {', '.join(names)}")
    if summary["copies"]:
        pairs = [" = ".join(paths[:3]) for paths in summary["copies"]]
        lines.append(f"warning: {len(pairs)} sets of files with the same content: {some(pairs)}")
    if summary["longer"]:
        lines.append(
            f"warning: {summary['longer']} files are much longer than their clip, for example "
            f"{summary['longer_example']}; --cut writes only the clips"
        )
    if summary["variable_rate"]:
        lines.append(f"{summary['variable_rate']:,} files have a variable frame rate")
    lines.append("decoded by  " + ", ".join(f"{name} {count:,}" for name, count in summary["decoders"].items()))
    return "\n".join(lines)
