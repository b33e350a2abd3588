from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dnl_video.data.class_lists import read_class_list
from dnl_video.data.manifest import Manifest, VideoRecord, missing, read_manifest, read_videos
from dnl_video.errors import InputError
from dnl_video.files import write_csv

OFFICIAL = "label,youtube_id,time_start,time_end,split"
CLASSES = ("air drumming", "archery", "clean and jerk")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listing(folder: Path, *lines: str, name: str = "list.txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def paths(manifest: Manifest, folder: Path) -> list[str]:
    return [Path(record.path).relative_to(folder).as_posix() for record in manifest.records]


def labels(manifest: Manifest) -> list[int | None]:
    return [record.label for record in manifest.records]


def refusal(action, *arguments, **options) -> str:
    """Return the message of the InputError that an action raises; it must be one line."""
    with pytest.raises(InputError) as caught:
        action(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- official Kinetics CSV ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        ["-Abc_1_xyz0_000010_000020.mp4", "bbbbbbbbbbb_000003_000013.mp4", "ccccccccccc_000120_000130.mp4"],
        ["-Abc_1_xyz0.mp4", "bbbbbbbbbbb.webm", "ccccccccccc.mkv"],
        ["-Abc_1_xyz0_000010_000020.mp4.mkv", "bbbbbbbbbbb.mp4.webm", "ccccccccccc_000120_000130.MP4"],
        [f"{name}.mp4" for name in ("clean and jerk/-Abc_1_xyz0", "air drumming/bbbbbbbbbbb", "archery/ccccccccccc")],
        [
            "train/clean_and_jerk/-Abc_1_xyz0_000010_000020.mp4",
            "train/air_drumming/bbbbbbbbbbb_000003_000013.mp4",
            "train/archery/ccccccccccc_000120_000130.avi",
        ],
    ],
    ids=["flat", "ids", "merged by a downloader", "class folders, spaces", "split and class folders, underscores"],
)
def test_official_csv_finds_files_in_every_layout(tmp_path, files):
    touch(tmp_path / "videos", *files)
    source = listing(
        tmp_path,
        OFFICIAL + ",is_cc",
        "clean and jerk,-Abc_1_xyz0,10,20,train,0",
        '"air drumming",bbbbbbbbbbb,3,13,train,0',
        "archery,ccccccccccc,120.0,130.0,train,1",
        name="train.csv",
    )
    manifest = read_manifest(source, root=tmp_path / "videos")
    assert paths(manifest, tmp_path / "videos") == files
    assert labels(manifest) == [2, 0, 1]
    assert manifest.class_names == CLASSES
    assert manifest.records[0].video_id == "-Abc_1_xyz0_000010_000020"
    assert manifest.records[0].class_name == "clean and jerk"
    assert manifest.source == str(source)
    assert manifest.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert missing(manifest.records) == []


def test_official_csv_prefers_the_split_then_the_class_then_mp4(tmp_path):
    touch(
        tmp_path,
        *("train/archery/aaa_000000_000010.mp4", "val/archery/aaa_000000_000010.mp4"),
        *("val/air_drumming/bbb.mp4", "val/archery/bbb.mp4", "ccc.avi", "ccc.mp4"),
        *("ddd.mp4", "ddd_000000_000010.mp4", "._eee.mp4", ".cache/eee.mp4", "eee.txt"),
    )
    rows = [f"archery,{video},0,10,validate" for video in ("aaa", "bbb", "ccc", "ddd", "eee")]
    manifest = read_manifest(listing(tmp_path, OFFICIAL, *rows, name="val.csv"))
    assert paths(manifest, tmp_path) == [
        *("val/archery/aaa_000000_000010.mp4", "val/archery/bbb.mp4", "ccc.mp4", "ddd_000000_000010.mp4"),
        "eee_000000_000010.mp4",  # not there: the expected path
    ]
    assert [record.video_id for record in missing(manifest.records)] == ["eee_000000_000010"]


