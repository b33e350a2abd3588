"""Turns the label texts of a listing into class ids. Standard library only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

from dnl_video.data.list_file import Row, fold
from dnl_video.errors import InputError, nearest

# pandas writes a column of integers with gaps as 0.0, 1.0, ...
_INTEGER = re.compile(r"([+-]?[0-9]{1,18})(\.0*)?")
# Numbers with separators, and Python's text of lists and objects in JSON.
_SEVERAL = re.compile(r"""\[?\d+(?:\s*[\s,;|]\s*\d+)+\]?|\[[\['"{].*\]|\{['"].*\}""", re.DOTALL)
_MIRRORED = re.compile(r"(?<![^\W_])(?:left|right|(?:counter|anti)?clockwise)(?:wards?)?(?![^\W_])")
_SHOWN = 5
_NO_LABEL_0 = "no video has label 0; do labels start at 1?"


def assign_labels(
    rows: Sequence[Row], class_names: Sequence[str] | None, *, folders: bool
) -> tuple[list[int], tuple[str, ...] | None, tuple[str, ...]]:
    """Turn label texts into class ids.

    Args:
        rows: The listing, without duplicates.
        class_names: Names by class id; None takes those of the rows in alphabetical order, or integers as they are.
        folders: Whether labels are names of folders, which are never integers.

    Returns:
        The class id of each row, the names by class id (None: integers without names), and notes for the user.

    Raises:
        InputError: A label is empty, several, unknown, or spelled in two ways, or integers and names are mixed.
    """
    names = None if class_names is None else tuple(class_names)
    several = set() if folders else {label for label in {row.label for row in rows} if _SEVERAL.fullmatch(label)}
    for row in rows:
        if row.label in several:
            advice = "multi-label lists are not supported; give each video one label"
            raise InputError(f"{row.where}: labels {row.label}: {advice}")
        if not row.label:
            raise InputError(f"{row.where}: the label is empty; give every video a label")
    integers = [] if folders else [row for row in rows if _INTEGER.fullmatch(row.label)]
    # A class list may hold names such as "7": if every integer is one of its names, they are names.
    if integers and not {row.label for row in integers} <= set(names or ()):
        named = next((row for row in rows if not _INTEGER.fullmatch(row.label)), None)
        if named:
            raise InputError(
                f"{integers[0].where}: label {integers[0].label} is an integer, but {named.place} has the name "
                f"{named.label!r}; use integers throughout, or names throughout"
            )
        return _by_id(rows, names)
    if names is None:
        _refuse_two_spellings(rows)
        names = tuple(sorted({row.label for row in rows}))
    return _by_name(rows, names), names, ()


def _by_name(rows: Sequence[Row], names: tuple[str, ...]) -> list[int]:
    exact = {name: index for index, name in enumerate(names)}
    folded: dict[str, int | None] = {}
    for index, name in enumerate(names):
        folded[fold(name)] = None if fold(name) in folded else index  # None: two names differ only in spelling
    labels = []
    for row in rows:
        label = exact.get(row.label)
        label = folded.get(fold(row.label)) if label is None else label
        if label is None:
            hint = nearest(row.label, names) or "; check the class list"
            raise InputError(f"{row.where}: unknown label {row.label!r}, not one of the {len(names)} classes{hint}")
        labels.append(label)
    return labels


def _by_id(
    rows: Sequence[Row], names: tuple[str, ...] | None
) -> tuple[list[int], tuple[str, ...] | None, tuple[str, ...]]:
    labels = [int(row.label.partition(".")[0]) for row in rows]
    hint = f"; {from_one}" if (from_one := labels_from_one(labels, len(names or ()))) else ""
    for row, label in zip(rows, labels, strict=True):
        if label < 0 or (names is not None and label >= len(names)):
            allowed = "0 or more" if names is None else f"0 to {len(names) - 1} ({len(names)} classes)"
            raise InputError(f"{row.where}: label {label} is not allowed; give {allowed}{hint}")
    notes = [] if 0 in labels else [f"{rows[0].source}: {_NO_LABEL_0}"]
    if names is not None and names != tuple(map(str, range(len(names)))):
        pairs = ", ".join(f"{label} = {name}" for label, name in enumerate(names[:3]))
        notes.append(f"{rows[0].source}: integer labels are taken as ids of the class names: {pairs}")
    return labels, names, tuple(notes)


def labels_from_one(labels: Collection[int], num_classes: int) -> str:
    """Return the question whether labels start at 1 if the largest is the number of classes and none is 0, else ""."""
    return _NO_LABEL_0 if max(labels) == num_classes and 0 not in labels else ""


def _refuse_two_spellings(rows: Sequence[Row]) -> None:
    """Refuse "air drumming" beside "air_drumming": as two classes they would shift all later ids."""
    first: dict[str, Row] = {}
    for row in rows:
        earlier = first.setdefault(fold(row.label), row)
        if earlier.label != row.label:
            # Letters with accents have two forms in Unicode that look the same.
            same = unicodedata.normalize("NFC", earlier.label) == unicodedata.normalize("NFC", row.label)
            label, other = (ascii(text) if same else repr(text) for text in (row.label, earlier.label))
            raise InputError(
                f"{row.where}: label {label} is spelled {other} in {earlier.place}; spell each class the same way"
            )


def classes_without_training_videos(names: Sequence[str], train: Collection[int], val: Collection[int]) -> str:
    """Return a warning about classes that no training video has, or an empty string.

    Args:
        names: Names by class id.
        train: Class ids of the training videos.
        val: Class ids of the validation videos.
    """
    empty = [label for label in range(len(names)) if label not in train]
    if not empty:
        return ""
    tested = [names[label] for label in empty if label in val]
    also = f"; {len(tested)} of them have validation videos: {some(tested)}" if tested else ""
    return f"{len(empty)} of {len(names)} classes have no training video: {some([names[e] for e in empty])}{also}"


def mirrored_classes(names: Sequence[str]) -> list[str]:
    """Return the class names with a word that a mirrored video contradicts, such as "moving left" or "TurnRight"."""
    words = {name: re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower() for name in names}
    return [name for name, text in words.items() if _MIRRORED.search(text)]


def some(names: Sequence[str]) -> str:
    """Return the first five names."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
