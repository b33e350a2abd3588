"""Reads the official lists of Kinetics, UCF101, HMDB51 and Something-Something v2. Standard library only.

The official Kinetics CSV has the columns `label,youtube_id,time_start,time_end,split[,is_cc]`. Downloaders name the
files `{youtube_id}_{time_start:06d}_{time_end:06d}.mp4` or `{youtube_id}.mp4`, in one folder or in class folders.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from dnl_video.data.class_lists import read_class_list
from dnl_video.data.folders import VIDEO_EXTENSIONS, walk_videos
from dnl_video.data.list_file import SPLITS, ListFile, Listing, fold, read_lines
from dnl_video.data.list_formats import KINETICS_COLUMNS
from dnl_video.errors import InputError
from dnl_video.files import list_folder

_HMDB51_FILE = re.compile(r"(.+)(_test_split[123]\.txt)")
_HMDB51_SPLITS = {"1": "train", "2": "test"}
_SOMETHING_FILE = re.compile(r"(train|validation|test)\.json$")


def read_kinetics(file: ListFile) -> Listing | None:
    """Read an official Kinetics CSV or JSON; None for other files.

    The JSON is {id: {"annotations": {"label", "segment"}, "subset", ...}}.
    """
    value, records = file.json, file.records()
    if isinstance(value, dict) and all(isinstance(c, dict) and "annotations" in c for c in value.values()):
        records = ((f"entry {name}", _kinetics_fields(name, clip)) for name, clip in value.items())
    elif not {*KINETICS_COLUMNS[1:4], *(["label"] if file.labelled else [])} <= file.columns:
        return None
    names = _names_by_stem(file.root)
    rows = []
    for place, fields in records:
        youtube_id = fields.get("youtube_id")
        if not youtube_id:
            raise InputError(f"{file.path}, {place}: youtube_id is empty; give the id of every video")
        times = [fields.get(name, "") for name in KINETICS_COLUMNS[2:4]]
        try:
            start, end = (int(float(time)) for time in times)
        except (TypeError, ValueError, OverflowError):
            given = ", ".join(map(repr, times))
            raise InputError(f"{file.path}, {place}: time_start, time_end are {given}; give whole seconds") from None
        label, split = (str(fields.get(name) or "") for name in ("label", "split"))
        video_id = f"{youtube_id}_{start:06d}_{end:06d}"
        candidates = [*names.get(video_id, ()), *names.get(youtube_id, ())] or [f"{video_id}.mp4"]
        name = _best_name(candidates, video_id, label, split)
        segment = (start, end) if _stem(name) == youtube_id else None
        rows.append(file.row(place, name, label, video_id, split=split, segment=segment))
    return file.listing(rows)


def _kinetics_fields(youtube_id: str, clip: dict[str, Any]) -> dict[str, Any]:
    about = clip["annotations"] if isinstance(clip["annotations"], dict) else {}
    segment = about.get("segment")
    start, end = segment if isinstance(segment, list) and len(segment) == 2 else ("", "")
    values = (about.get("label"), youtube_id, start, end, clip.get("subset"))
    return dict(zip(KINETICS_COLUMNS, values, strict=True))


def read_ucf101(file: ListFile) -> Listing | None:
    """Read UCF101's `trainlist01.txt` or `testlist01.txt` with `classInd.txt` beside it; None for other files.

    Train lines are `Class/v_Class_g08_c01.avi 1`, with ids from 1; test lines have no id.
    """
    class_list = file.path.with_name("classInd.txt")
    if not os.path.isfile(class_list):  # noqa: PTH113, never raises
        return None
    ids = {name: str(i) for i, name in enumerate(read_class_list(class_list), 1)}
    rows = []
    for number, line in enumerate(file.lines, 1):
        name, _, label = line.strip().partition(" ")
        folder = name.partition("/")[0]
        if name and (folder not in ids or label not in ("", ids[folder])):
            return None
        if name:
            rows.append(file.row(f"line {number}", name, folder))
    return file.listing(rows, class_list)


def read_hmdb51(file: ListFile) -> Listing | None:
    """Read one of HMDB51's splits, given by any of its files `CLASS_test_split1.txt`; None for other files.

    Lines are `name.avi 1`: 1 is for training, 2 for testing, 0 is not used.
    """
    match = _HMDB51_FILE.fullmatch(file.path.name)
    if match is None or not all(line.strip()[-2:] in ("", " 0", " 1", " 2") for line in file.content):
        return None
    names = _names_by_stem(file.root)
    rows, unused, digest = [], 0, hashlib.sha256()
    files = sorted(list_folder(file.path.parent, f"*{match[2]}"))
    for one in files:
        lines, sha256 = read_lines(one)
        digest.update(f"{one.name} {sha256}\n".encode())
        label = one.name.removesuffix(match[2])
        for number, line in enumerate(lines, 1):
            name, _, use = line.strip().rpartition(" ")
            if use not in _HMDB51_SPLITS:
                unused += use == "0"
                continue
            found = _best_name(names.get(_stem(name), [f"{label}/{name}"]), _stem(name), label, "")
            place = f"{one.name} line {number}"
            rows.append(file.row(place, found, label, video_id=f"{label}/{name}", split=_HMDB51_SPLITS[use]))
    pattern = file.path.with_name(f"*{match[2]}")
    note = f"{pattern}: {len(files)} files, one for each class; {unused} videos of no split (0) were left out"
    return Listing(rows, digest.hexdigest(), notes=(note,))


def read_something_something(file: ListFile) -> Listing | None:
    """Read Something-Something v2's JSON, [{"id", "template", ...}], of files ID.webm; None for other files.

    The class is the template without brackets. `labels.json` beside the list gives the order of the classes.
    """
    if file.json is None or not (file.columns == {"id"} or {"id", "template"} <= file.columns):
        return None
    names = _names_by_stem(file.root)
    rows = []
    for place, fields in file.records():
        video_id, label = str(fields.get("id")), re.sub(r"[\[\]]", "", str(fields.get("template", "")))
        name = _best_name(names.get(video_id, [f"{video_id}.webm"]), video_id, label, "")
        rows.append(file.row(place, name, label, video_id))
    class_list = file.path.with_name(_SOMETHING_FILE.sub("labels.json", file.path.name))
    has_classes = class_list != file.path and os.path.isfile(class_list)  # noqa: PTH113, never raises
    return file.listing(rows, class_list if has_classes else None)


def _names_by_stem(root: Path) -> dict[str, list[str]]:
    """Return the relative paths of the videos below a folder by file name without extension.

    One walk in place of several stat calls for each row: Kinetics has 300,000 rows, often on a network file system.
    """
    names: dict[str, list[str]] = {}
    for name in walk_videos(root):
        names.setdefault(_stem(name), []).append(name)
    return names


def _best_name(candidates: list[str], video_id: str, label: str, split: str) -> str:
    """Choose among the files of one video.

    Order of preference: replacement of a corrupted file, file name with the times of the row, folder of the row's
    split, folder of its class, extension.
    """
    splits = next((names for names in SPLITS if split.lower() in names), ())

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
    """Return the name of a file without its extensions (merged files: ID.mp4.mkv), or of a folder of frames."""
    base = name.rpartition("/")[2]
    while base.lower().endswith(VIDEO_EXTENSIONS):
        base = base.rpartition(".")[0]
    return base