def test_official_csv_with_byte_order_mark_and_crlf(tmp_path):
    source = tmp_path / "train.csv"
    source.write_bytes(b"\xef\xbb\xbf" + f"{OFFICIAL}\r\narchery,aaa,0,10,train\r\n\r\n".encode())
    (record,) = read_manifest(source).records
    assert (record.video_id, record.label, record.class_name) == ("aaa_000000_000010", 0, "archery")


def test_links_are_followed_once(tmp_path):
    touch(tmp_path / "disk", "aaa.mp4")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "archery").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "disk" / "up").symlink_to(tmp_path / "videos", target_is_directory=True)
    assert paths(read_manifest(tmp_path / "videos"), tmp_path) == ["videos/archery/aaa.mp4"]


def test_a_link_to_a_folder_that_is_gone_is_an_error(tmp_path):
    touch(tmp_path, "videos/archery/a.mp4", "videos/README")
    (tmp_path / "videos" / "zumba").symlink_to("/mnt/a drive that is not mounted")
    assert refusal(read_manifest, tmp_path / "videos") == (
        f"folder {tmp_path}/videos/zumba cannot be read (No such file or directory); make it readable, or move it away"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("archery,bbb,0,10", "line 3: 4 fields where the header has 5; put fields that contain the separator in "),
        ("archery,bbb,x,10,train", "line 3: time_start, time_end are 'x', '10'; give whole seconds"),
        ("archery,,0,10,train", "line 3: youtube_id is empty; give the id of every video"),
        (",bbb,0,10,train", "line 3: the label is empty; give every video a label"),
        ("archery,aaa,0,10,train", "line 3: video 'aaa_000000_000010' was already listed in line 2; list it once"),
        (
            "3,bbb,0,10,train",
            "line 3: label 3 is an integer, but line 2 has the name 'archery'; use integers throughout",
        ),
    ],
)
def test_official_csv_errors(tmp_path, row, message):
    source = listing(tmp_path, OFFICIAL, "archery,aaa,0,10,train", row, name="train.csv")
    assert refusal(read_manifest, source).startswith(f"{source}, {message}")


def test_two_times_of_one_id_are_two_videos_unless_one_file_holds_both(tmp_path):
    source = listing(tmp_path, OFFICIAL, "archery,aaa,0,10,train", "archery,aaa,10,20,train", name="train.csv")
    assert len(read_manifest(source).records) == 2
    touch(tmp_path, "aaa.mp4")
    expected = f"{source}, line 3: file {tmp_path / 'aaa.mp4'} was already listed in line 2; list it once"
    assert refusal(read_manifest, source) == expected


# --- path label lists --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ["a b/x 1.mp4 2", "y.mp4 0"],
        ["a b/x 1.mp4\t2", "y.mp4\t0"],
        ["a b/x 1.mp4,2", "y.mp4,0"],
        ["a b/x 1.mp4, 2", "", '"y.mp4", 0'],
        ["a b/x 1.mp4;2", "y.mp4;0"],
        ['"a b/x 1.mp4" 2', "'y.mp4'   0"],
        ["path label", "a b/x 1.mp4 2", "y.mp4 0"],
        ["path  label", "a b/x 1.mp4  2", "y.mp4  0"],
        ["'a b/x 1.mp4'\t2", "'y.mp4'\t0"],
        ["path,label", "a b/x 1.mp4,2", "y.mp4,0"],
    ],
)
def test_lists_of_integers(tmp_path, lines):
    manifest = read_manifest(listing(tmp_path, *lines))
    assert manifest.records == (
        VideoRecord("a b/x 1.mp4", str(tmp_path / "a b/x 1.mp4"), 2, None),
        VideoRecord("y.mp4", str(tmp_path / "y.mp4"), 0, None),
    )
    assert manifest.class_names is None
    named = read_manifest(tmp_path / "list.txt", class_names=CLASSES)
    assert [record.class_name for record in named.records] == ["clean and jerk", "air drumming"]
    assert named.class_names == CLASSES


