"""Writing a report's files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnl_video.errors import InputError
from dnl_video.files import write_atomic
from dnl_video.report.build import build_report
from dnl_video.report.film_strips import FrameReader
from dnl_video.report.html_report import render_html
from dnl_video.report.markdown import render_markdown
from dnl_video.results.reader import read_predictions


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
    text = json.dumps(report, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    return write_files(
        output,
        {
            "report.json": text,
            "report.md": render_markdown(report),
            "report.html": render_html(report, read_frames),
        },
    )


def write_files(output: str | os.PathLike[str], files: Mapping[str, str]) -> list[Path]:
    """Write texts, by the names of their files, into a folder that is made when absent; return the files.

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
    for name, text in files.items():
        # Lone surrogates of undecodable file names become JSON escapes, and question marks elsewhere.
        errors = "backslashreplace" if name.endswith(".json") else "replace"
        write_atomic(output / name, text.encode("utf-8", errors))
    return [output / name for name in files]
