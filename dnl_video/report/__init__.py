"""Accuracy reports and comparisons of predictions directories: JSON, Markdown and one HTML page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dnl_video.files import dump_json, encode, make_folder, write_atomic
from dnl_video.report.build import build_report
from dnl_video.report.compare_document import compare_document
from dnl_video.report.document import Document
from dnl_video.report.index import index_document
from dnl_video.report.render_html import FrameReader, Links, render_html
from dnl_video.report.render_text import render_markdown
from dnl_video.report.report_document import headline, report_document

__all__ = ["build_report", "headline", "save_comparison", "save_index", "save_report"]

_Path = str | os.PathLike[str]


def save_report(
    report: dict[str, Any], output: _Path, read_frames: FrameReader | None = None, link: Links | None = None
) -> list[Path]:
    """Write a report of `build_report` as report.json, report.md and report.html; return the files.

    Args:
        report: The report.
        output: Folder to write into, made when missing.
        read_frames: Reads frames of the videos in the HTML page; None leaves them out.
        link: Returns the address of a video, relative to the output; None makes no links.

    Raises:
        InputError: The folder cannot be written.
    """
    document = report_document(report)
    return _save("report", report, document, render_html(document, read_frames, link), Path(output))


def save_comparison(comparison: dict[str, Any], output: _Path) -> list[Path]:
    """Write a comparison of `build_comparison` as compare.json, compare.md and compare.html; see `save_report`."""
    document = compare_document(comparison)
    return _save("compare", comparison, document, render_html(document), Path(output))


def save_index(lists: Sequence[dict[str, Any]], page: Path) -> list[Path]:
    """Write the page of `build_index`, and beside it the same as JSON and Markdown; see `save_report`."""
    document = index_document(lists, page.parent)
    return _save(page.stem, {"lists": lists}, document, render_html(document), page.parent)


def _save(stem: str, numbers: dict[str, Any], document: Document, page: str, output: Path) -> list[Path]:
    make_folder(output)
    files = {
        # Undecodable file names hold lone surrogates: JSON escapes them, the others show question marks.
        f"{stem}.json": encode(dump_json(numbers, indent=1) + "\n"),
        f"{stem}.md": render_markdown(document).encode("utf-8", "replace"),
        f"{stem}.html": page.encode("utf-8", "replace"),
    }
    for name, content in files.items():
        write_atomic(output / name, content)
    return [output / name for name in files]