@pytest.mark.parametrize(
    "lines",
    [
        ["a b/x.mp4 clean and jerk", "y.MP4 archery"],
        ["a b/x.mp4\tclean and jerk", "y.MP4\tarchery"],
        ["a b/x.mp4,clean and jerk", "y.MP4,archery"],
        ['a b/x.mp4,"clean and jerk"', 'y.MP4,"archery"'],
        ['"a b/x.mp4" clean and jerk', '"y.MP4" archery'],
    ],
)
def test_lists_of_names_with_spaces(tmp_path, lines):
    manifest = read_manifest(listing(tmp_path, *lines))
    assert paths(manifest, tmp_path) == ["a b/x.mp4", "y.MP4"]
    assert labels(manifest) == [1, 0]
    assert manifest.class_names == ("archery", "clean and jerk")


def test_lists_with_unusual_paths(tmp_path):
    manifest = read_manifest(listing(tmp_path, "my clips/abc 4", "def 5"))
    assert paths(manifest, tmp_path) == ["my clips/abc", "def"]
    assert labels(manifest) == [4, 5]
    manifest = read_manifest(listing(tmp_path, "a, b; c.mp4 1", "d, e.mp4 2"))
    assert paths(manifest, tmp_path) == ["a, b; c.mp4", "d, e.mp4"]
    manifest = read_manifest(listing(tmp_path, "a, b.mp4,1", '"d, e.mp4",2', "f.mp4,3"))
    assert paths(manifest, tmp_path) == ["a, b.mp4", "d, e.mp4", "f.mp4"]
    assert labels(manifest) == [1, 2, 3]


def test_own_csv_takes_ids_and_ignores_other_columns(tmp_path):
    lines = ["split,label,path,video_id", 'val,archery,"a, b.mp4",one', "val,air drumming,c.mp4,two"]
    manifest = read_manifest(listing(tmp_path, *lines))
    assert manifest.records == (
        VideoRecord("one", str(tmp_path / "a, b.mp4"), 1, "archery"),
        VideoRecord("two", str(tmp_path / "c.mp4"), 0, "air drumming"),
    )


def test_own_csv_keeps_names_that_look_like_formulas(tmp_path):
    write_csv(
        tmp_path / "a.csv", [["path", "label", "video_id"], ["-a.mp4", "=b", "-3NNxb2uA8Y"], ["@.mp4", "c", "-5"]]
    )
    manifest = read_manifest(tmp_path / "a.csv")
    assert manifest.records == (
        VideoRecord("-3NNxb2uA8Y", str(tmp_path / "-a.mp4"), 0, "=b"),
        VideoRecord("-5", str(tmp_path / "@.mp4"), 1, "c"),
    )


def test_the_decoder_column(tmp_path):
    manifest = read_manifest(listing(tmp_path, "path,label,decoder", "a.mp4,0,decord", "b.avi,1,av", "c.mp4,1,"))
    assert [record.decoder for record in manifest.records] == ["decord", "av", None]
    named = read_manifest(listing(tmp_path, "path,label,decoder", "a.avi,archery,av"))
    assert named.records == (VideoRecord("a.avi", str(tmp_path / "a.avi"), 0, "archery", "av"),)


def test_decoders_of_an_earlier_version_are_chosen_anew(tmp_path):
    """It recorded decord for mirrored videos and for the wrong one of two streams."""
    facts = "path,label,video_id,num_frames,fps,width,height,codec,duration_s,decoder,status"
    manifest = read_manifest(listing(tmp_path, facts, "a.mp4,0,a,12,30.0,96,64,h264,0.4,decord,ok"))
    assert manifest.records[0].decoder is None
    assert any("an earlier version chose the decoders" in note for note in manifest.notes)


