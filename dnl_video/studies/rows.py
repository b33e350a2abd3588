"""The rows of a study, one for each finished run, and the settings that all runs share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnl_video.errors import InputError
from dnl_video.files import dump_json, list_folder, make_folder, read_json_lines, write_atomic
from dnl_video.report.curves import read_curves
from dnl_video.results.metrics import rank_of_label
from dnl_video.results.reader import read_predictions
from dnl_video.spec import differences

ROWS_NAME = "runs.jsonl"
_SETTINGS_NAME = "settings.json"


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings that all runs share, or refuse a folder whose runs have other settings.

    Raises:
        InputError: The settings differ, or the folder holds other files or cannot be written.
    """
    path = folder / _SETTINGS_NAME
    if not path.exists():
        if folder.is_file() or (folder.is_dir() and list_folder(folder)):
            raise InputError(f"output_dir {folder} holds something else; give a new folder")
        make_folder(folder)
        write_atomic(path, dump_json(settings, indent=2) + "\n")
        return
    try:
        found = differences(json.loads(path.read_text(encoding="utf-8")), json.loads(dump_json(settings)))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read; give another output_dir, or remove this one") from error
    if found:
        key, (old, new) = next(iter(found.items()))
        raise InputError(
            f"{folder} holds runs with {key}={old}, not {new}; give another output_dir, or the same settings"
        )


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of finished runs; a half-written line is skipped, so its run is repeated.

    Raises:
        InputError: A line is not a row of a study.
    """
    path = folder / ROWS_NAME
    rows = read_json_lines(path)
    for row in rows:
        if not isinstance(row, dict) or not {"context", "seed", "top1"} <= row.keys():
            raise InputError(f"{path}: {dump_json(row)} is not a row of a study; delete it, and its run is repeated")
    return rows


def accuracy(predictions: Path) -> dict[str, Any]:
    """Return top-1 over all videos of a predictions directory, and its counts. A failed video counts as wrong."""
    table = read_predictions(predictions, clip_scores=False)
    correct = int((rank_of_label(table.scores, table.label) == 0).sum())
    return {"top1": correct / len(table.label), "correct": correct, "videos": len(table.label)}


def validation_curve(run: Path) -> list[tuple[int, float]]:
    """Return (epochs done, validation top-1) of a run, from its CSV logs."""
    return [(round(epochs), top1) for epochs, top1 in read_curves(run).get("val/top1", [])]
