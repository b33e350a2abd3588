"""The rows of a study, one a finished run, in the order in which they finished; and what all of them share."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnl_video.errors import InputError
from dnl_video.files import dump_json, write_atomic
from dnl_video.results.metrics import rank_of_label
from dnl_video.results.reader import read_predictions

ROWS_NAME = "runs.jsonl"
_SETTINGS_NAME = "settings.json"


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write what all runs of the study share, or refuse a folder whose runs have other settings.

    Raises:
        InputError: They differ, or the folder holds something else or cannot be written.
    """
    path = folder / _SETTINGS_NAME
    if not path.exists():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise InputError(f"output_dir {folder} holds something else; give a new folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output_dir {folder} cannot be written ({error.strerror}); choose another") from error
        write_atomic(path, dump_json(settings, indent=2) + "\n")
        return
    there, here = _flat(_read_json(path)), _flat(json.loads(dump_json(settings)))
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            raise InputError(
                f"{folder} holds runs with {key}={there.get(key)}, not {here.get(key)}; give another output_dir, or "
                "the same settings"
            )


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of finished runs; a last one that was cut off in writing does not count.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / ROWS_NAME
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_atomic(path, whole)
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            row["context"], row["seed"], row["top1"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: line {number} is damaged; delete it, and its run is done again") from error
        rows.append(row)
    return rows


def append_row(folder: Path, row: Mapping[str, Any]) -> None:
    """Add the row of a finished run."""
    with (folder / ROWS_NAME).open("a", encoding="utf-8") as file:
        file.write(dump_json(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def accuracy(predictions: Path) -> dict[str, Any]:
    """Return top-1 over all videos of a predictions directory (one that cannot be read is wrong), and its counts."""
    table = read_predictions(predictions, clip_scores=False)
    correct = int((rank_of_label(table.scores, table.label) == 0).sum())
    return {"top1": correct / len(table.label), "correct": correct, "videos": len(table.label)}


def validation_curve(run: Path) -> list[tuple[int, float]]:
    """Return (epochs done, validation top-1) of a run, from its CSV logs."""
    points: dict[int, float] = {}
    for path in sorted((run / "logs").glob("csv*/metrics.csv"), key=lambda p: p.stat().st_mtime):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row.get("val/top1"):
                    points[int(row["epoch"]) + 1] = float(row["val/top1"])
    return sorted(points.items())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read; give another output_dir, or remove this one") from error


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix.rstrip("."): values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat
