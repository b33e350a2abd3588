"""Writing a report's files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dnl_video.errors import InputError
from dnl_video.report.build import build_report
from dnl_video.report.film_strips import FrameReader
from dnl_video.report.html_report import render_html
from dnl_video.report.markdown import render_markdown
from dnl_video.results.predictions import read_predictions, write_atomically


def write_report(directory: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> list[Path]:
    """Write report.json, report.md and report.html of a predictions directory, without frames of videos.

    Args:
        directory: The predictions directory.
        output: Folder to write into, made when absent; None is the predictions directory.

    Returns:
        The files written.

    Raises:
        InputError: There are no readable, labelled predictions, or the folder cannot be written.
    """
    return save_report(build_report(read_predictions(directory)), directory if output is None else output)


def save_report(
    report: dict[str, Any], output: str | os.PathLike[str], read_frames: FrameReader | None = None
) -> list[Path]:
    """Write a built report as report.json, report.md and report.html.

    Args:
        report: The dictionary of `build_report`.
        output: Folder to write into, made when absent.
        read_frames: Reads a few frames of a video, for the HTML; None shows none.

    Returns:
        The files written.

    Raises:
        InputError: The folder cannot be written.
    """
    output = Path(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the report's folder {output}: {error.strerror}; choose another --output"
        ) from error
    text = json.dumps(report, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    # Lone surrogates of undecodable file names become JSON escapes, and question marks elsewhere.
    files = {
        "report.json": text.encode("utf-8", "backslashreplace"),
        "report.md": render_markdown(report).encode("utf-8", "replace"),
        "report.html": render_html(report, read_frames).encode("utf-8", "replace"),
    }
    for name, content in files.items():
        write_atomically(output / name, content)
    return [output / name for name in files]
