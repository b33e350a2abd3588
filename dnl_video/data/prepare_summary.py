"""What `prepare` counted, for machines (JSON) and people (a table)."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnl_video.data.prepare import ListedVideo

SCHEMA = "dnl-video-prepare/1"
_SMALLEST = 5
_SHOWN_REASONS = 8


def summarise(videos: Sequence[ListedVideo], source: str) -> dict[str, Any]:
    """Count.

    Returns:
        schema, source; listed = duplicates + missing + broken + usable (found = broken + usable); reasons: texts of
        broken files and how many; classes: how many, and usable videos per class (min, median, max, the smallest);
        duplicates: rows listed again, with their reason; copies: paths of usable files with equal size and equal first
        64 KiB; codecs and decoders of the usable files; hours of video.
    """
    status = Counter(video.status for video in videos)
    usable = [video for video in videos if video.status == "ok"]
    reasons = Counter(v.reason.replace(v.path, "the file") for v in videos if v.status == "broken")
    copies = defaultdict(list)
    for video in usable:
        if video.content is not None:
            copies[video.content].append(video.path)
    return {
        "schema": SCHEMA,
        "source": source,
        "listed": len(videos),
        "duplicates": status["duplicate"],
        "found": status["ok"] + status["broken"],
        "missing": status["missing"],
        "broken": status["broken"],
        "usable": status["ok"],
        "reasons": dict(reasons.most_common()),
        "classes": _classes(videos),
        "duplicate_rows": {v.row.video_id: v.reason for v in videos if v.status == "duplicate"},
        "copies": [paths for paths in copies.values() if len(paths) > 1],
        "codecs": dict(Counter(video.facts["codec"] for video in usable).most_common()),
        "decoders": dict(Counter(video.facts["decoder"] or "images" for video in usable).most_common()),
        "hours": round(sum(video.facts["num_frames"] / video.facts["fps"] for video in usable) / 3600, 3),
    }


def _classes(videos: Sequence[ListedVideo]) -> dict[str, Any] | None:
    listed = Counter(video.label for video in videos if video.status != "duplicate" and video.label)
    if not listed:
        return None
    usable = Counter(video.label for video in videos if video.status == "ok")
    counts = [usable[name] for name in listed]
    smallest = sorted(listed, key=lambda name: (usable[name], name))[:_SMALLEST]
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
    shown = list(summary["reasons"].items())[:_SHOWN_REASONS]
    if shown:
        lines.append("broken because")
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
            lines.append(f"warning: {len(classes['empty'])} classes have no usable video: {_some(classes['empty'])}")
    if summary["copies"]:
        pairs = [" = ".join(paths[:3]) for paths in summary["copies"]]
        lines.append(f"warning: {len(pairs)} sets of files with the same content: {_some(pairs)}")
    lines.append("decoded by  " + ", ".join(f"{name} {count:,}" for name, count in summary["decoders"].items()))
    return "\n".join(lines)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SMALLEST]) + (", ..." if len(names) > _SMALLEST else "")
