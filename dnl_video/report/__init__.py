"""Accuracy reports and comparisons of predictions directories: JSON, Markdown and one HTML page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dnl_video.errors import InputError
from dnl_video.files import dump_json, encode, write_atomic
from dnl_video.report.build import build_report
from dnl_video.report.compare_document import compare_document
from dnl_video.report.document import Document
from dnl_video.report.render_html import FrameReader, render_html
from dnl_video.report.render_text import render_markdown
from dnl_video.report.report_document import headline, report_document
from dnl_video.results.reader import read_predictions

__all__ = ["build_report", "headline", "save_comparison", "save_report", "write_report"]

_Path = str | os.PathLike[str]


def write_report(directory: _Path, output: _Path | None = None) -> list[Path]:
    """Write report.json, report.md and report.html of a predictions directory, without frames of videos.

    Args:
        directory: The predictions directory.
        output: Folder to write into, created if missing; None is the predictions directory.

    Returns:
        The files written.

    Raises:
        InputError: There are no readable, labelled predictions, or the folder cannot be written.
    """
    return save_report(build_report(read_predictions(directory)), directory if output is None else output)


def save_report(report: dict[str, Any], output: _Path, read_frames: FrameReader | None = None) -> list[Path]:
    """Write a report of `build_report` as `write_report` does; `read_frames` gives the HTML frames of videos."""
    return _save("report", report, report_document(report), output, read_frames)


def save_comparison(comparison: dict[str, Any], output: _Path) -> list[Path]:
    """Write a comparison of `build_comparison` as compare.json, compare.md and compare.html."""
    return _save("compare", comparison, compare_document(comparison), output, None)


def _save(
    stem: str, numbers: dict[str, Any], document: Document, output: _Path, read_frames: FrameReader | None
) -> list[Path]:
    output = Path(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot create the report's folder {output}: {error.strerror}; choose another --output"
        ) from error
    files = {
        # Undecodable file names hold lone surrogates: JSON escapes them, the others show question marks.
        f"{stem}.json": encode(dump_json(numbers, indent=1) + "\n"),
        f"{stem}.md": render_markdown(document).encode("utf-8", "replace"),
        f"{stem}.html": render_html(document, read_frames).encode("utf-8", "replace"),
    }
    for name, content in files.items():
        write_atomic(output / name, content)
    return [output / name for name in files]
