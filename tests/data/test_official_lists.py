"""Official lists of data sets, in the forms in which they are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dnl_video.data.manifest import Manifest, read_manifest, read_videos
from dnl_video.data.prepare_list import PrepareOptions, list_videos
from tests.data.test_manifest import labels, listing, paths, refusal, touch

# Lines 33 to 37 and 47, 48 of classInd.txt: its order is not that of sorted().
UCF101_CLASSES = ("GolfSwing", "Haircut", "Hammering", "HammerThrow", "JumpingJack", "JumpRope")


def ucf101(folder: Path) -> Path:
    folder.mkdir()
    index = [f"{i} {name}" for i, name in enumerate(UCF101_CLASSES, 1)]
    (folder / "classInd.txt").write_bytes("\r\n".join([*index, ""]).encode())
    listing(
        folder,
        "HammerThrow/v_HammerThrow_g08_c01.avi 4",
        "Hammering/v_Hammering_g08_c01.avi 3",
        "JumpRope/v_JumpRope_g08_c01.avi 6",
        name="trainlist01.txt",
    )
    return listing(
        folder, "HammerThrow/v_HammerThrow_g01_c01.avi", "GolfSwing/v_GolfSwing_g01_c01.avi", name="testlist01.txt"
    )


def test_ucf101(tmp_path):
    test = ucf101(tmp_path / "lists")
    train = read_manifest(test.with_name("trainlist01.txt"), root=tmp_path, split="train")
    assert train.class_names == UCF101_CLASSES
    assert labels(train) == [3, 2, 5]  # the ids of classInd.txt, from 0
    assert [record.class_name for record in train.records] == ["HammerThrow", "Hammering", "JumpRope"]
    assert paths(train, tmp_path)[0] == "HammerThrow/v_HammerThrow_g08_c01.avi"
    assert labels(read_manifest(test, root=tmp_path, split="val")) == [3, 0]
    assert labels(read_manifest(test, root=tmp_path, class_names=sorted(UCF101_CLASSES))) == [2, 0]
    assert len(read_videos([str(test)], root=tmp_path).records) == 2


def test_lists_from_0_beside_the_class_index_are_plain_lists(tmp_path):
    source = ucf101(tmp_path / "lists").with_name("ucf101_train_split_1_videos.txt")
    listing(source.parent, "HammerThrow/a.avi 3", "GolfSwing/b.avi 0", name=source.name)
    assert labels(read_manifest(source)) == [3, 0]
    assert read_manifest(source).class_names is None


def hmdb51(folder: Path) -> Path:
    clap = ["#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 1 ", "b_clap_u_nm_np1_fr_goo_1.avi 2 ", "c_clap_u_cm_np1.avi 0 "]
    listing(folder, *clap, name="clap_test_split1.txt")
    listing(
        folder, "x_brush_hair_u_nm_np1_ba_goo_0.avi 2 ", "April_09_brush_hair.avi 1 ", name="brush_hair_test_split1.txt"
    )
    listing(folder, "x_brush_hair_u_nm_np1_ba_goo_0.avi 1 ", name="brush_hair_test_split2.txt")
    return folder / "clap_test_split1.txt"


def test_hmdb51(tmp_path):
    source = hmdb51(tmp_path / "splits")
    videos = tmp_path / "hmdb51_org"
    touch(videos, "clap/#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi", "brush_hair/April_09_brush_hair.mp4")
    train = read_manifest(source, root=videos, split="train")
    assert train.class_names == ("brush_hair", "clap")
    assert paths(train, videos) == ["brush_hair/April_09_brush_hair.mp4", "clap/#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi"]
    assert labels(train) == [0, 1]
    val = read_manifest(source, root=videos, class_names=train.class_names, split="val")
    assert paths(val, videos) == ["brush_hair/x_brush_hair_u_nm_np1_ba_goo_0.avi", "clap/b_clap_u_nm_np1_fr_goo_1.avi"]
    assert labels(val) == [0, 1]
    pattern = source.with_name("*_test_split1.txt")
    assert val.notes == (
        f"{pattern}: 2 files, one for each class; 1 videos of no split (0) were left out",
        f"{source}: 2 of 4 rows are used, those of the split test",
    )
    before = val.sha256
    listing(source.parent, "other.avi 1", name="brush_hair_test_split1.txt")
    assert read_manifest(source, root=videos).sha256 != before


def test_the_folder_of_hmdb51s_splits_is_refused_with_the_way_out(tmp_path):
    hmdb51(tmp_path / "splits")
    touch(tmp_path / "videos", "clap/a.avi")
    options = PrepareOptions(str(tmp_path / "videos"), str(tmp_path / "m.csv"), str(tmp_path / "splits"))
    assert refusal(list_videos, options).endswith("; of HMDB51's files CLASS_test_split1.txt give one")


SOMETHING = [
    {
        "id": "78687",
        "label": "holding potato next to vicks vaporub bottle",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato", "vicks vaporub bottle"],
    },
    {"id": "36585", "label": "plastic falling", "template": "[Something] falling like a feather or paper"},
    {"id": "42326", "label": "spreading margarine onto bread", "template": "Spreading [something] onto [something]"},
]
SOMETHING_CLASSES = {  # not in alphabetical order, to see that the ids are used
    "Spreading something onto something": "0",
    "Holding something next to something": "1",
    "Something falling like a feather or paper": "2",
}


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_something_something(tmp_path, prefix):
    touch(tmp_path / "videos", "78687.webm", "42326/img_00001.jpg")
    train = write_json(tmp_path / "labels" / f"{prefix}train.json", SOMETHING)
    alphabetical = read_manifest(train, root=tmp_path / "videos")
    assert alphabetical.class_names == tuple(sorted(SOMETHING_CLASSES))
    assert labels(alphabetical) == [0, 1, 2]
    write_json(tmp_path / "labels" / f"{prefix}labels.json", SOMETHING_CLASSES)
    manifest = read_manifest(train, root=tmp_path / "videos")
    assert paths(manifest, tmp_path / "videos") == ["78687.webm", "36585.webm", "42326"]
    assert manifest.class_names == tuple(SOMETHING_CLASSES)
    assert labels(manifest) == [1, 2, 0]
    assert [record.video_id for record in manifest.records] == ["78687", "36585", "42326"]
    test = write_json(tmp_path / "labels" / f"{prefix}test.json", [{"id": "1420"}, {"id": "166429"}])
    assert paths(read_videos([str(test)], root=tmp_path / "videos"), tmp_path / "videos") == [
        "1420.webm",
        "166429.webm",
    ]
    assert refusal(read_manifest, test) == f"{test}, entry 0: the label is empty; give every video a label"


def kinetics_json(path: Path, **clips: Any) -> Path:
    return write_json(path, {name.replace("_", "-"): clip for name, clip in clips.items()})


def clip(label: str | None, start: float, end: float, subset: str = "validate") -> dict[str, Any]:
    about = {"segment": [start, end]} if label is None else {"label": label, "segment": [start, end]}
    return {"annotations": about, "duration": 10.0, "subset": subset, "url": "https://www.youtube.com/watch?v=x"}


def test_kinetics_json_equals_its_csv(tmp_path):
    touch(tmp_path / "videos", "val/archery/bbb.mp4")
    clips = {"zvdtk1CSpao": clip("changing oil", 31.0, 41.0), "bbb": clip("archery", 3.0, 13.0)}
    source = kinetics_json(tmp_path / "kinetics700_val.json", **clips)
    rows = ["changing oil,zvdtk1CSpao,31,41,validate", "archery,bbb,3,13,validate"]
    official = listing(tmp_path, "label,youtube_id,time_start,time_end,split", *rows, name="val.csv")
    manifest, expected = (read_manifest(one, root=tmp_path / "videos") for one in (source, official))
    assert manifest.records == expected.records
    assert manifest.class_names == ("archery", "changing oil")
    test = kinetics_json(tmp_path / "test.json", zvdtk1CSpao=clip(None, 31.0, 41.0, "test"))
    assert [r.video_id for r in read_videos([str(test)]).records] == ["zvdtk1CSpao_000031_000041"]
    broken = kinetics_json(tmp_path / "broken.json", aaa={"annotations": {"label": "archery"}, "subset": "val"})
    assert refusal(read_manifest, broken) == (
        f"{broken}, entry aaa: time_start, time_end are '', ''; give whole seconds"
    )


# --- several splits in one list --------------------------------------------------------------------------------------


def combined(folder: Path, *splits: str) -> Path:
    rows = [f"c{i % 2},id{i},0,10,{split}" for i, split in enumerate(splits)]
    return listing(folder, "label,youtube_id,time_start,time_end,split", *rows, name="all.csv")


def ids(manifest: Manifest) -> str:
    return " ".join(record.video_id.partition("_")[0] for record in manifest.records)


@pytest.mark.parametrize(
    ("splits", "train", "val", "word"),
    [
        ("train train validate validate test", "id0 id1", "id2 id3", "val"),
        ("train test TRAIN test", "id0 id2", "id1 id3", "test"),
        ("training validation training val", "id0 id2", "id1 id3", "val"),
    ],
)
def test_each_side_takes_its_own_rows_and_says_so(tmp_path, splits, train, val, word):
    source = combined(tmp_path, *splits.split())
    total = len(splits.split())
    for split, expected, name in (("train", train, "train"), ("val", val, word)):
        manifest = read_manifest(source, class_names=("c0", "c1"), split=split)
        assert ids(manifest) == expected
        assert manifest.notes == (f"{source}: 2 of {total} rows are used, those of the split {name}",)
    assert len(read_manifest(source).records) == total
    assert len(read_videos([str(source)]).records) == total


def test_a_list_of_one_split_serves_both_sides(tmp_path):
    for word in ("validate", "fold 1"):
        source = combined(tmp_path, word, word)
        for split in ("train", "val"):
            assert read_manifest(source, split=split).notes == ()
            assert len(read_manifest(source, split=split).records) == 2


def test_unknown_splits_are_refused(tmp_path):
    source = combined(tmp_path, "train", "dev")
    assert refusal(read_manifest, source, split="train") == (
        f"{source}, line 3: split 'dev' is not known; give train, val or test in every row"
    )
    source = combined(tmp_path, "val", "test")
    assert refusal(read_manifest, source, split="train") == (
        f"{source} has rows of the splits test, val, and none of train"
    )
