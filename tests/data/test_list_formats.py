"""`path label` lines with frame counts or several labels, and JSON lists."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from dnl_video.data.manifest import read_manifest, read_videos
from tests.data.test_manifest import labels, listing, paths, refusal, touch

MULTI = "multi-label lists are not supported; give each video one label"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # mmaction2 and its forerunners: path, frames, label.
        (["a.mp4 120 0", "sub/b.mp4 300 12"], [("a.mp4", 0), ("sub/b.mp4", 12)]),
        (["a.mp4,120,0", "b.mp4,300,12"], [("a.mp4", 0), ("b.mp4", 12)]),
        (["a.mp4\t120\t0", "b.mp4\t300\t12"], [("a.mp4", 0), ("b.mp4", 12)]),
        (["a.mp4, 120, 0", '"b, c.mp4", 300, 12'], [("a.mp4", 0), ("b, c.mp4", 12)]),
        (["my video 1.mp4 120 0", "my 2 3.mp4 300 12"], [("my video 1.mp4", 0), ("my 2 3.mp4", 12)]),
        (["my folder/a 163 0", "my folder/b 9 1"], [("my folder/a", 0), ("my folder/b", 1)]),
        (["some/directory-1 163 1", "some/directory-2 122 1"], [("some/directory-1", 1), ("some/directory-2", 1)]),
        # One label.
        (["my video 1.mp4 3", "my video 2.mp4 4"], [("my video 1.mp4", 3), ("my video 2.mp4", 4)]),
        (["my clip 1 3", "my clip 2 4"], [("my clip 1", 3), ("my clip 2", 4)]),
        (["clip 0 3", "clip 1 4"], [("clip 0", 3), ("clip 1", 4)]),
        (["a.mp4 3 point shot", "b.mp4 2 hand throw"], [("a.mp4", 1), ("b.mp4", 0)]),
        # A class with several frame counts.
        (["a.mp4 120 archery", "b.mp4 99 archery", "c.mp4 9 hand stand"], [("a.mp4", 0), ("b.mp4", 0), ("c.mp4", 1)]),
        (["a.mp4 120 0", "b.mp4 3"], None),
    ],
)
def test_frame_counts_are_no_part_of_path_or_label(tmp_path, lines, expected):
    source = listing(tmp_path, *lines)
    if expected is None:
        assert refusal(read_manifest, source) == f"{source}, line 1: labels 120 0: {MULTI}"
        return
    manifest = read_manifest(source)
    assert list(zip(paths(manifest, tmp_path), labels(manifest), strict=True)) == expected
    counted = re.search("120|163", lines[0]) is not None
    assert (f"{source}: lines are read as path, number of frames, label" in manifest.notes) is counted
    assert paths(read_videos([str(source)]), tmp_path) == [path for path, _ in expected]


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        # The test lists of mmaction2, and 0 where a frame count would be.
        (["test.mp4 0 3", "test2.mp4 0 2 4"], "line 1: labels 0 3"),
        (["test.mp4 0 3", "test2.mp4 1 3"], "line 1: labels 0 3"),
        (["test.mp4,1", "test2.mp4,1,3"], "line 2: labels 1 3"),
        (["test.mp4 5 1", "test2.mp4 5 3 5"], "line 1: labels 5 1"),
        (["test.mp4 2 5 127"], "line 1: labels 2 5 127"),
        (["path,label", 'test.mp4,"0,3"'], "line 2: labels 0,3"),
        (["path,label", "test.mp4,[0 3]"], "line 2: labels [0 3]"),
    ],
)
def test_several_labels_are_refused_by_name(tmp_path, lines, where):
    source = listing(tmp_path, *lines)
    assert refusal(read_manifest, source) == f"{source}, {where}: {MULTI}"
    assert len(read_videos([str(source)]).records) == len(lines) - lines.count("path,label")  # needs no labels


def test_folders_whose_names_end_with_a_number(tmp_path):
    touch(tmp_path, "clip 1/img_1.jpg")
    touch(tmp_path, "clip 2/img_1.jpg")
    source = listing(tmp_path, "clip 1 3", "clip 2 4")
    assert paths(read_manifest(source), tmp_path) == ["clip 1", "clip 2"]
    touch(tmp_path, "imgs1/img_1.jpg", "imgs2/img_1.jpg")
    source = listing(tmp_path, "imgs1 5 1", "imgs2 5 3 5")  # as mmaction2's test list
    assert refusal(read_manifest, source) == f"{source}, line 1: labels 5 1: {MULTI}"


# --- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        # mmaction2's tools/data/anno_txt2json.py, of videos and of frames; mmaction2 1.x; others.
        [{"filename": "a b.mp4", "label": [2]}, {"filename": "c", "label": [0]}],
        [
            {"frame_dir": "a b.mp4", "total_frames": 9, "label": [2]},
            {"frame_dir": "c", "total_frames": 8, "label": [0]},
        ],
        {"metainfo": {}, "data_list": [{"filename": "a b.mp4", "label": 2}, {"filename": "c", "label": 0}]},
        [{"video": "a b.mp4", "label": "2"}, {"video": "c", "label": "0"}],
        [{"path": "a b.mp4", "label": 2, "note": "#"}, {"path": "c", "label": 0, "note": None}],
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["list.json", "list.txt"])
def test_json_lists(tmp_path, value, indent, name):
    (tmp_path / name).write_text(json.dumps(value, indent=indent))
    manifest = read_manifest(tmp_path / name)
    assert paths(manifest, tmp_path) == ["a b.mp4", "c"]
    assert labels(manifest) == [2, 0]
    assert paths(read_videos([str(tmp_path / name)]), tmp_path) == ["a b.mp4", "c"]


def test_json_lines(tmp_path):
    objects = [{"path": "a.mp4", "label": "zumba"}, {"path": "b.mp4", "label": "archery"}]
    source = listing(tmp_path, *map(json.dumps, objects), "", name="list.jsonl")
    assert labels(read_manifest(source)) == [1, 0]
    source = listing(tmp_path, json.dumps(objects[0]), name="one.jsonl")
    assert labels(read_manifest(source)) == [0]
    source = listing(tmp_path, json.dumps(objects[0]), '{"path": "b.m', name="torn.jsonl")
    assert refusal(read_manifest, source).startswith(f"{source}, line 2: not valid JSON (")


def test_json_lists_with_splits(tmp_path):
    objects = [
        {"path": f"{i}.mp4", "label": i % 2, "split": split} for i, split in enumerate(("train", "val", "train"))
    ]
    source = tmp_path / "all.json"
    source.write_text(json.dumps(objects))
    assert paths(read_manifest(source, split="train"), tmp_path) == ["0.mp4", "2.mp4"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"filename": "a.mp4", "label": [0, 3]}], ", entry 0: labels [0, 3]: " + MULTI),
        # Holistic Video Understanding, a multi-label data set in mmaction2.
        ([{"filename": "a.mp4", "label": {"scene": [206]}}], ", entry 0: labels {'scene': [206]}: " + MULTI),
        ([{"filename": "a.mp4", "label": []}], ", entry 0: the label is empty; give every video a label"),
        ([{"filename": "a.mp4"}], ", entry 0: the label is empty; give every video a label"),
        (
            [{"path": "a.mp4", "label": 1}, {"path": 3, "label": 1}],
            ", entry 1: the path is 3; give the file of every video",
        ),
        ([{"file": "a.mp4", "label": 1}], ", entry 0: no path in the keys file, label; give objects with one"),
        ({"archery": 0, "zumba": 1}, ", entry 0: no path in the keys archery, zumba; give objects with one of"),
        (
            ["a.mp4"],
            " is no JSON list of objects; give objects with one of the keys path, filename, file_name, video, ",
        ),
        ([], " is no JSON list of objects; give objects with one of the keys path, "),
    ],
)
def test_json_errors(tmp_path, value: Any, message):
    source = tmp_path / "list.json"
    source.write_text(json.dumps(value))
    assert refusal(read_manifest, source).startswith(f"{source}{message}")


def test_deep_json_and_files_named_with_brackets(tmp_path):
    source = listing(tmp_path, "[" * 100_000, name="deep.json")
    assert "JSON" in refusal(read_manifest, source)
    source = listing(tmp_path, "[1] a.mp4 0", "{b}.mp4 1")
    assert paths(read_manifest(source), tmp_path) == ["[1] a.mp4", "{b}.mp4"]