def test_root_prefixes_relative_paths_only(tmp_path):
    (tmp_path / "videos").mkdir()
    manifest = read_manifest(listing(tmp_path, "a.mp4 0", "/data/b.mp4 1"), root=tmp_path / "videos")
    assert [record.path for record in manifest.records] == [str(tmp_path / "videos" / "a.mp4"), "/data/b.mp4"]
    assert len(missing(manifest.records)) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.mp4 0", "b.mp4"], ", line 2: 'b.mp4' has no label; give `path label`, the label last"),
        (["my a.mp4", "my b.mp4"], ", line 1: 'my a.mp4' has no label; give `path label`, the label last"),
        (["a.mp4 0", "", "a.mp4 1"], ", line 3: video 'a.mp4' was already listed in line 1; list it once"),
        (["a.mp4 0", "x/../a.mp4 1"], ", line 2: file {root}/x/../a.mp4 was already listed in line 1; list it once"),
        (
            ["a.mp4 archery", "b.mp4 7"],
            ", line 2: label 7 is an integer, but line 1 has the name 'archery'; "
            "use integers throughout, or names throughout",
        ),
        (["a.mp4 0", "b.mp4 -1"], ", line 2: label -1 is not allowed; give 0 or more"),
        (
            ["a.mp4 air_drumming", "b.mp4 Air drumming"],
            ", line 2: label 'Air drumming' is spelled 'air_drumming' in line 1; spell each class the same way",
        ),
        ([""], " is empty; give an official Kinetics CSV (label,youtube_id,time_start,time_end,split), a CSV with"),
        *(
            ([header], " has a header and no rows; give an official")
            for header in ("path,label", "path label", OFFICIAL)
        ),
        # An official CSV given as a list.
        (
            ["youtube_id,time_start,time_end,split", "aaa,0,10,test"],
            ", line 1: columns youtube_id,time_start,time_end,split are not recognised; "
            "give an official Kinetics CSV (label,youtube_id,time_start,time_end,split), a CSV with the columns "
            "path,label, or lines of `path label` without a header",
        ),
        (["label,youtube_id", "archery,aaa"], ", line 1: columns label,youtube_id are not recognised; "),
        (["video,label", "aaa,archery"], ", line 1: columns video,label are not recognised; "),
        (
            ["archery,aaa,0,10,train"],
            ", line 1: this looks like an official Kinetics CSV without its header; "
            "add the first line label,youtube_id,time_start,time_end,split",
        ),
        (["path,label,decoder", "a.mp4,3,opencv"], ", line 2: decoder is 'opencv'; give decord, av, or leave it empty"),
        (["path,label", ",3"], ", line 2: the path is empty; give the file of every video"),
        (["path,label", "a, b.mp4,3"], ", line 2: 3 fields where the header has 2; put fields that contain the "),
    ],
)
def test_list_errors_name_file_and_line(tmp_path, lines, message):
    source = listing(tmp_path, *lines)
    assert refusal(read_manifest, source).startswith(f"{source}{message.format(root=tmp_path)}")


def test_sources_that_are_not_listings(tmp_path):
    absent = tmp_path / "absent.csv"
    assert refusal(read_manifest, absent) == (
        f"manifest {absent} does not exist; give a CSV, a list of `path label` lines or a class folder"
    )
    touch(tmp_path, "a.mp4")
    assert refusal(read_manifest, tmp_path / "a.mp4").startswith(f"{tmp_path / 'a.mp4'} is a video, not a listing; ")
    (tmp_path / "latin.txt").write_bytes(b"a.mp4 0\ncaf\xe9.mp4 1\n")
    assert refusal(read_manifest, tmp_path / "latin.txt") == (
        f"{tmp_path / 'latin.txt'}, line 2: not UTF-8 text; save the listing as UTF-8"
    )
    source = listing(tmp_path, "a.mp4 0")
    assert refusal(read_manifest, source, root=tmp_path / "no") == (
        f"root {tmp_path / 'no'} of {source} is not a folder; give the folder that holds the videos"
    )
    assert refusal(read_manifest, source, limit_videos=0) == "limit_videos is 0; give at least 1, or null for all"


# --- class names -------------------------------------------------------------------------------------------------


