"""The text of a list and its rows, before labels become class ids. Standard library only."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dnl_video.data.folders import VIDEO_EXTENSIONS, refuse_foreign_path
from dnl_video.errors import InputError
from dnl_video.files import cell_text

ADVICE = (
    "give an official Kinetics CSV (label,youtube_id,time_start,time_end,split), a CSV with the columns path,label, "
    "or lines of `path label` without a header (all formats: dnl-video prepare --help)"
)
# The same split has these names in lists and folders.
SPLITS = (("train", "training"), ("val", "validate", "validation"), ("test", "testing"))
EXTENSION = "|".join(re.escape(extension) for extension in VIDEO_EXTENSIONS)
_COMMENTED_FILE = re.compile(rf".*?(?:{EXTENSION})\b", re.IGNORECASE)
_UNUSUAL_PATH = re.compile(r"\\|//|/$|(?:^|/)\.(?:/|$)")  # pathlib shortens these
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_LINE = 100_000  # csv reads fields of up to 131,072


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
        split: Split of the row as the listing names it; "" if there is none.
        segment: Start and end of the clip in seconds, for a file named by its YouTube id alone: it may be the whole
            video. None for other files.
        recorded: Columns `num_frames`, `height`, `width`: what the decoder read; None if there are none.
    """

    source: str
    place: str
    video_id: str
    path: str
    label: str
    decoder: str | None = None
    fps: float | None = None
    split: str = ""
    segment: tuple[int, int] | None = None
    recorded: tuple[int, int, int] | None = None

    @property
    def where(self) -> str:
        """Beginning of error messages about this row."""
        return f"{self.source}, {self.place}"


