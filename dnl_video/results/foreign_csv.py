"""Reads a CSV of scores: ``video_id,label,score_0,...,score_{K-1}``, one line per video."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError, nearest
from dnl_video.files import cell_text

_LAYOUT = "video_id,label,score_0,score_1,..."


def read_csv(
    path: Path, data: bytes, class_names: Sequence[str] | None
) -> tuple[list[str], NDArray[np.int64], NDArray[np.float32]]:
    """Return ids, labels and scores [n, K] of a CSV.

    Args:
        path: The file's name, for messages.
        data: The file's content.
        class_names: Class names; labels may be names or indices.

    Raises:
        InputError: The header is wrong or a line cannot be read.
    """
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(lines, [])]
        num_classes = len(header) - 2
        if header != ["video_id", "label", *(f"score_{c}" for c in range(num_classes))] or num_classes < 1:
            raise InputError(f"{path}: its first line is {','.join(header)[:80]!r}; give {_LAYOUT}")
        index = {name: c for c, name in enumerate(class_names or ())}
        ids: dict[str, int] = {}
        labels: list[int] = []
        scores: list[NDArray[np.float32]] = []
        for row in lines:
            where = f"{path}, line {lines.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(f"{where}: {len(row)} values, but the first line names {len(header)}")
            video_id = cell_text(row[0])
            if ids.setdefault(video_id, lines.line_num) != lines.line_num:
                raise InputError(
                    f"{where}: video {video_id!r} was already listed in line {ids[video_id]}; list it once"
                )
            labels.append(_label(cell_text(row[1].strip()), index, where))
            try:
                scores.append(np.array(row[2:], dtype=np.float32))
            except ValueError as error:
                raise InputError(f"{where}: a score is not a number ({error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is neither text nor a pickle; give {_LAYOUT}") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {lines.line_num}: {error}") from error
    if not scores:
        raise InputError(f"{path} has no video; give one line per video below {_LAYOUT}")
    return list(ids), np.array(labels, dtype=np.int64), np.stack(scores)


def _label(text: str, index: dict[str, int], where: str) -> int:
    if text in index:
        return index[text]
    if text.isascii() and text.isdigit():
        return int(text[:18])
    if index:
        raise InputError(f"{where}: label {text!r} is not in the class list{nearest(text, index)}")
    raise InputError(f"{where}: label {text!r} is not a class index; name the classes with --classes FILE")