def test_given_class_names_fix_the_ids(tmp_path):
    source = listing(tmp_path, "a.mp4 clean_and_jerk", "b.mp4 Archery")  # a subset, in another spelling
    manifest = read_manifest(source, class_names=CLASSES)
    assert labels(manifest) == [2, 1]
    assert [record.class_name for record in manifest.records] == ["clean and jerk", "archery"]
    assert manifest.class_names == CLASSES
    source = listing(tmp_path, "a.mp4 7", "b.mp4 5")  # names of digits
    assert labels(read_manifest(source, class_names=("5", "6", "7"))) == [2, 0]


def test_an_ambiguous_spelling_is_refused(tmp_path):
    names = ("a b", "a_b", "c")
    source = listing(tmp_path, "x.mp4 a_b", "y.mp4 a b")
    assert labels(read_manifest(source, class_names=names)) == [1, 0]
    source = listing(tmp_path, "x.mp4 A_b")
    assert refusal(read_manifest, source, class_names=names).startswith(
        f"{source}, line 1: unknown label 'A_b', not one of the 3 classes"
    )


def test_unknown_label_and_id(tmp_path):
    source = listing(tmp_path, "a.mp4 archery", "b.mp4 archerie")
    assert refusal(read_manifest, source, class_names=CLASSES) == (
        f"{source}, line 2: unknown label 'archerie', not one of the 3 classes; did you mean 'archery'?"
    )
    source = listing(tmp_path, "a.mp4 zumba")
    assert refusal(read_manifest, source, class_names=CLASSES) == (
        f"{source}, line 1: unknown label 'zumba', not one of the 3 classes; check the class list"
    )
    source = listing(tmp_path, "a.mp4 2", "b.mp4 3", "c.mp4 0")
    assert refusal(read_manifest, source, class_names=CLASSES) == (
        f"{source}, line 2: label 3 is not allowed; give 0 to 2 (3 classes)"
    )


def test_alphabetical_order_is_the_published_one(tmp_path):
    names = read_class_list("kinetics400")
    assert len(names) == 400
    rows = [f"{name},id{i:09d},0,10,train" for i, name in enumerate(reversed(names))]
    manifest = read_manifest(listing(tmp_path, OFFICIAL, *rows, name="train.csv"))
    assert manifest.class_names == names
    assert labels(manifest) == list(range(399, -1, -1))
    folders = tmp_path / "folders"
    touch(folders, *(f"{name.replace(' ', '_')}/x.mp4" for name in names))
    assert labels(read_manifest(folders)) == list(range(400))


# --- folders -----------------------------------------------------------------------------------------------------


def test_class_folders(tmp_path):
    touch(tmp_path, "b_class/2.mp4", "b_class/sub/1.mkv", "A/3.webm", "A/notes.txt", "empty/readme.md", "10/4.mp4")
    manifest = read_manifest(tmp_path)
    names = ["10/4.mp4", "A/3.webm", "b_class/2.mp4", "b_class/sub/1.mkv"]
    assert [record.video_id for record in manifest.records] == names
    assert manifest.class_names == ("10", "A", "b_class")
    assert labels(manifest) == [0, 1, 2, 2]
    assert manifest.sha256 == hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert labels(read_manifest(tmp_path, class_names=["x", "B class", "a", "10"])) == [3, 2, 1, 1]
    assert read_manifest(tmp_path, root=tmp_path) == manifest
    assert manifest.notes == (f"1 class folders of {tmp_path} hold no video: empty",)
    assert manifest.labels == {0, 1, 2}


def test_class_folder_errors(tmp_path):
    assert refusal(read_manifest, tmp_path).startswith(
        f"folder {tmp_path} holds no video; give one folder per class with .mp4 .mkv"
    )
    touch(tmp_path, "train/archery/a.mp4", "val/archery/b.mp4")
    assert refusal(read_manifest, tmp_path) == (
        f"folder {tmp_path} holds splits (train, val), not classes; give one of them"
    )
    assert len(read_manifest(tmp_path / "train").records) == 1
    message = refusal(read_manifest, tmp_path / "train", class_names=["arch", "bow"])
    assert message == (
        f"{tmp_path / 'train'}, archery/a.mp4: unknown label 'archery', not one of the 2 classes; check the class list"
    )
    touch(tmp_path, "c.mp4")
    assert refusal(read_manifest, tmp_path) == (
        f"folder {tmp_path} holds c.mp4 outside a class folder; move it into one, or give a list"
    )
    assert refusal(read_manifest, tmp_path / "train", root=tmp_path) == (
        f"manifest {tmp_path / 'train'} is a class folder, which takes no root; leave out the root {tmp_path}"
    )


