"""Reads the rows of general lists: CSVs with a header, JSON, `path label` lines. Standard library only."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

from dnl_video.data.folders import VIDEO_EXTENSIONS
from dnl_video.data.list_file import ADVICE, EXTENSION, ListFile, Listing, split_csv
from dnl_video.errors import InputError

KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_SPACED_LINE = re.compile(rf"""^(?:"([^"]+)"|'([^']+)'|(.*(?:{EXTENSION})))\s+(\S.*)$""", re.IGNORECASE)
# mmaction2 writes filename and frame_dir.
_JSON_PATHS = ("path", "filename", "file_name", "video", "video_path", "frame_dir")
_NO_OBJECTS = " is no JSON list of objects"
_COLUMNS = ("video_id", "split", "num_frames", "height", "width")


def read_columns(file: ListFile) -> Listing | None:
    """Read a CSV with a header, JSON objects or JSON lines; None for other files.

    A path and a label are needed; the columns that `prepare` writes are used.

    Raises:
        InputError: JSON has another form, or a path, `decoder` or `fps` cannot be used.
    """
    is_json = file.json is not None
    key = next((name for name in (_JSON_PATHS if is_json else _JSON_PATHS[:1]) if name in file.columns), None)
    if is_json and key is None:
        found = f", entry 0: no path in the keys {', '.join(file.objects[0])}" if file.objects else _NO_OBJECTS
        raise InputError(f"{file.path}{found}; give objects with one of the keys {', '.join(_JSON_PATHS)}, and label")
    if key is None or (file.labelled and not is_json and "label" not in file.columns):
        return None
    # Earlier versions of `prepare` record decord for files that it does not read exactly, such as mirrored ones.
    outdated = "codec" in file.columns and "variable_rate" not in file.columns
    rows = []
    for place, fields in file.records():
        name, label = fields.get(key), fields.get("label")
        if not name or not isinstance(name, str):
            raise InputError(f"{file.path}, {place}: the path is {name or 'empty'}; give the file of every video")
        if isinstance(label, list) and len(label) <= 1:  # mmaction2's converter writes lists of one label
            label = label[0] if label else None
        decoder = fields.get("decoder") or None
        if decoder not in (None, "decord", "av"):
            raise InputError(f"{file.path}, {place}: decoder is {decoder!r}; give decord, av, or leave it empty")
        decoder = None if outdated else decoder
        fps = _fps(file, place, fields.get("fps"))
        video_id, split, *sizes = (str(fields.get(column) or "") for column in _COLUMNS)
        known = all(size.isdecimal() and len(size) < 10 for size in sizes)
        recorded = (int(sizes[0]), int(sizes[1]), int(sizes[2])) if known else None
        rows.append(file.row(place, name, label, video_id, split=split, decoder=decoder, fps=fps, recorded=recorded))
    note = (
        f"{file.path}: an earlier version chose the decoders, so they are chosen anew; `prepare` again saves this time"
    )
    return file.listing(rows, notes=(note,) if outdated else ())


def _fps(file: ListFile, place: str, value: Any) -> float | None:
    if value in (None, ""):
        return None
    try:
        fps = float(value)
    except (TypeError, ValueError, OverflowError):
        fps = 0.0
    if not 0 < fps < math.inf:
        raise InputError(f"{file.path}, {place}: fps is {value!r}; give frames per second above 0, or leave it empty")
    return fps


def read_path_label(file: ListFile) -> Listing:
    """Read `path label` and `path frames label` lines with the separator that fits most of them.

    The label is the last field. `path frames label` needs a frame count in every line, and a note says so. Other lines
    with several numbers after the path have several labels.

    Raises:
        InputError: The header is unknown, or a line has no label.
    """
    has_header = file.delimiter == " " and file.header in (["path", "label"], ["path"], ["path", "frames", "label"])
    if not has_header:
        _refuse_unknown_header(file)
    start = file.first + has_header
    numbered = [(number, line.strip()) for number, line in enumerate(file.lines[start:], start + 1) if line.strip()]
    separator, pairs = _split_lines([line for _, line in numbered])
    numbers = [_split_numbers(line, separator, fields) for (_, line), fields in zip(numbered, pairs, strict=True)]
    folders = [split[0] for split in numbers if split and not split[0].lower().endswith(VIDEO_EXTENSIONS)]
    if len(folders) > 1 and 2 * len(set(folders)) <= len(folders):  # "clip 1", "clip 2": numbers are part of the names
        numbers = [None] * len(numbers)
    counted = _are_frame_counts(file, numbers)
    rows = []
    for (number, line), fields, split in zip(numbered, pairs, numbers, strict=True):
        if split is not None and counted:
            fields = split[0], split[-1]
        elif split is not None and _has_several_labels(file, split, fields):
            fields = split[0], " ".join(split[1:])
        bare = line.strip("\"'")
        if fields is None or bare.lower().endswith(VIDEO_EXTENSIONS):
            if file.labelled:
                shown = repr(line[:200])
                raise InputError(f"{file.path}, line {number}: {shown} has no label; give `path label`, the label last")
            fields = bare, ""
        rows.append(file.row(f"line {number}", *fields))
    note = f"{file.path}: lines are read as path, number of frames, label"
    return file.listing(rows, notes=(note,) if counted else ())