@dataclass(frozen=True)
class Listing:
    """What a list or a class folder contains.

    Args:
        rows: The videos.
        sha256: Hash of the content (of a folder: of the sorted relative names).
        class_list: File with the class names, where it belongs to the listing; its order gives the class ids.
        notes: Facts about reading it that the user must know, one line each.
    """

    rows: list[Row]
    sha256: str
    class_list: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListFile:
    """A list file.

    Args:
        path: The file.
        content: Its lines.
        sha256: Hash of the content.
        root: Folder of relative paths and of ids.
        labelled: Whether every row must have a label.
    """

    path: Path
    content: list[str]
    sha256: str
    root: Path
    labelled: bool

    @cached_property
    def lines(self) -> list[str]:
        """The lines; comments are empty. A comment begins with `#` and names no existing file."""
        lines = list(self.content)
        for number, line in enumerate(lines):
            if line.startswith("#") and not self.has((_COMMENTED_FILE.match(line) or [line])[0]):
                lines[number] = ""
        if not any(line.strip() for line in lines):
            raise InputError(f"{self.path} has only comments; {ADVICE}")
        if max(map(len, lines)) > _LONGEST_LINE:
            raise InputError(f"{self.path} has a line of over {_LONGEST_LINE:,} characters; give one video a line")
        return lines

    def has(self, name: str) -> bool:
        """Return whether a file or folder of this name exists."""
        return os.path.exists(self.root / name)  # noqa: PTH110, never raises

    @cached_property
    def first(self) -> int:
        """Index of the first line that is neither blank nor a comment."""
        return next(number for number, line in enumerate(self.lines) if line.strip())

    @cached_property
    def delimiter(self) -> str:
        """The separator of the first line."""
        return next((separator for separator in "\t;," if separator in self.lines[self.first]), " ")

    @cached_property
    def header(self) -> list[str]:
        """Fields of the first line in lower case."""
        return [name.lower() for name in split_csv(self.lines[self.first].strip(), self.delimiter)]

    @cached_property
    def json(self) -> Any:
        """The value of a JSON file, of JSON lines a list of their values; None for other files."""
        numbered = [(number, line) for number, line in enumerate(self.content, 1) if line and not line.isspace()]
        if not numbered[0][1].lstrip().startswith(("{", "[")):
            return None
        try:
            if len(numbered) > 1 and all(line.startswith("{") for _, line in numbered):
                return [parse_json(line, self.path, ADVICE, number) for number, line in numbered]
            return parse_json("\n".join(self.content), self.path, ADVICE)
        except InputError:
            if self.path.suffix.lower() in (".json", ".jsonl"):
                raise
            return None  # names of files that begin with a bracket

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """The objects of a JSON file, one for each video; empty if it has another form."""
        value = self.json
        if isinstance(value, dict):
            value = value.get("data_list", [value])  # mmaction2 1.x: {"metainfo": ..., "data_list": [...]}
        return value if isinstance(value, list) and all(isinstance(one, dict) for one in value) else []

    @cached_property
    def columns(self) -> frozenset[str]:
        """Names of the columns of a CSV, or the keys of a JSON file's first object."""
        if self.json is not None:
            return frozenset(self.objects[0] if self.objects else ())
        return frozenset(self.header) if self.delimiter != " " else frozenset()

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the place and the fields of each object of a JSON file, or of each line below the header of a CSV.

        Raises:
            InputError: A line has another number of fields than the header.
        """
        if self.json is not None:
            yield from ((f"entry {number}", fields) for number, fields in enumerate(self.objects))
            return
        for number, line in enumerate(self.lines[self.first + 1 :], self.first + 2):
            if not line or line.isspace():
                continue
            fields = split_csv(line, self.delimiter)
            if len(fields) != len(self.header):
                raise InputError(
                    f"{self.path}, line {number}: {len(fields)} fields where the header has {len(self.header)}; "
                    "put fields that contain the separator in double quotes"
                )
            yield f"line {number}", dict(zip(self.header, fields, strict=True))

    def row(self, place: str, name: str, label: Any, video_id: str = "", **columns: Any) -> Row:
        """Return the row of a file ``name``, which is relative to `root` or absolute."""
        if ":" in name or "\\" in name:
            refuse_foreign_path(name, f"{self.path}, {place}", self.root)
        # `/` of pathlib takes a third of the time of reading a list.
        path = str(self.root / name) if _UNUSUAL_PATH.search(name) else os.path.join(self._folder, name)  # noqa: PTH118
        text = "" if label is None else str(label)
        return Row(str(self.path), place, video_id or name, path, text, **columns)

    @cached_property
    def _folder(self) -> str:
        return "" if self.root == Path() else str(self.root)

    def listing(self, rows: list[Row], class_list: Path | None = None, notes: tuple[str, ...] = ()) -> Listing:
        """Return the rows, with a note on the comments that were skipped."""
        comments = 0 if self.json is not None else sum(map(str.__ne__, self.lines, self.content))
        skipped = (f"{self.path}: {comments} comment lines (#) were skipped",) if comments else ()
        return Listing(rows, self.sha256, class_list, skipped + notes)


def read_lines(path: Path, advice: str = ADVICE) -> tuple[list[str], str]:
    """Return a text file's lines and the SHA-256 of its content. A pipe is read to its end.

    Args:
        path: The file.
        advice: End of the error messages: what to give instead.

    Raises:
        InputError: It is a video or a device, may not be read, is empty, binary, or neither UTF-8 nor UTF-16.
    """
    if path.suffix.lower() in VIDEO_EXTENSIONS:
        raise InputError(f"{path} is a video, not a listing; {advice}")
    try:
        mode = path.stat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):  # reading /dev/zero never ends
            raise InputError(f"{path} is a device, not a file; {advice}")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from error
    # utf-8-sig: Excel writes a byte order mark, and UTF-16 as "Unicode text".
    encoding = "utf-16" if content.startswith(_UTF16) else "utf-8-sig"
    if encoding != "utf-16" and b"\0" in content:
        raise InputError(f"{path} is a binary file, not text; {advice}")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {number}: not UTF-8 text; save the listing as UTF-8") from None
    # Not splitlines(), which also splits at rare characters in names.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not text or text.isspace():
        raise InputError(f"{path} is empty; {advice}")
    return lines, hashlib.sha256(content).hexdigest()


def parse_json(text: str, path: Path, advice: str, line: int = 1) -> Any:
    """Return the value of a JSON text whose first line is that of this number in the file.

    Raises:
        InputError: It is not valid JSON; the message ends with ``advice``.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        number = line + error.lineno - 1
        raise InputError(f"{path}, line {number}: not valid JSON ({error.msg}); {advice}") from None
    except (RecursionError, ValueError):
        raise InputError(f"{path}: JSON with too many levels or digits; {advice}") from None


def split_csv(line: str, delimiter: str) -> list[str]:
    """Split a CSV line into fields without outer spaces."""
    if '"' in line or delimiter == " ":
        fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    else:
        fields = line.split(delimiter)  # faster
    return [cell_text(field.strip()) if "'" in field else field.strip() for field in fields]


def fold(name: str) -> str:
    """Normalise a class name: Unicode's NFC, lower case, spaces for underscores; folder names differ in these."""
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").lower().split())
