"""One page for several runs: their accuracies side by side, grouped by the list of videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dnl_video.naming import network_names
from dnl_video.report.build import build_report, count_text
from dnl_video.report.document import Document, Section, Table, Text, accuracy_text, figures_shown, percent
from dnl_video.report.origin import curves_of, facts_of
from dnl_video.results.predictions import Predictions


def build_index(runs: Sequence[tuple[str, Predictions]]) -> list[dict[str, Any]]:
    """Return the lists of videos, each {source, sha256, listed, num_classes, runs}, and its runs by falling top-1.

    Args:
        runs: Pairs of a predictions directory (or results file) and its labelled predictions.

    Raises:
        InputError: Videos have no labels.
    """
    names = network_names([facts_of(predictions, directory) for directory, predictions in runs])
    lists: dict[str, dict[str, Any]] = {}
    for name, (directory, predictions) in zip(names, runs, strict=True):
        report = build_report(predictions)
        entry = {"name": name, "directory": directory, "val_top1": curves_of(predictions, directory).get("val/top1")}
        entry |= {part: report[part] for part in ("accuracy", "coverage", "complete", "protocol", "run")}
        # A part of a list (--limit-videos) is another list. Two results files without a list may be of other videos.
        videos = {**report["manifest"], "listed": report["coverage"]["listed"], "num_classes": report["num_classes"]}
        videos["source"] = videos["source"] or directory
        key = str([videos["sha256"] or directory, videos["listed"], videos["num_classes"]])
        lists.setdefault(key, {**videos, "runs": []})["runs"].append(entry)
    for group in lists.values():
        group["runs"].sort(key=lambda run: -_accuracy(run, "top1")[1])
    return list(lists.values())


def index_summary(lists: Sequence[dict[str, Any]]) -> list[Table]:
    """Return the first columns of the tables of `build_index`, for the terminal."""
    tables = [_table(one, Path()) for one in lists]
    return [Table(t.caption, t.header[:2], [row[:2] for row in t.rows], t.kinds[:2]) for t in tables]


def index_document(lists: Sequence[dict[str, Any]], page: Path) -> Document:
    """Return the page of `build_index`, with links relative to the page's folder."""
    text = "Brackets are 95% intervals for the choice of videos, not for training seeds."
    if len(lists) > 1:
        text += " Runs on different lists of videos are in different tables, because their figures cannot be compared."
    sections = [Section(f"{number}. {_title(one)}", [_table(one, page)]) for number, one in enumerate(lists, 1)]
    title = count_text(sum(len(one["runs"]) for one in lists), "run")
    return Document(title, [Text(text, "note")], sections, broad=True)


def _accuracy(run: dict[str, Any], key: str) -> tuple[str, float]:
    """Return an accuracy as text, top-1 with its interval, and its sort key."""
    figure = (run["accuracy"]["evaluated"]["video"] or {}).get(key)
    if figure is None:
        return "-", -1.0
    return accuracy_text(figure) if key == "top1" else percent(figure["value"]), figure["value"]


def _title(group: dict[str, Any]) -> str:
    listed = "" if group["listed"] is None else f", {count_text(group['listed'], 'video')}"
    return f"{group['source']}{listed}, {count_text(group['num_classes'], 'class', 'classes')}"


def _table(group: dict[str, Any], page: Path) -> Table:
    shown, rows = figures_shown(group["num_classes"]), []
    for run in group["runs"]:
        report, coverage = Path(run["directory"]) / "report.html", run["coverage"]
        unfinished = "" if run["complete"] else f" of {coverage['listed']:,}, unfinished"
        points, clips, crops = run["val_top1"] or [], run["protocol"]["num_clips"], run["protocol"]["num_crops"]
        parameters = float(run["run"].get("parameters", "0").replace(",", ""))
        rows.append(
            [
                (run["name"], quote(Path(os.path.relpath(report, page)).as_posix()) if report.is_file() else ""),
                *(_accuracy(run, key) for key in shown),
                (f"{coverage['evaluated']:,}{unfinished}", coverage["evaluated"]),
                coverage["failed"],
                "" if clips is None else f"{clips} x {crops}",
                (f"{parameters / 1e6:.2f}M", parameters) if parameters else "",
                run["run"].get("date", "")[:10],
                (percent(max(value for _, value in points)), points) if points else ("", []),
            ]
        )
    header = ["network", *shown.values(), "videos", "failed", "views", "parameters", "date", "best validation"]
    kinds = f"a{'r' * len(shown)}rnrrrs"
    known = [i for i in range(len(header)) if any(row[i] not in ("", ("", [])) for row in rows)]
    caption = f"Runs on {_title(group)}, highest top-1 first; views are clips x crops"
    cells = [[row[i] for i in known] for row in rows]
    return Table(caption, [header[i] for i in known], cells, "".join(kinds[i] for i in known), sortable=True)