def test_a_file_out_of_reach_is_not_missing(tmp_path, monkeypatch):
    source = listing(tmp_path, "gone.mp4 0", "list.txt/a.mp4 0", "out_of_reach.mp4 0", f"{'x' * 300}.mp4 0")
    stat = os.stat

    def refuse(path, **options):
        if str(path).endswith("out_of_reach.mp4"):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **options)

    records = read_manifest(source).records
    monkeypatch.setattr(os, "stat", refuse)
    assert [record.video_id for record in missing(records)] == ["gone.mp4", "list.txt/a.mp4"]


# --- limits ------------------------------------------------------------------------------------------------------


def test_limit_keeps_classes_and_their_ids(tmp_path):
    source = listing(tmp_path, *(f"{c}{i}.mp4 {c}" for c in "abcd" for i in range(5)))
    manifest = read_manifest(source, limit_videos=4)
    assert [record.video_id for record in manifest.records] == ["a0.mp4", "b0.mp4", "c0.mp4", "d0.mp4"]
    assert labels(read_manifest(source, limit_videos=2)) == [0, 2]
    assert read_manifest(source, limit_videos=2).class_names == ("a", "b", "c", "d")
    assert [record.video_id for record in read_manifest(source, limit_videos=7).records] == [
        *("a0.mp4", "a2.mp4", "b0.mp4", "b3.mp4", "c1.mp4", "c4.mp4", "d2.mp4")  # 0 2 5 8 11 14 17
    ]
    assert len(read_manifest(source, limit_videos=100).records) == 20


# --- unlabelled --------------------------------------------------------------------------------------------------


def test_videos_from_files_folders_and_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "one.mp4", "folder/b/x.mp4", "folder/a/x.mp4", "folder/c.MKV", "folder/notes.txt", "lists/e f.mp4")
    source = listing(tmp_path / "lists", "e f.mp4", "absent.mp4")
    manifest = read_videos(["one.mp4", "folder", str(source)])
    assert [(record.video_id, record.path) for record in manifest.records] == [
        ("one.mp4", "one.mp4"),
        ("a/x.mp4", "folder/a/x.mp4"),
        ("b/x.mp4", "folder/b/x.mp4"),
        ("c.MKV", "folder/c.MKV"),
        ("e f.mp4", str(tmp_path / "lists/e f.mp4")),
        ("absent.mp4", str(tmp_path / "lists/absent.mp4")),
    ]
    assert {(record.label, record.class_name) for record in manifest.records} == {(None, None)}
    assert manifest.class_names is None
    assert manifest.source == f"one.mp4, folder, {source}"
    assert len(manifest.sha256) == 64


@pytest.mark.parametrize(
    "lines",
    [
        ["a b.mp4", "c.mp4"],
        ["a b.mp4 3", "c.mp4 1"],
        ["a b.mp4,archery", "c.mp4,clean and jerk"],
        ["path", "a b.mp4", "c.mp4"],
        ["path,label", "a b.mp4,x", "c.mp4,"],
        ["video_id,path", "1,a b.mp4", "2,c.mp4"],
    ],
)
def test_videos_of_lists_with_and_without_labels(tmp_path, lines):
    manifest = read_videos([str(listing(tmp_path, *lines))])
    assert paths(manifest, tmp_path) == ["a b.mp4", "c.mp4"]
    assert labels(manifest) == [None, None]


