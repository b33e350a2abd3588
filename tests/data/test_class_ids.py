"""Labels become class ids."""

from __future__ import annotations

import re
import unicodedata

import pytest

from dnl_video.data.class_ids import assign_labels, classes_without_training_videos, mirrored_classes
from dnl_video.data.list_file import Row
from dnl_video.errors import InputError

CLASSES = ("abseiling", "air drumming", "archery", "zumba")
NO_LABEL_0 = "list.txt: no video has label 0; do labels start at 1?"
PAIRS = "list.txt: integer labels are taken as ids of the class names: 0 = abseiling, 1 = air drumming, 2 = archery"


def rows(*labels: str) -> list[Row]:
    return [Row("list.txt", f"line {i}", f"{i}.mp4", f"{i}.mp4", label) for i, label in enumerate(labels, 1)]


@pytest.mark.parametrize(
    ("labels", "names", "ids", "notes"),
    [
        (["0", "11", "2"], None, [0, 11, 2], []),
        (["0.0", "11.0", "2."], None, [0, 11, 2], []),  # pandas writes integers beside gaps as floats
        (["0.0", "2.0"], CLASSES, [0, 2], [PAIRS]),
        (["1", "2", "3"], None, [1, 2, 3], [NO_LABEL_0]),
        (["1", "3"], CLASSES, [1, 3], [NO_LABEL_0, PAIRS]),
        (["0", "2.0"], ("0", "1", "2"), [0, 2], []),  # a model trained on integers has these names
        (["7", "5"], ("5", "6", "7"), [2, 0], []),
        (["archery", "Air_drumming"], CLASSES, [2, 1], []),
        ([unicodedata.normalize("NFD", "café")], (unicodedata.normalize("NFC", "café"),), [0], []),
    ],
)
def test_labels(labels, names, ids, notes):
    found, spelled, said = assign_labels(rows(*labels), names, folders=False)
    assert (found, spelled, list(said)) == (ids, names, notes)


LIMITS = "label {} is not allowed; give 0 to 3 (4 classes)"


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (["1", "4"], CLASSES, LIMITS.format(4) + "; no video has label 0; do labels start at 1?"),
        (["0", "4"], CLASSES, LIMITS.format(4)),
        (["1", "5"], CLASSES, LIMITS.format(5)),  # ids that start at 1 end at 4
        (
            ["0.5", "0.0"],
            None,
            "label 0.0 is an integer, but line 1 has the name '0.5'; use integers throughout, or names throughout",
        ),
        (
            ["caf\u00e9", "cafe\u0301"],
            None,
            "label 'cafe\\u0301' is spelled 'caf\\xe9' in line 1; spell each class the same way",
        ),
    ],
)
def test_labels_that_cannot_be_used(labels, names, message):
    with pytest.raises(InputError, match=f"^{re.escape(f'list.txt, line 2: {message}')}$"):
        assign_labels(rows(*labels), names, folders=False)


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        ({0, 1, 2, 3}, {0}, ""),
        ({1, 2, 3}, {1}, "1 of 4 classes have no training video: abseiling"),
        (
            {2},
            {1, 2, 3},
            "3 of 4 classes have no training video: abseiling, air drumming, zumba; 2 of them have "
            "validation videos: air drumming, zumba",
        ),
    ],
)
def test_classes_without_training_videos(train, val, expected):
    assert classes_without_training_videos(CLASSES, train, val) == expected


def test_at_most_five_names_are_shown():
    text = classes_without_training_videos([str(i) for i in range(400)], set(), {7})
    assert text == "400 of 400 classes have no training video: 0, 1, 2, 3, 4, ...; 1 of them have validation videos: 7"


@pytest.mark.parametrize(
    ("name", "mirrored"),
    [
        ("moving left", True),
        ("Pushing something from left to right", True),
        ("turn_RIGHT", True),
        ("SwipeLeft", True),
        ("left-hand", True),
        ("leftwards", True),
        ("rotating counterclockwise", True),
        ("anti-clockwise", True),
        ("bright light", False),
        ("leftovers", False),
        ("uprights", False),
        ("moving up", False),
    ],
)
def test_class_names_that_a_mirror_contradicts(name: str, mirrored: bool) -> None:
    assert mirrored_classes(["jumping", name]) == ([name] if mirrored else [])
