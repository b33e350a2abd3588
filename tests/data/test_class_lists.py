"""Lists of class names."""

from __future__ import annotations

import json

import pytest

from dnl_video.data.class_lists import read_class_list
from dnl_video.data.list_file import fold
from tests.data.test_manifest import refusal


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "clean and jerk\nair drumming\narchery\n\n"),
        ("c.txt", "\ufeffclean and jerk\r\n air drumming \r\narchery"),
        ("c.json", json.dumps(["clean and jerk", "air drumming", "archery"])),
        ("classInd.txt", "1 clean and jerk\r\n2 air drumming\r\n3 archery\r\n"),  # UCF101
        ("c.txt", "0 clean and jerk\n1 air drumming\n2 archery"),
        (
            "labels.json",
            json.dumps({"archery": "2", "air drumming": "1", "clean and jerk": "0"}),
        ),  # Something-Something
        ("c.json", json.dumps({"archery": 2, "air drumming": 1, '"clean and jerk"': 0}, indent=1)),
    ],
)
def test_class_lists(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_class_list(tmp_path / name) == ("clean and jerk", "air drumming", "archery")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\na\n", "{file}, line 3: class 'a' was already listed in line 1; list it once"),
        ("a\n\nb\n", "{file}, line 2: the class name is empty; give every class a name"),
        ('["a", ""]', "{file}, entry 1: the class name is empty; give every class a name"),
        ('["a", "b", "a"]', "{file}, entry 2: class 'a' was already listed in entry 0; list it once"),
        ("[]", "class list {file} has no class; give at least one name"),
        ("", "{file} is empty; give one class name per line, or JSON"),
        ('{"a": 0, "b": 2}', "class list {file} must give each name one id, from 0 to 1"),
        ('{"a": "1", "b": "2"}', "class list {file} must give each name one id, from 0 to 1"),
        ('{"a": "b"}', "class list {file} must give each name one id, from 0 to 0"),
        ("[1, 2]", "class list {file} must be a JSON list of names, or an object {{name: id}}"),
        ('["a",\n"b"', "{file}, line 2: not valid JSON (Expecting ',' delimiter); fix it, or list names"),
    ],
)
def test_class_list_errors(tmp_path, text, message):
    file = tmp_path / "classes.txt"
    file.write_text(text)
    assert refusal(read_class_list, file) == message.format(file=file)


def test_absent_class_list(tmp_path):
    expected = (
        "class list {} does not exist; give a text file with one class name per line, JSON, or one of kinetics400, "
        "kinetics600, kinetics700{}"
    )
    assert refusal(read_class_list, tmp_path / "no.txt") == expected.format(tmp_path / "no.txt", "")
    assert refusal(read_class_list, "kinetics_400") == expected.format("kinetics_400", "; did you mean 'kinetics400'?")


@pytest.mark.parametrize("number", [400, 600, 700])
def test_shipped_class_lists_are_in_the_published_order(number):
    names = read_class_list(f"kinetics{number}")
    assert len(names) == len(set(map(fold, names))) == number
    # The order of training listings without a class list, and of torchvision, PySlowFast and mmaction2.
    assert list(names) == sorted(names)
    assert (names[0], names[1][0], names[-1]) == ("abseiling", "a", "zumba")
    assert names.index("yoga") == number - 2


@pytest.mark.parametrize("names", [("1 x", "3 y"), ("5", "6", "7"), ("1", "2"), ("2 a", "1 b"), ("1 x", "y")])
def test_names_that_begin_with_numbers_are_kept(tmp_path, names):
    (tmp_path / "c.txt").write_text("\n".join(names))
    assert read_class_list(tmp_path / "c.txt") == names