def test_videos_of_an_official_test_csv(tmp_path):
    touch(tmp_path / "videos", "test/aaa.mp4")
    header = "youtube_id,time_start,time_end,split"
    source = listing(tmp_path, header, "aaa,1,11,test", "bbb,2,12,test", name="test.csv")
    manifest = read_videos([str(source)], root=tmp_path / "videos")
    assert paths(manifest, tmp_path / "videos") == ["test/aaa.mp4", "bbb_000002_000012.mp4"]


def test_equal_ids_become_absolute_paths_and_files_are_listed_once(tmp_path):
    touch(tmp_path, "p/x.mp4", "q/x.mp4", "q/x.mkv")
    manifest = read_videos([str(tmp_path / "p"), str(tmp_path / "q"), str(tmp_path / "p" / "x.mp4")])
    names = [str(tmp_path / "p" / "x.mp4"), "x.mkv", str(tmp_path / "q" / "x.mp4")]
    assert [record.video_id for record in manifest.records] == names


def test_videos_errors(tmp_path):
    absent = str(tmp_path / "absent.mp4")
    assert refusal(read_videos, [absent]) == f"{absent} does not exist; give video files, folders or lists of paths"
    assert refusal(read_videos, [str(tmp_path)]).startswith(f"folder {tmp_path} holds no video; known extensions: .mp4")
    assert refusal(read_videos, []) == "no videos were given; give video files, folders or lists of paths"
    source = listing(tmp_path, "")
    assert refusal(read_videos, [str(source)]).startswith(f"{source} is empty; ")


# --- folders of frames -------------------------------------------------------------------------------------------


def test_a_frame_folder_is_a_video_unless_videos_are_beside_it(tmp_path):
    touch(tmp_path, "a/x/img_00001.jpg", "a/x/img_00002.jpg", "a/y/0.PNG", "b/z.mp4", "b/z1.jpg", "b/notes/readme.jpg")
    assert [(r.video_id, r.label) for r in read_manifest(tmp_path).records] == [("a/x", 0), ("a/y", 0), ("b/z.mp4", 1)]
    assert missing(read_manifest(tmp_path).records) == []
    assert paths(read_videos([str(tmp_path)]), tmp_path) == ["a/x", "a/y", "b/z.mp4"]
    assert paths(read_videos([str(tmp_path / "a" / "x")]), tmp_path) == ["a/x"]


def test_a_frame_folder_may_hold_folders_without_videos(tmp_path):
    touch(tmp_path, "a/x/img_1.jpg", "a/x/thumbs/notes.txt", "a/cover1.jpg", "b/y/img_1.jpg", "b/y/more/z.mp4")
    touch(tmp_path, "b/w/img_1.jpg", "b/w/cam1/img_1.jpg", "b/w/cam2/img_1.jpg")
    assert paths(read_videos([str(tmp_path)]), tmp_path) == ["a/x", "b/w/cam1", "b/w/cam2", "b/y/more/z.mp4"]


def test_an_official_csv_finds_folders_of_frames_and_prefers_files(tmp_path):
    touch(tmp_path, "archery/id1_000000_000010/img_1.jpg", "archery/id2_000000_000010/img_1.jpg", "archery/id3.mp4")
    found = ["archery/id2_000000_000010.mp4", "replacement/replacement_for_corrupted_k400/id3.mp4"]
    touch(tmp_path, *found)
    source = listing(tmp_path, OFFICIAL, *(f"archery,id{i},0,10,train" for i in (1, 2, 3)), name="train.csv")
    assert paths(read_manifest(source), tmp_path) == ["archery/id1_000000_000010", *found]


def test_the_fps_column(tmp_path):
    source = listing(tmp_path, "path,label,fps", "x,a,12.5", "y,b,", name="m.csv")
    assert [record.fps for record in read_manifest(source).records] == [12.5, None]
    assert [record.fps for record in read_videos([str(source)]).records] == [12.5, None]
    for text in ("0", "fast", "nan", "inf"):
        source = listing(tmp_path, "path,label,fps", f"x,a,{text}", name="m.csv")
        assert refusal(read_manifest, source) == (
            f"{source}, line 2: fps is {text!r}; give frames per second above 0, or leave it empty"
        )
