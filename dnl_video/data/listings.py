"""Reads listings (text files and class folders) into rows: the table of the list formats.

Labels stay text here; manifest.py turns them into class ids. Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dnl_video.data.class_ids import some
from dnl_video.data.folders import VIDEO_EXTENSIONS, existing, walk_videos
from dnl_video.data.list_file import ADVICE, SPLITS, ListFile, Listing, Row, read_lines
from dnl_video.data.list_formats import read_columns, read_path_label
from dnl_video.data.official_lists import read_hmdb51, read_kinetics, read_something_something, read_ucf101
from dnl_video.errors import InputError
from dnl_video.files import walk

LIST_EXTENSIONS = (".txt", ".csv", ".tsv", ".lst", ".list", ".json", ".jsonl")


class ListFormat(NamedTuple):
    """A format of lists: its name, its form in one line, and its reader, which returns None for other formats."""

    name: str
    form: str
    read: Callable[[ListFile], Listing | None]


LIST_FORMATS = (
    ListFormat("HMDB51", "CLASS_test_split1.txt: any of its files stands for the split", read_hmdb51),
    ListFormat(
        "Kinetics",
        'CSV label,youtube_id,time_start,time_end,split, or JSON {ID: {"annotations": {"label", "segment"}, "subset"}}',
        read_kinetics,
    ),
    ListFormat("Something-Something v2", '[{"id", "template", ...}], labels.json beside it', read_something_something),
    ListFormat(
        "columns", "CSV with the header path,label, or JSON objects with these keys, or JSON lines", read_columns
    ),
    ListFormat("UCF101", "trainlist01.txt, testlist01.txt, classInd.txt beside it", read_ucf101),
    ListFormat("lines", "path label, or path frames label; any separator", read_path_label),
)
"""The formats in the order of recognition: the first reader that returns rows counts."""


def read_listing(path: Path, root: str | os.PathLike[str] | None, *, labelled: bool) -> Listing:
    """Read a list file; its content tells the format.

    Args:
        path: The listing.
        root: Folder of relative paths and Kinetics ids; None is the listing's own folder.
        labelled: Whether every row must have a label.

    Raises:
        InputError: The root is not a folder, the format is not recognised, or a line is invalid (the message names the
            line).
    """
    lines, digest = read_lines(path)
    no_folder = f"root {root} of {path} is not a folder; give the folder that holds the videos"
    folder = path.parent if root is None else existing(root, no_folder)
    if not folder.is_dir():
        raise InputError(no_folder)
    file = ListFile(path, lines, digest, folder, labelled)
    listing = next(found for form in LIST_FORMATS if (found := form.read(file)) is not None)
    if not listing.rows:
        raise InputError(f"{path} has a header and no rows; {ADVICE}")
    return listing


def take_split(listing: Listing, source: str, split: str) -> Listing:
    """Keep the rows of one split, if the listing combines several; a note says how many.

    Args:
        listing: The listing.
        source: Its name.
        split: `train`, or `val`: the validation rows, or the test rows of a listing without these.

    Raises:
        InputError: A row has another split, or none has this one.
    """
    names = {word: words[0] for words in SPLITS for word in words}
    splits = [names.get(row.split.lower(), "") for row in listing.rows]
    if len(set(splits)) == 1:
        return listing
    if "" in splits:
        row = listing.rows[splits.index("")]
        raise InputError(f"{row.where}: split {row.split!r} is not known; give train, val or test in every row")
    wanted = "test" if split == "val" and "val" not in splits else split
    rows = [row for row, name in zip(listing.rows, splits, strict=True) if name == wanted]
    if not rows:
        raise InputError(f"{source} has rows of the splits {', '.join(sorted(set(splits)))}, and none of {wanted}")
    note = f"{source}: {len(rows):,} of {len(splits):,} rows are used, those of the split {wanted}"
    return dataclasses.replace(listing, rows=rows, notes=(*listing.notes, note))


def read_class_folders(folder: Path) -> Listing:
    """Read a folder of class folders; a note names those without videos.

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
    if classes <= {name for split in SPLITS for name in split} and all(name.count("/") > 1 for name in names):
        splits = ", ".join(sorted(classes))
        raise InputError(f"folder {folder} holds splits ({splits}), not classes; give one of them")
    rows = [Row(str(folder), name, name, str(folder / name), name.split("/")[0]) for name in names]
    empty = [name for name in next(walk(folder))[1] if name not in classes]
    notes = (f"{len(empty)} class folders of {folder} hold no video: {some(empty)}",) if empty else ()
    return Listing(rows, hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest(), notes=notes)
