"""Reads the rows of general lists: `path label` lines, CSVs with a header, JSON. Standard library only."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from dnl_video.data.folders import VIDEO_EXTENSIONS
from dnl_video.data.list_file import ADVICE, EXTENSION, ListFile, Listing, split_csv
from dnl_video.errors import InputError

KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_SPACED_LINE = re.compile(rf"""^(?:"([^"]+)"|'([^']+)'|(.*(?:{EXTENSION})))\s+(\S.*)$""", re.IGNORECASE)
# mmaction2 writes filename and frame_dir.
_PATH_KEYS = ("path", "filename", "file_name", "video", "video_path", "frame_dir")
_COMPARED_COUNTS = 20


def csv_records(file: ListFile) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place and the fields of each line after the header.

    Raises:
        InputError: A line has another number of fields.
    """
    for number, line in enumerate(file.lines[file.first + 1 :], file.first + 2):
        if not line.strip():
            continue
        fields = split_csv(line, file.delimiter)
        if len(fields) != len(file.header):
            raise InputError(
                f"{file.path}, line {number}: {len(fields)} fields where the header has {len(file.header)}; "
                "put fields that contain the separator in double quotes"
            )
        yield f"line {number}", dict(zip(file.header, fields, strict=True))


def read_columns(file: ListFile) -> Listing | None:
    """Read a CSV with the columns path and label, and those that `prepare` writes; None if it has no such header."""
    if file.delimiter == " " or not {"path", *(["label"] if file.labelled else [])} <= set(file.header):
        return None
    # Earlier versions of `prepare` record decord for files that it does not read exactly, such as mirrored ones.
    outdated = "codec" in file.header and "variable_rate" not in file.header
    rows = []
    for place, fields in csv_records(file):
        if not fields["path"]:
            raise InputError(f"{file.path}, {place}: the path is empty; give the file of every video")
        decoder = fields.get("decoder") or None
        if decoder not in (None, "decord", "av"):
            raise InputError(f"{file.path}, {place}: decoder is {decoder!r}; give decord, av, or leave it empty")
        more: dict[str, Any] = {"video_id": fields.get("video_id", ""), "split": fields.get("split", "")}
        more |= {"decoder": None if outdated else decoder, "fps": _fps(file, place, fields.get("fps", ""))}
        sizes = [fields.get(name, "") for name in ("num_frames", "height", "width")]
        if all(size.isdecimal() and len(size) < 10 for size in sizes):
            more["recorded"] = tuple(map(int, sizes))
        rows.append(file.row(place, fields["path"], fields.get("label", ""), **more))
    listing = file.listing(rows)
    if not outdated:
        return listing
    note = (
        f"{file.path}: an earlier version chose the decoders, so they are chosen anew; `prepare` again saves this time"
    )
    return dataclasses.replace(listing, notes=(*listing.notes, note))


def _fps(file: ListFile, place: str, text: str) -> float | None:
    if not text:
        return None
    try:
        fps = float(text)
    except ValueError:
        fps = 0.0
    if not 0 < fps < math.inf:
        raise InputError(f"{file.path}, {place}: fps is {text!r}; give frames per second above 0, or leave it empty")
    return fps


def json_objects(value: Any) -> list[dict[str, Any]] | None:
    """Return the objects of a JSON list, one for each video; None if it is no list of objects."""
    if isinstance(value, dict):
        value = value.get("data_list", [value])  # mmaction2 1.x: {"metainfo": ..., "data_list": [...]}
    return value if isinstance(value, list) and value and all(isinstance(one, dict) for one in value) else None


def read_json_objects(file: ListFile) -> Listing | None:
    """Read JSON objects with a path and a label; None if the file is not JSON.

    Raises:
        InputError: It has another form, or an object has no path.
    """
    if file.json is None:
        return None
    form = f"give objects with one of the keys {', '.join(_PATH_KEYS)}, and label"
    objects = json_objects(file.json)
    if objects is None:
        raise InputError(f"{file.path} is no JSON list of objects; {form}")
    rows = []
    for number, fields in enumerate(objects):
        name = next((fields[key] for key in _PATH_KEYS if key in fields), None)
        if not isinstance(name, str) or not name:
            raise InputError(f"{file.path}, entry {number}: no path in the keys {', '.join(fields)}; {form}")
        label = fields.get("label")
        if isinstance(label, list) and len(label) <= 1:  # mmaction2's converter writes lists of one label
            label = label[0] if label else None
        rows.append(file.row(f"entry {number}", name, label, split=str(fields.get("split") or "")))
    return file.listing(rows)


def read_path_label(file: ListFile) -> Listing:
    """Read `path label` and `path frames label` lines with the separator that fits most of them.

    The label is the last field. `path frames label` needs a frame count in every line, which a video on disk confirms.
    Other lines with several numbers after the path have several labels.

    Raises:
        InputError: The header is unknown, or a line has no label.
    """
    has_header = file.delimiter == " " and file.header in (["path", "label"], ["path"], ["path", "frames", "label"])
    if not has_header:
        _refuse_unknown_header(file)
    start = file.first + has_header
    numbered = [(number, line.strip()) for number, line in enumerate(file.lines[start:], start + 1) if line.strip()]
    separator = _choose_separator([line for _, line in numbered])
    numbers = [_split_numbers(line, separator) for _, line in numbered]
    counted = _are_frame_counts(file, numbers)
    rows = []
    for (number, line), split in zip(numbered, numbers, strict=True):
        fields = _split_line(line, separator)
        if split is not None and (counted or _has_several_labels(file, split, fields)):
            fields = split[0], split[-1] if counted else " ".join(split[1:])
        bare = line.strip("\"'")
        if not file.labelled and (fields is None or bare.lower().endswith(VIDEO_EXTENSIONS)):
            fields = bare, ""
        if fields is None or (file.labelled and bare.lower().endswith(VIDEO_EXTENSIONS)):
            raise InputError(
                f"{file.path}, line {number}: {line[:200]!r} has no label; give `path label`, the label last"
            )
        rows.append(file.row(f"line {number}", *fields))
    return file.listing(rows)


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
    columns = [name for name in header if name] or [""]
    following = next((line.strip() for line in file.lines[file.first + 1 :] if line.strip()), "0")
    value = split_csv(following, file.delimiter)[-len(columns) :][0]
    if len(header) > 1 and columns == [str(i) for i in range(len(columns))] and not value.isdecimal():
        raise InputError(
            f"{where}: {','.join(header)} are column numbers, which pandas writes without names; "
            "name the columns path,label (df.columns = ['path', 'label'])"
        )


def _choose_separator(lines: Sequence[str]) -> str:
    best, separator = (-1, -1), " "
    for candidate in "\t,; ":
        split = [fields for line in lines if (fields := _split_line(line, candidate))]
        videos = sum(fields[0].lower().endswith(VIDEO_EXTENSIONS) for fields in split)
        if (videos, len(split)) > best:
            best, separator = (videos, len(split)), candidate
    return separator


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


def _split_numbers(line: str, separator: str) -> list[str] | None:
    """Split `path 120 0` or `video.mp4 120 name` into its three or more fields; return None for other lines."""
    between = r"\s+" if separator == " " else rf"\s*{separator}\s*"
    named = re.match(rf"(.*(?:{EXTENSION})[\"']?){between}(\d+){between}(.*[^\d\s].*)", line, re.IGNORECASE)
    if named:
        return [field.strip("\"'") for field in named.groups()]
    by = None if separator == " " else separator
    values = itertools.takewhile(str.isdecimal, (field.strip() for field in reversed(line.split(by)[1:])))
    count = sum(1 for _ in values)
    return [field.strip(" \"'") for field in line.rsplit(by, count)] if count > 1 else None


def _are_frame_counts(file: ListFile, lines: Sequence[list[str] | None]) -> bool:
    """Return whether the lines are `path frames label`: the counts are at least 1 and those of a video on disk."""
    counted = [line for line in lines if line is not None and len(line) == 3 and 0 < float(line[1]) < 1e9]
    if len(counted) < len(lines):
        return False
    for name, count, _ in counted[:_COMPARED_COUNTS]:
        found = _num_frames(file, name)
        if found is not None:
            return abs(found - int(count)) <= max(2, found // 10)  # tools count differently
        if file.has(f"{name} {count}"):
            return False  # a path that ends with a number
    # No video is on disk. A name with a space or a class name may contain the number.
    return all(
        label.isdecimal() and (name.lower().endswith(VIDEO_EXTENSIONS) or " " not in name) for name, _, label in counted
    )


def _num_frames(file: ListFile, name: str) -> int | None:
    from dnl_video.data.decoding import VideoDecodeError, open_video

    try:
        with open_video(file.root / name, decoder="av") as video:
            return video.num_frames
    except VideoDecodeError:
        return None


def _has_several_labels(file: ListFile, split: Sequence[str], fields: tuple[str, str] | None) -> bool:
    """Return whether the numbers after a name are labels, and not the end of a folder's name."""
    if split[0].lower().endswith(VIDEO_EXTENSIONS) or fields is None:
        return split[-1].isdecimal()
    return file.has(split[0]) and not file.has(fields[0])
