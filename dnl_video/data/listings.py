"""Reads listings (text files and class folders) into rows.

Recognised: the official Kinetics CSV, our own CSV (columns path,label), `path label` lists with any separator, class
folders. Labels stay text here; manifest.py turns them into class ids. Standard library only.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dnl_video.data.folders import VIDEO_EXTENSIONS, walk_videos
from dnl_video.errors import InputError

LIST_EXTENSIONS = (".txt", ".csv", ".tsv", ".lst", ".list")
KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
FORMATS = (
    "give an official Kinetics CSV (label,youtube_id,time_start,time_end,split), a CSV with the columns path,label, "
    "or lines of `path label` without a header"
)
_SPLITS = (("train", "training"), ("val", "validate", "validation"), ("test", "testing"))
_EXTENSION = "|".join(re.escape(extension) for extension in VIDEO_EXTENSIONS)
_SPACED_LINE = re.compile(rf"""^(?:"([^"]+)"|'([^']+)'|(.*(?:{_EXTENSION})))\s+(\S.*)$""", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One row of a listing.

    Args:
        source: The listing.
        place: Line, or file of a folder, for error messages.
        video_id: Name of the video in predictions and reports.
        path: Path of the file, which may not exist.
        label: Text of the label; "" if there is none.
        decoder: Column `decoder`: decoder that reads the file exactly, decord or av; None if there is none.
        fps: Column `fps`: frames per second of a folder of frames; None if there is none.
    """

    source: str
    place: str
    video_id: str
    path: str
    label: str
    decoder: str | None = None
    fps: float | None = None

    @property
    def where(self) -> str:
        """Beginning of error messages about this row."""
        return f"{self.source}, {self.place}"


def read_lines(path: Path, advice: str = FORMATS) -> tuple[list[str], str]:
    """Return a text file's lines and the SHA-256 of its content.

    Args:
        path: The file.
        advice: End of the error messages: what to give instead.

    Raises:
        InputError: The file is a video, empty, or not UTF-8.
    """
    if path.suffix.lower() in VIDEO_EXTENSIONS:
        raise InputError(f"{path} is a video, not a listing; {advice}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {advice}") from error
    try:
        # utf-8-sig: Excel writes a byte order mark. Not splitlines(), which also splits at rare characters in names.
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {number}: not UTF-8 text; save the listing as UTF-8") from None
    if not any(line.strip() for line in lines):
        raise InputError(f"{path} is empty; {advice}")
    return lines, hashlib.sha256(content).hexdigest()


def read_listing(path: Path, root: str | os.PathLike[str] | None, *, labelled: bool) -> tuple[list[Row], str]:
    """Read a text listing; its first line tells the format.

    Args:
        path: The listing.
        root: Folder of relative paths and Kinetics ids; None is the listing's own folder.
        labelled: Whether every row must have a label.

    Returns:
        The rows, and the SHA-256 of the content.

    Raises:
        InputError: The root is not a folder, the header is not recognised, or a line is invalid (the message names the
            line).
    """
    lines, digest = read_lines(path)
    folder = path.parent if root is None else Path(root).expanduser()
    if root is not None and not folder.is_dir():
        raise InputError(f"root {root} of {path} is not a folder; give the folder that holds the videos")
    return _read_rows(path, lines, folder, labelled=labelled), digest


def _read_rows(path: Path, lines: list[str], root: Path, *, labelled: bool) -> list[Row]:
    first = next(number for number, line in enumerate(lines) if line.strip())
    delimiter = next((separator for separator in "\t;," if separator in lines[first]), " ")
    header = [name.lower() for name in _split_csv(lines[first].strip(), delimiter)]
    label = {"label"} if labelled else set()
    known = {*KINETICS_COLUMNS, "is_cc", "path", "video_id"}
    looks_like_header = header[0] in known or header[-1] == "label" or len(known & set(header)) > 1
    if {*KINETICS_COLUMNS[1:4], *label} <= set(header):
        rows = _read_kinetics(path, _csv_records(path, lines, first, delimiter, header), root)
    elif delimiter == " " and (header == ["path", "label"] or (header == ["path"] and not labelled)):
        rows = _read_list(path, lines, first + 1, root, labelled=labelled)
    elif {"path", *label} <= set(header):
        rows = _read_columns(path, _csv_records(path, lines, first, delimiter, header), root)
    elif looks_like_header and not any(field.endswith(VIDEO_EXTENSIONS) for field in header):
        raise InputError(f"{path}, line {first + 1}: columns {','.join(header)} are not recognised; {FORMATS}")
    elif len(header) >= 5 and all(re.fullmatch(r"\d+(\.\d+)?", field) for field in header[2:4]):
        raise InputError(
            f"{path}, line {first + 1}: this looks like an official Kinetics CSV without its header; "
            f"add the first line {','.join(KINETICS_COLUMNS)}"
        )
    else:
        rows = _read_list(path, lines, first, root, labelled=labelled)
    if not rows:
        raise InputError(f"{path} has a header and no rows; {FORMATS}")
    return rows


def read_class_folders(folder: Path) -> tuple[list[Row], str]:
    """Read a folder of class folders; return its rows and the SHA-256 of the sorted relative names.

    Raises:
        InputError: There is no video, a video outside a class folder, or the folder holds splits.
    """
    names = walk_videos(folder)
    if not names:
        raise InputError(f"folder {folder} holds no video; give one folder per class with {' '.join(VIDEO_EXTENSIONS)}")
    stray = next((name for name in names if "/" not in name), None)
    if stray:
        raise InputError(f"folder {folder} holds {stray} outside a class folder; move it into one, or give a list")
    classes = {name.split("/")[0] for name in names}
    if classes <= {name for split in _SPLITS for name in split} and all(name.count("/") > 1 for name in names):
        splits = ", ".join(sorted(classes))
        raise InputError(f"folder {folder} holds splits ({splits}), not classes; give one of them")
    rows = [Row(str(folder), name, name, str(folder / name), name.split("/")[0]) for name in names]
    return rows, hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()


def _split_csv(line: str, delimiter: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]


_Records = Iterator[tuple[str, dict[str, str]]]


def _csv_records(path: Path, lines: list[str], first: int, delimiter: str, header: list[str]) -> _Records:
    """Yield the place and the fields of each line after the header."""
    for number, line in enumerate(lines[first + 1 :], first + 2):
        if not line.strip():
            continue
        fields = _split_csv(line, delimiter)
        if len(fields) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(fields)} fields where the header has {len(header)}; "
                "put fields that contain the separator in double quotes"
            )
        yield f"line {number}", dict(zip(header, fields, strict=True))


def _read_columns(path: Path, records: _Records, root: Path) -> list[Row]:
    rows = []
    for place, fields in records:
        if not fields["path"]:
            raise InputError(f"{path}, {place}: the path is empty; give the file of every video")
        video_id = fields.get("video_id") or fields["path"]
        decoder = fields.get("decoder") or None
        if decoder not in (None, "decord", "av"):
            raise InputError(f"{path}, {place}: decoder is {decoder!r}; give decord, av, or leave it empty")
        fps = _fps(path, place, fields)
        rows.append(Row(str(path), place, video_id, str(root / fields["path"]), fields.get("label", ""), decoder, fps))
    return rows


def _fps(path: Path, place: str, fields: dict[str, str]) -> float | None:
    text = fields.get("fps", "")
    if not text:
        return None
    try:
        fps = float(text)
    except ValueError:
        fps = 0.0
    if not 0 < fps < math.inf:
        raise InputError(f"{path}, {place}: fps is {text!r}; give frames per second above 0, or leave it empty")
    return fps


def _read_kinetics(path: Path, records: _Records, root: Path) -> list[Row]:
    # One walk instead of several stat calls per row: Kinetics has 300,000 rows, often on a network file system.
    index: dict[str, list[str]] = {}
    for name in walk_videos(root):
        index.setdefault(_stem(name), []).append(name)
    rows = []
    for place, fields in records:
        youtube_id = fields["youtube_id"]
        if not youtube_id:
            raise InputError(f"{path}, {place}: youtube_id is empty; give the id of every video")
        try:
            start, end = (int(float(fields[name])) for name in ("time_start", "time_end"))
        except (ValueError, OverflowError):
            times = f"{fields['time_start']!r}, {fields['time_end']!r}"
            raise InputError(f"{path}, {place}: time_start, time_end are {times}; give whole seconds") from None
        label = fields.get("label", "")
        video_id = f"{youtube_id}_{start:06d}_{end:06d}"
        candidates = [*index.get(video_id, ()), *index.get(youtube_id, ())] or [f"{video_id}.mp4"]
        name = _best_file(candidates, video_id, label, fields.get("split", ""))
        rows.append(Row(str(path), place, video_id, str(root / name), label))
    return rows


def _best_file(candidates: list[str], video_id: str, label: str, split: str) -> str:
    """Choose among the files of one video.

    Order of preference: replacement of a corrupted file, file name with the times of the row, folder of the row's
    split, folder of its class, extension.
    """
    splits = next((names for names in _SPLITS if split.lower() in names), ())

    def rank(name: str) -> tuple[bool, bool, bool, bool, int, str]:
        folders = [fold(folder) for folder in name.split("/")[:-1]]
        # Folders of frames come last.
        extension = next((i for i, e in enumerate(VIDEO_EXTENSIONS) if name.lower().endswith(e)), len(VIDEO_EXTENSIONS))
        # Kinetics-400 is published with a folder of files that replace corrupted ones.
        replacement = any(folder.startswith("replacement") for folder in folders)
        in_split = any(folder in splits for folder in folders)
        return not replacement, _stem(name) != video_id, not in_split, fold(label) not in folders, extension, name

    return min(candidates, key=rank) if len(candidates) > 1 else candidates[0]


def _stem(name: str) -> str:
    """Return a video's file name without its extension, or the name of a folder of frames."""
    base = name.rpartition("/")[2]
    return base.rpartition(".")[0] if base.lower().endswith(VIDEO_EXTENSIONS) else base


