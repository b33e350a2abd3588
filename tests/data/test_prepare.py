"""`prepare` on folders with known faults."""

from __future__ import annotations

import csv
import json
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dnl_video.data import prepare as prepare_module
from dnl_video.data.decoding import open_video
from dnl_video.data.manifest import read_manifest, read_videos
from dnl_video.data.prepare import COLUMNS, Prepared, prepare
from dnl_video.data.prepare_list import PrepareOptions
from dnl_video.data.prepare_summary import summary_text
from dnl_video.errors import InputError
from tests.conftest import REPOSITORY
from tests.data.odd_videos import encode, numbers
from tests.data.test_frame_folders import write_frames

CLASSES = ("air drumming", "archery", "zumba")
OFFICIAL = "label,youtube_id,time_start,time_end,split,is_cc"


@dataclass(frozen=True)
class Kinetics:
    """A folder in the official layout with its list: options of `prepare`, and the true status by video id."""

    options: PrepareOptions
    truth: dict[str, str]

    @property
    def journal(self) -> Path:
        return Path(self.options.output).with_suffix(".journal.jsonl")


def generate(folder: Path, write_coloured: Callable[..., Path], number: int) -> Kinetics:
    """Write videos of which every tenth is broken, in turn: empty, cut off, a web page, a head alone, noise."""
    lines, truth = [OFFICIAL], {}
    for i in range(number):
        label = CLASSES[i % 3]
        video_id = f"vid{i:08d}_{i:06d}_{i + 10:06d}"
        path = folder / "videos" / "train" / label.replace(" ", "_") / f"{video_id}.mp4"
        write_coloured(path, red=i % 256)
        truth[video_id] = "broken" if i % 10 == 3 else "ok"
        if i % 10 == 3:
            content = path.read_bytes()
            damaged = (b"", content[: len(content) // 2], b"<html>404</html>" * 30, content[:40], os.urandom(4000))
            path.write_bytes(damaged[i // 10 % 5])
        lines.append(f'"{label}",vid{i:08d},{i},{i + 10},train,{i % 2}')
    lines.append("zumba,gone0000000,5,15,train,0")
    truth["gone0000000_000005_000015"] = "missing"
    listing = folder / "kinetics_train.csv"
    listing.write_text("\n".join(lines) + "\n")
    options = PrepareOptions(str(folder / "videos"), str(folder / "out" / "train.csv"), str(listing), num_workers=2)
    return Kinetics(options, truth)


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory, write_coloured, full_size) -> tuple[Kinetics, Prepared]:
    """500 videos at full size, prepared once; read only."""
    made = generate(tmp_path_factory.mktemp("kinetics"), write_coloured, 500 if full_size else 60)
    return made, prepare(made.options)


def options_for(folder: Path, *, videos: str = "v", annotations: str | None = None, **more: Any) -> PrepareOptions:
    listing = None if annotations is None else str(folder / annotations)
    return PrepareOptions(str(folder / videos), str(folder / "m.csv"), listing, num_workers=1, **more)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.full
def test_broken_videos_are_listed(kinetics):
    made, prepared = kinetics
    lost = {row["video_id"]: row["status"] for row in table(prepared.broken)}
    assert lost == {video_id: status for video_id, status in made.truth.items() if status != "ok"}
    assert all(row["reason"] for row in table(prepared.broken))
    listed = table(prepared.manifest)
    assert tuple(listed[0]) == COLUMNS
    assert [row["video_id"] for row in listed] == [name for name, status in made.truth.items() if status == "ok"]
    for row in listed:
        facts = [row[name] for name in ("num_frames", "fps", "width", "height", "codec", "duration_s", "status")]
        assert facts == ["24", "10.0", "64", "48", "h264", "2.4", "ok"]
    broken = sum(status == "broken" for status in made.truth.values())
    summary = prepared.summary
    assert summary == json.loads(prepared.summary_file.read_text())
    counts = [summary[n] for n in ("listed", "found", "missing", "broken", "usable", "duplicates")]
    assert counts == [len(made.truth), len(made.truth) - 1, 1, broken, len(made.truth) - 1 - broken, 0]
    assert sum(summary["reasons"].values()) == broken
    assert prepared.checked == len(made.truth) - 1


def test_the_manifest_can_be_read(kinetics):
    made, prepared = kinetics
    official = read_manifest(made.options.annotations or "", root=made.options.videos)
    usable = [record for record in official.records if made.truth[record.video_id] == "ok"]
    records = read_manifest(prepared.manifest).records
    assert [(r.video_id, r.path, r.label, r.class_name) for r in records] == [
        (r.video_id, r.path, r.label, r.class_name) for r in usable
    ]


def test_a_second_run_opens_no_file(kinetics, monkeypatch):
    made, first = kinetics
    before = {file: file.read_bytes() for file in (first.manifest, first.broken, first.summary_file)}
    videos = [path for path in Path(made.options.videos).rglob("*.mp4") if path.stat().st_size]
    contents = [(path, path.read_bytes(), path.stat()) for path in videos]
    journal = made.journal.read_bytes()

    def no_work(function: Any, jobs: list[Any], **options: Any) -> Any:
        assert not jobs
        return iter(())

    monkeypatch.setattr(prepare_module, "run_isolated", no_work)
    try:
        # The content is not read again, so it can be anything.
        for path, content, status in contents:
            path.write_bytes(b"?" * len(content))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        second = prepare(made.options)
    finally:
        for path, content, status in contents:
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert second.checked == 0
    assert {file: file.read_bytes() for file in before} == before
    assert made.journal.read_bytes() == journal


@pytest.mark.full
def test_a_killed_run_resumes(kinetics, tmp_path, full_size):
    made, whole = kinetics
    options = replace(made.options, output=str(tmp_path / "train.csv"))
    journal = tmp_path / "train.journal.jsonl"
    words = ["--annotations", str(options.annotations), "--videos", options.videos, "--output", options.output]
    command = [sys.executable, "-m", "dnl_video", "prepare", *words, "--num-workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    least = 200 if full_size else 10
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while not journal.exists() or journal.read_bytes().count(b"\n") < least:
            assert process.poll() is None, "it was done before it could be killed"
            time.sleep(0.001)
        process.kill()
    known = journal.read_bytes().count(b"\n")
    assert least <= known < len(made.truth) - 1
    assert not Path(options.output).exists()
    resumed = prepare(options)
    assert resumed.checked == len(made.truth) - 1 - known
    assert resumed.manifest.read_bytes() == whole.manifest.read_bytes()
    assert resumed.broken.read_bytes() == whole.broken.read_bytes()


def test_only_changed_and_new_files_are_checked_again(tmp_path, write_coloured):
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4"):
        write_coloured(tmp_path / "v" / name, red=9)
    (tmp_path / "v" / "a" / "2.mp4").write_bytes(b"broken")
    options = options_for(tmp_path)
    assert (prepare(options).checked, prepare(options).checked) == (3, 0)
    assert prepare(replace(options, retry_broken=True)).checked == 1
    assert prepare(replace(options, sample_frames=3)).checked == 3
    write_coloured(tmp_path / "v" / "a" / "2.mp4", red=1)  # mended
    write_coloured(tmp_path / "v" / "b" / "4.mp4", red=2)  # new
    prepared = prepare(replace(options, sample_frames=3))
    assert prepared.checked == 2
    assert prepared.summary["usable"] == 4
    # Two of the files have equal bytes.
    assert [len(paths) for paths in prepared.summary["copies"]] == [2]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_a_list_cannot_hold_are_broken(tmp_path, write_coloured):
    source = write_coloured(tmp_path / "v" / "a" / "1.mp4", red=1)
    os.link(source, os.fsencode(source.parent) + b"/\xff.mp4")
    prepared = prepare(options_for(tmp_path))
    assert [row["video_id"] for row in table(prepared.manifest)] == ["a/1.mp4"]
    assert [(row["video_id"], row["reason"]) for row in table(prepared.broken)] == [
        ("a/\\udcff.mp4", "the name is not UTF-8, which a list cannot hold; rename the file")
    ]


@pytest.mark.parametrize("name", ["a/new\nline.mp4", "new\rclass/2.mp4"])
def test_names_with_a_line_break_are_broken(tmp_path, write_coloured, name):
    source = write_coloured(tmp_path / "v" / "a" / "1.mp4", red=1)
    (tmp_path / "v" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "v" / name).write_bytes(source.read_bytes())
    prepared = prepare(options_for(tmp_path))
    assert [row["video_id"] for row in table(prepared.manifest)] == ["a/1.mp4"]
    assert [(row["video_id"], row["reason"]) for row in table(prepared.broken)] == [
        (
            name.replace("\n", "\\n").replace("\r", "\\r"),
            "the name has a line break, which no list can hold; rename the file",
        )
    ]
    assert len(read_manifest(prepared.manifest).records) == 1


def test_an_id_of_300_characters_fails_that_video_alone(tmp_path, write_coloured):
    write_coloured(tmp_path / "v" / "1.mp4", red=1)
    (tmp_path / "list.txt").write_text(f"1.mp4 0\n{'x' * 300}.mp4 0\n")
    prepared = prepare(options_for(tmp_path, annotations="list.txt", resize=32, resized_dir=str(tmp_path / "small")))
    assert [row["reason"] for row in table(prepared.broken)] == ["File name too long"]
    assert len(table(prepared.manifest)) == 1


def test_files_have_the_same_content_only_if_all_bytes_are_equal(tmp_path, write_coloured):
    content = write_coloured(tmp_path / "v" / "a" / "1.mp4", red=1).read_bytes()
    for name, end in (("a/1", b"x"), ("a/2", b"x"), ("a/3", b"y"), ("a/4", b"z")):
        # A box `free` of 100 kB at the end, which readers skip.
        (tmp_path / "v" / f"{name}.mp4").write_bytes(content + struct.pack(">I4s99991x", 100_000, b"free") + end)
    prepared = prepare(options_for(tmp_path))
    assert prepared.summary["usable"] == 4
    assert prepared.summary["copies"] == [[str(tmp_path / "v" / "a" / f"{i}.mp4") for i in (1, 2)]]
    journal = (tmp_path / "m.journal.jsonl").read_bytes()
    assert prepare(options_for(tmp_path)).summary == prepared.summary
    assert (tmp_path / "m.journal.jsonl").read_bytes() == journal  # the hashes are cached


def test_files_with_a_variable_rate_are_counted(tmp_path):
    (tmp_path / "v" / "a").mkdir(parents=True)
    encode(tmp_path / "v" / "a" / "1.mp4", frames=9)
    encode(tmp_path / "v" / "a" / "2.mp4", frames=9, times=lambda i: 20 * i + 100 * (i > 4))
    summary = prepare(options_for(tmp_path)).summary
    assert summary["variable_rate"] == 1
    assert "1 files have a variable frame rate\n" in summary_text(summary)


def test_classes_without_videos_are_named(tmp_path, write_coloured):
    write_coloured(tmp_path / "v" / "archery" / "1.mp4", red=1)
    (tmp_path / "v" / "zumba").mkdir()
    (tmp_path / "classes.txt").write_text("archery\nbowling\nzumba\n")
    summary = prepare(options_for(tmp_path)).summary
    assert summary["notes"] == [f"1 class folders of {tmp_path / 'v'} hold no video: zumba"]
    classes = prepare(options_for(tmp_path, classes=str(tmp_path / "classes.txt"))).summary["classes"]
    assert (classes["count"], classes["min"], classes["max"]) == (3, 0, 1)
    assert classes["empty"] == ["bowling", "zumba"]


# --- layouts -----------------------------------------------------------------------------------------------------


def test_layouts_of_the_official_lists(tmp_path, write_coloured):
    write_coloured(tmp_path / "v" / "val" / "air_drumming" / "aaaaaaaaaaa_000001_000011.mp4", red=1)
    write_coloured(tmp_path / "v" / "val" / "archery" / "bbbbbbbbbbb.mkv", red=2)
    (tmp_path / "v" / "val" / "ccccccccccc_000003_000013.mp4").write_bytes(b"corrupted, with a replacement:")
    write_coloured(tmp_path / "v" / "replacement" / "replacement_for_corrupted_k400" / "ccccccccccc.mp4", red=3)
    write_frames(tmp_path / "v" / "ddddddddddd_000004_000014", [f"img_{i:05d}.png" for i in range(1, 11)])
    ids = "aaaaaaaaaaa,1,11", "bbbbbbbbbbb,2,12", "ccccccccccc,3,13", "ddddddddddd,4,14"
    lists = {
        "k400.csv": [OFFICIAL, *(f'"air drumming",{row},validate,0' for row in ids)],
        "k700.csv": ["label,youtube_id,time_start,time_end,split", *(f"air drumming,{row},validate" for row in ids)],
        "test.csv": ["youtube_id,time_start,time_end,split", *(f"{row},test" for row in ids)],
    }
    expected = ["val/air_drumming/aaaaaaaaaaa_000001_000011.mp4", "val/archery/bbbbbbbbbbb.mkv"]
    expected += ["replacement/replacement_for_corrupted_k400/ccccccccccc.mp4", "ddddddddddd_000004_000014"]
    for name, lines in lists.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        out = tmp_path / "out" / name
        options = replace(options_for(tmp_path, annotations=name, frames_fps=12.5, relative=True), output=str(out))
        rows = table(prepare(options).manifest)
        assert [row["path"] for row in rows] == expected
        assert [row["fps"] for row in rows] == ["10.0", "10.0", "10.0", "12.5"]
        assert (rows[3]["num_frames"], rows[3]["codec"]) == ("10", "images")
        if name == "test.csv":
            assert {row["label"] for row in rows} == {""}
            assert len(read_videos([str(out)], root=tmp_path / "v").records) == 4
        else:
            records = read_manifest(out, root=tmp_path / "v").records
            assert [record.class_name for record in records] == ["air drumming"] * 4
            assert records[3].fps == 12.5


def test_rows_listed_twice_are_kept_once_and_named(tmp_path, write_coloured):
    write_coloured(tmp_path / "1.mp4", red=1)
    write_coloured(tmp_path / "2 b.mp4", red=2)
    (tmp_path / "list.txt").write_text("1.mp4 archery\n2 b.mp4 zumba\n1.mp4 zumba\n./2 b.mp4 zumba\n")
    prepared = prepare(options_for(tmp_path, videos=".", annotations="list.txt"))
    kept = [(row["video_id"], row["label"]) for row in table(prepared.manifest)]
    assert kept == [("1.mp4", "archery"), ("2 b.mp4", "zumba")]
    reasons = [row["reason"] for row in table(prepared.broken)]
    assert reasons == ["line 3: already listed in line 1 as 'archery'", "line 4: already listed in line 2"]
    assert (prepared.summary["listed"], prepared.summary["duplicates"], prepared.summary["found"]) == (4, 2, 2)


def test_class_list_fixes_the_spelling_and_integers_stay(tmp_path, write_coloured):
    for name in ("air_drumming/1.mp4", "archery/2.mp4"):
        write_coloured(tmp_path / "v" / name, red=1)
    options = options_for(tmp_path, classes="kinetics400")
    assert [row["label"] for row in table(prepare(options).manifest)] == ["air drumming", "archery"]
    (tmp_path / "list.txt").write_text("air_drumming/1.mp4 7\n")
    options = replace(options, annotations=str(tmp_path / "list.txt"), classes=None)
    assert [row["label"] for row in table(prepare(options).manifest)] == ["7"]
    (tmp_path / "v" / "zomba").mkdir()
    write_coloured(tmp_path / "v" / "zomba" / "3.mp4", red=1)
    with pytest.raises(InputError, match="unknown label 'zomba', not one of the 400 classes; did you mean 'zumba'"):
        prepare(replace(options, annotations=None, classes="kinetics400"))


def test_failed_videos_can_stay_in_the_list_for_validation(tmp_path, write_coloured):
    write_coloured(tmp_path / "1.mp4", red=1)
    (tmp_path / "2.mp4").write_bytes(b"?")
    (tmp_path / "list.txt").write_text("1.mp4 a\n2.mp4 a\n3.mp4 b\n1.mp4 b\n")
    options = options_for(tmp_path, videos=".", annotations="list.txt")
    prepared = prepare(replace(options, keep_failed=True))
    status = [(row["video_id"], row["status"]) for row in table(prepared.manifest)]
    assert status == [("1.mp4", "ok"), ("2.mp4", "broken"), ("3.mp4", "missing")]
    assert len(read_manifest(prepared.manifest).records) == 3
    assert prepared.summary["classes"]["empty"] == ["b"]


def test_real_clips(shared_clips, tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "x").symlink_to(shared_clips)
    prepared = prepare(options_for(tmp_path))
    assert [row["video_id"] for row in table(prepared.broken)] == ["x/corrupted.mp4"]
    rows = {row["video_id"]: row for row in table(prepared.manifest)}
    assert [len(rows), rows["x/rotated_90.mov"]["width"] < rows["x/rotated_90.mov"]["height"]] == [4, True]
    for row in rows.values():
        with open_video(row["path"]) as video:
            assert (video.num_frames, video.size[1]) == (int(row["num_frames"]), int(row["width"]))


# --- transcoding -------------------------------------------------------------------------------------------------


def test_the_manifest_lists_the_resized_copies(tmp_path, write_coloured, monkeypatch):
    write_coloured(tmp_path / "v" / "a" / "big.mkv", red=50, num_frames=40, height=96, width=160)
    write_coloured(tmp_path / "v" / "a" / "big.mp4", red=60, height=96, width=160)
    write_coloured(tmp_path / "v" / "b" / "small.mp4", red=70, height=48, width=64)
    write_frames(tmp_path / "v" / "b" / "frames", [f"{i}.png" for i in range(1, 9)])
    (tmp_path / "v" / "b" / "bad.mp4").write_bytes(b"?")
    small = tmp_path / "small"
    options = options_for(tmp_path, resize=48, resized_dir=str(small), keep_small=True)
    prepared = prepare(options)
    rows = {row["video_id"]: row for row in table(prepared.manifest)}
    assert {name: row["path"] for name, row in rows.items()} == {
        "a/big.mkv": str(small / "a" / "big.mp4"),
        "a/big.mp4": str(small / "a" / "big.mp4.mp4"),
        "b/frames": str(small / "b" / "frames.mp4"),
        "b/small.mp4": str(tmp_path / "v" / "b" / "small.mp4"),
    }
    sizes = {name: (row["width"], row["height"], row["num_frames"], row["fps"]) for name, row in rows.items()}
    assert sizes["a/big.mkv"] == ("80", "48", "40", "10.0")
    assert sizes["b/frames"] == ("48", "40", "8", "30.0")
    assert (prepared.checked, prepared.transcoded) == (5, 3)
    assert sorted(p.name for p in small.rglob("*.*")) == ["big.mp4", "big.mp4.mp4", "frames.mp4"]

    # A second run does nothing; a deleted or changed copy is made again once.
    files = {path: path.stat().st_mtime_ns for path in small.rglob("*.mp4")}
    again = prepare(options)
    assert (again.checked, again.transcoded) == (0, 0)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*.mp4")} == files
    (small / "a" / "big.mp4").unlink()
    (small / "b" / "frames.mp4").write_bytes(b"half")
    assert [prepare(options).transcoded for _ in range(2)] == [2, 0]
    assert table(prepare(replace(options, relative=True)).manifest)[0]["path"] == "a/big.mp4"

    # A failed transcoding counts as broken and leaves no file.
    (small / "a" / "big.mp4").unlink()
    (small / "a" / "big.mp4").mkdir()
    (small / "a" / ".0123abcd.big.mp4").write_bytes(b"of a killed process")
    prepared = prepare(options)
    assert "a/big.mkv" in {row["video_id"] for row in table(prepared.broken)}
    assert not list(small.rglob(".*"))


def test_whole_videos_are_cut_to_their_segments(tmp_path, monkeypatch):
    videos, clips = tmp_path / "v", tmp_path / "clips"
    (videos / "x").mkdir(parents=True)
    encode(videos / "x" / "whole______.mp4.mkv", frames=180)  # 6 s; merged by a downloader
    encode(videos / "x" / "short______.mp4", frames=60)  # 2 s: a clip already, though named by its id
    encode(videos / "x" / "named_______000010_000012.mp4", frames=180)
    encode(videos / "x" / "late_______.mp4", frames=180)
    rows = ("whole______,2,4", "whole______,4,5", "short______,7,9", "short______,8,10", "named______,10,12")
    lines = [OFFICIAL, *(f"archery,{row},train,0" for row in (*rows, "late_______,50,52"))]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")

    warned = prepare(options_for(tmp_path, annotations="list.csv")).summary
    assert (warned["usable"], warned["duplicates"], warned["longer"]) == (4, 2, 2)
    example = f"for example {videos}/x/whole______.mp4.mkv; --cut writes only the clips"
    assert f"warning: 2 files are much longer than their clip, {example}" in summary_text(warned)

    options = options_for(tmp_path, annotations="list.csv", cut=True, resized_dir=str(clips))
    prepared = prepare(options)
    assert (prepared.summary["usable"], prepared.summary["duplicates"], prepared.summary["longer"]) == (4, 1, 0)
    found = {row["video_id"]: row["path"] for row in table(prepared.manifest)}
    assert found == {
        "whole_______000002_000004": str(clips / "x" / "whole_______000002_000004.mp4"),
        "whole_______000004_000005": str(clips / "x" / "whole_______000004_000005.mp4"),
        "short_______000007_000009": str(videos / "x" / "short______.mp4"),
        "named_______000010_000012": str(videos / "x" / "named_______000010_000012.mp4"),
    }
    for video_id, first, end in (("whole_______000002_000004", 60, 120), ("whole_______000004_000005", 120, 150)):
        with open_video(found[video_id]) as video:
            assert numbers(video.read(range(video.num_frames))) == list(range(first, end))
    reasons = {row["video_id"]: row["reason"] for row in table(prepared.broken)}
    assert reasons == {
        "short_______000008_000010": "line 5: already listed in line 4",
        "late________000050_000052": "ends at 6.0 s, before the segment from 50 to 52 s",
    }
    assert len(read_manifest(prepared.manifest).records) == 4
    assert prepared.summary["copies"] == []  # two clips of one file
    assert (prepared.transcoded, prepare(options).transcoded) == (3, 0)
    (clips / "x" / "whole_______000002_000004.mp4").unlink()
    assert prepare(options).transcoded == 1
    assert prepare(replace(options, resize=32)).transcoded == 5


def test_the_folder_of_copies_must_be_writable(tmp_path, write_coloured):
    write_coloured(tmp_path / "v" / "a" / "1.mp4", red=1)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/small: cannot be written .*; choose another path"):
        prepare(options_for(tmp_path, resize=32, resized_dir=str(tmp_path / "file" / "small")))


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 0}, "num_workers is 0; give a whole number in [1, 512], or null"),
        ({"sample_frames": 0}, "sample_frames is 0; give a whole number in [1, 100000]"),
        ({"resize": 8, "resized_dir": "x"}, "resize is 8; give a whole number in [16, 4096], or null"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0; give a number in (0, 1000000]"),
        ({"frames_fps": -1.0}, "frames_fps is -1.0; give a number in [0.001, 10000]"),
        ({"output": "m.txt"}, "--output is m.txt; give a name that ends with .csv"),
        ({"resize": 256}, "--resize and --resized-dir go together; give both, or neither"),
        ({"resized_dir": "x"}, "--resize and --resized-dir go together; give both, or neither"),
        ({"cut": True}, "--cut writes files; give their folder as --resized-dir"),
        ({"resize": 256, "resized_dir": "v/x"}, "--resized-dir v/x lies in --videos v; choose one outside"),
        ({"videos": "none"}, "--videos none is not a folder; give the folder that holds the videos"),
        ({"annotations": "none.csv"}, "--annotations none.csv does not exist; give a Kinetics CSV or a list"),
        ({"annotations": "v"}, "--annotations v is a folder; give class folders as --videos alone"),
        (
            {"annotations": "list.txt"},
            "none of the 1 listed videos is in v, for example {folder}/v/9.mp4; give the folder that holds them as "
            "--videos",
        ),
        (
            {},
            "none of the 1 videos found can be read, for example {folder}/v/a/bad.mp4: file is empty; see m.broken.csv",
        ),
        ({"output": "file/m.csv"}, "file/m.csv: cannot be written (Not a directory); choose another path"),
    ],
)
def test_errors(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v" / "a").mkdir(parents=True)
    (tmp_path / "v" / "a" / "bad.mp4").touch()
    (tmp_path / "list.txt").write_text("9.mp4 a\n")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"^{re.escape(message.format(folder=tmp_path))}$"):
        prepare(PrepareOptions(**{"videos": "v", "output": "m.csv", "num_workers": 1} | options))
    assert not (tmp_path / "m.csv").exists()