def _refuse_unknown_header(file: ListFile) -> None:
    header, where = file.header, f"{file.path}, line {file.first + 1}"
    known = {*KINETICS_COLUMNS, "is_cc", "path", "video_id"}
    looks_like_header = header[0] in known or header[-1] == "label" or len(known & set(header)) > 1
    if looks_like_header and not any(field.endswith(VIDEO_EXTENSIONS) for field in header):
        raise InputError(f"{where}: columns {','.join(header)} are not recognised; {ADVICE}")
    if file.delimiter == "," and len(header) >= 5 and all(re.fullmatch(r"\d+(\.\d+)?", field) for field in header[2:4]):
        raise InputError(
            f"{where}: this looks like an official Kinetics CSV without its header; "
            f"add the first line {','.join(KINETICS_COLUMNS)}"
        )
    columns = [name for name in header if name]
    following = next((line.strip() for line in file.lines[file.first + 1 :] if line.strip()), "0")
    is_row = split_csv(following, file.delimiter)[-len(columns) :][0].isdecimal()  # of a folder with a number as name
    if len(header) > 1 and columns == [str(i) for i in range(len(columns))] and not is_row:
        raise InputError(
            f"{where}: {','.join(header)} are column numbers, which pandas writes without names; "
            "name the columns path,label (df.columns = ['path', 'label'])"
        )


def _split_lines(lines: Sequence[str]) -> tuple[str, list[tuple[str, str] | None]]:
    """Return the separator that gives most videos, then most labels, and the path and label of each line."""
    separators = [*(separator for separator in "\t,;" if any(separator in line for line in lines)), " "]
    split = {separator: [_split_line(line, separator) for line in lines] for separator in separators}

    def fit(separator: str) -> tuple[int, int]:
        pairs = [pair for pair in split[separator] if pair is not None]
        return sum(path.lower().endswith(VIDEO_EXTENSIONS) for path, _ in pairs), len(pairs)

    best = max(separators, key=fit)
    return best, split[best]


def _split_line(line: str, separator: str) -> tuple[str, str] | None:
    """Split a line into path and label; return None if it has no such form."""
    if separator == " ":
        match = _SPACED_LINE.match(line)
        if match:  # the path ends at its extension or quote, so class names may have spaces
            path, label = match[1] or match[2] or match[3], match[4]
        else:
            path, _, label = line.rpartition(" ")
    elif '"' in line:
        fields = split_csv(line, separator)
        path, label = separator.join(fields[:-1]), fields[-1]
    else:
        path, _, label = line.rpartition(separator)
    path, label = path.strip(), label.strip().strip("\"'")
    return (path, label) if path and label else None


def _split_numbers(line: str, separator: str, fields: tuple[str, str] | None) -> list[str] | None:
    """Split `path 120 0` or `video.mp4 120 name` into its three or more fields; return None for other lines."""
    by = None if separator == " " else separator
    values = itertools.takewhile(str.isdecimal, (field.strip() for field in reversed(line.split(by)[1:])))
    count = sum(1 for _ in values)
    if count > 1:
        return [field.strip(" \"'") for field in line.rsplit(by, count)]
    path, name = fields or ("", "")
    if by is None:
        number, _, name = name.partition(" ")
    else:
        path, _, number = path.rpartition(by)
    named = number.strip().isdecimal() and name and path.strip(" \"'").lower().endswith(VIDEO_EXTENSIONS)
    return [path.strip(" \"'"), number.strip(), name.strip()] if named else None


def _are_frame_counts(file: ListFile, lines: Sequence[list[str] | None]) -> bool:
    """Return whether all lines are `path frames label`.

    The number of frames is at least 1. Labels are numbers, or names of which one comes with several numbers of frames.
    """
    counted = [line for line in lines if line is not None and len(line) == 3 and 0 < float(line[1]) < 1e9]
    if len(counted) < len(lines) or (counted and file.has(" ".join(counted[0][:2]))):
        return False  # the file is a folder whose name ends with a number
    pairs = {(label, count) for _, count, label in counted}
    labels = {label for label, _ in pairs}
    return all(map(str.isdecimal, labels)) or len(pairs) > len(labels)


def _has_several_labels(file: ListFile, split: Sequence[str], fields: tuple[str, str] | None) -> bool:
    """Return whether the numbers after a name are labels, and not the end of a folder's name or of a class name."""
    if split[0].lower().endswith(VIDEO_EXTENSIONS) or fields is None:
        return split[-1].isdecimal()
    return not file.has(fields[0])
