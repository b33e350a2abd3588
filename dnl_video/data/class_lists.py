"""Reads lists of class names. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

from dnl_video.data.folders import existing
from dnl_video.data.list_file import parse_json, read_lines
from dnl_video.errors import InputError, nearest

CLASS_LISTS = ("kinetics400", "kinetics600", "kinetics700")
"""Names of the class lists in this package (data/labels), which are in the published, alphabetical order."""


def read_class_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read class names by id: one name per line, a JSON list, or a JSON object {name: id}.

    Lines may begin with their ids, from 0 or 1 (UCF101's `classInd.txt`). Extra quotes around names, as in PySlowFast's
    `kinetics_classnames.json`, are removed.

    Args:
        path: The file, or one of `CLASS_LISTS`.

    Raises:
        InputError: The file is missing or empty, a name is empty or listed twice, or ids are not 0, 1, 2, ….
    """
    if path in CLASS_LISTS:
        file = Path(__file__).parent / "labels" / f"{path}.txt"
    else:
        absent = (
            f"class list {path} does not exist; give a text file with one class name per line, JSON, or one of "
            f"{', '.join(CLASS_LISTS)}{nearest(str(path), CLASS_LISTS)}"
        )
        file = existing(path, absent)
    lines, _ = read_lines(file, "give one class name per line, or JSON")
    text = "\n".join(lines).strip()
    if text.startswith(("[", "{")):
        named = _parse_json_classes(file, text)
    else:
        named = [(f"line {number}", line.strip()) for number, line in enumerate(lines, 1)]
        while not named[-1][1]:  # blank lines at the end
            named.pop()
        named = _without_numbers(named)
    first: dict[str, str] = {}
    for place, name in named:
        if not name:
            raise InputError(f"{file}, {place}: the class name is empty; give every class a name")
        if name in first:
            raise InputError(f"{file}, {place}: class {name!r} was already listed in {first[name]}; list it once")
        first[name] = place
    if not first:
        raise InputError(f"class list {file} has no class; give at least one name")
    return tuple(first)


def _without_numbers(named: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Remove the ids of `1 ApplyEyeMakeup`, `2 ApplyLipstick`, …, which start at 1 (UCF101) or 0."""
    parts = [name.partition(" ") for _, name in named]
    numbers = [number for number, _, _ in parts]
    counts = [[str(i) for i in range(first, first + len(named))] for first in (0, 1)]
    if numbers not in counts or not all(name for _, _, name in parts):
        return named
    return [(place, name.strip()) for (place, _), (_, _, name) in zip(named, parts, strict=True)]


def _parse_json_classes(file: Path, text: str) -> list[tuple[str, str]]:
    data = parse_json(text, file, "fix it, or list names")
    if isinstance(data, dict):
        # Something-Something writes its ids as text.
        ids = {name: int(i) if isinstance(i, str) and i.isdecimal() and len(i) < 9 else i for name, i in data.items()}
        if any(type(i) is not int for i in ids.values()) or sorted(ids.values()) != list(range(len(ids))):
            raise InputError(f"class list {file} must give each name one id, from 0 to {len(ids) - 1}")
        data = sorted(ids, key=ids.__getitem__)
    if not all(isinstance(name, str) for name in data):
        raise InputError(f"class list {file} must be a JSON list of names, or an object {{name: id}}")
    return [(f"entry {position}", name.strip().strip('"')) for position, name in enumerate(data)]