def fold(name: str) -> str:
    """Normalise a class name: lower case, spaces for underscores, as folder names differ in these."""
    return " ".join(name.replace("_", " ").lower().split())


def _read_list(path: Path, lines: list[str], first: int, root: Path, *, labelled: bool) -> list[Row]:
    """Read `path label` lines with the separator that fits most of them; the label is the last field."""
    numbered = [(number, line.strip()) for number, line in enumerate(lines[first:], first + 1) if line.strip()]
    best, separator = (-1, -1), " "
    for candidate in "\t,; ":
        split = [fields for _, line in numbered if (fields := _split_line(line, candidate))]
        videos = sum(fields[0].lower().endswith(VIDEO_EXTENSIONS) for fields in split)
        if (videos, len(split)) > best:
            best, separator = (videos, len(split)), candidate
    rows = []
    for number, line in numbered:
        fields = _split_line(line, separator)
        bare = line.strip("\"'")
        if not labelled and (fields is None or bare.lower().endswith(VIDEO_EXTENSIONS)):
            fields = bare, ""
        if fields is None or (labelled and bare.lower().endswith(VIDEO_EXTENSIONS)):
            raise InputError(f"{path}, line {number}: {line!r} has no label; give `path label`, the label last")
        rows.append(Row(str(path), f"line {number}", fields[0], str(root / fields[0]), fields[1]))
    return rows


def _split_line(line: str, separator: str) -> tuple[str, str] | None:
    """Split a line into path and label; return None if it has no such form."""
    if separator == " ":
        match = _SPACED_LINE.match(line)
        if match:  # the path ends at its extension or quote, so class names may have spaces
            path, label = match[1] or match[2] or match[3], match[4]
        else:
            path, _, label = line.rpartition(" ")
    elif '"' in line:
        fields = _split_csv(line, separator)
        path, label = separator.join(fields[:-1]), fields[-1]
    else:
        path, _, label = line.rpartition(separator)
    path, label = path.strip(), label.strip().strip("\"'")
    return (path, label) if path and label else None
