"""The generated data set: layout, seeds, resuming, errors."""

import csv
import json
from collections import Counter

import av
import pytest

from dnl_video.data.manifest import read_manifest
from dnl_video.errors import InputError
from dnl_video.synthetic import demo_data
from dnl_video.synthetic.demo_data import write_demo_data
from dnl_video.synthetic.motion import MOTION_CLASSES

SMALL = {"train_videos": 20, "val_videos": 9}


def contents(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made") / "demo"
    return write_demo_data(directory, seed=5, workers=1, **SMALL)


def test_layout_is_that_of_official_kinetics(small):
    assert (small.train_videos, small.val_videos, small.written) == (20, 9, 29)
    ids, expected = [], {"demo-data.json", "train.csv", "val.csv", "val_reversed.csv"}
    for split, path, count in (("train", small.train_csv, 20), ("val", small.val_csv, 9)):
        with path.open(newline="") as file:
            assert file.readline() == "label,youtube_id,time_start,time_end,split\n"
            file.seek(0)
            rows = list(csv.DictReader(file))
        assert path == small.directory / f"{split}.csv"
        assert len(rows) == count
        per_class = Counter(row["label"] for row in rows)
        assert set(per_class) == set(MOTION_CLASSES)
        assert max(per_class.values()) - min(per_class.values()) <= 1
        for row in rows:
            start, end = int(row["time_start"]), int(row["time_end"])
            assert row["split"] == split
            assert end - start == 2
            ids.append(row["youtube_id"])
            expected.add(f"{split}/{row['label']}/{row['youtube_id']}_{start:06d}_{end:06d}.mp4")
    assert set(contents(small.directory)) == expected
    assert len(set(ids)) == 29
    assert {len(i) for i in ids} == {11}


def test_reversed_listing_has_the_opposite_classes(small):
    opposite = {"left": "right", "up": "down", "growing": "shrinking", "clockwise": "counterclockwise"}
    opposite |= {b: a for a, b in opposite.items()}
    with small.val_csv.open(newline="") as file, (small.directory / "val_reversed.csv").open(newline="") as other:
        for row, reverse in zip(csv.DictReader(file), csv.DictReader(other), strict=True):
            *first, last = row.pop("label").split()
            assert reverse.pop("label").split() == [*first, opposite[last]]
            assert row == reverse
    assert [r.path for r in read_manifest(small.val_csv).records] == [
        r.path for r in read_manifest(small.directory / "val_reversed.csv").records
    ]


def test_videos_are_h264_of_the_stated_size(small):
    path = next(small.directory.glob("val/moving left/*.mp4"))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 16)
        assert (stream.width, stream.height) == (80, 64)
        assert len(list(container.decode(video=0))) == 32


def test_bytes_do_not_depend_on_workers_or_counts(small, tmp_path):
    again = write_demo_data(tmp_path / "again", seed=5, workers=2, **SMALL)
    assert contents(again.directory) == contents(small.directory)
    more = write_demo_data(tmp_path / "more", seed=5, workers=3, train_videos=22, val_videos=9)
    videos = {name: data for name, data in contents(small.directory).items() if name.endswith(".mp4")}
    assert videos.items() <= contents(more.directory).items()
    other = write_demo_data(tmp_path / "other", seed=6, **SMALL)
    assert not set(contents(other.directory).values()) & set(videos.values())


def test_even_subsets_hold_many_classes():
    videos = demo_data._list_videos(0, "train", 400)
    assert len({v.label for v in videos[::8]}) == 8  # limit_videos takes evenly spaced rows


def test_a_complete_folder_is_left_alone(small):
    def stamps():
        return {p: p.stat().st_mtime_ns for p in small.directory.rglob("*")}

    before, calls = stamps(), []
    again = write_demo_data(small.directory, seed=5, progress=lambda *seen: calls.append(seen), **SMALL)
    assert again.written == 0
    assert calls == []
    assert stamps() == before


def test_missing_videos_are_made_and_more_can_be_added(tmp_path):
    calls = []
    data = write_demo_data(tmp_path, train_videos=8, val_videos=1, progress=lambda *seen: calls.append(seen))
    assert calls == [(i, 9) for i in range(10)]
    before = contents(tmp_path)
    next(tmp_path.glob("train/growing/*.mp4")).unlink()
    data.val_csv.unlink()
    assert write_demo_data(tmp_path, train_videos=8, val_videos=1).written == 1
    assert contents(tmp_path) == before
    assert write_demo_data(tmp_path, train_videos=10, val_videos=1).written == 2
    assert len(data.train_csv.read_text().splitlines()) == 11


def test_an_interruption_leaves_no_manifest_and_can_be_resumed(tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo_data(tmp_path, train_videos=8, val_videos=8, workers=2, progress=interrupt)
    left = contents(tmp_path)
    videos = [name for name in left if name.endswith(".mp4")]
    assert set(left) == {"demo-data.json", *videos}
    assert 3 <= len(videos) < 16
    assert write_demo_data(tmp_path, train_videos=8, val_videos=8).written == 16 - len(videos)


def test_other_folders_are_refused_untouched(small, tmp_path):
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "a.jpg").write_bytes(b"x")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "demo-data.json").write_text(json.dumps({"seed": 5}))
    file = tmp_path / "file"
    file.write_text("x")
    advice = "choose another folder, or remove this one"
    for directory, options, message in (
        (foreign, {}, rf"photos is not empty and holds no demo data \(demo-data.json\); {advice}"),
        (broken, {}, rf"broken is not empty and holds no demo data \(demo-data.json\); {advice}"),
        (file, {}, "file is a file; give a folder"),
        (file / "demo", {}, r"demo: cannot be made \(Not a directory\); choose another folder"),
        (small.directory, {"seed": 6, **SMALL}, f"was made with seed=5, not 6; {advice}"),
        (small.directory, {"seed": 5, **SMALL, "train_videos": 8}, f"was made with train_videos=20, not 8; {advice}"),
    ):
        with pytest.raises(InputError, match=message):
            write_demo_data(directory, **options)
    assert contents(tmp_path) == {"photos/a.jpg": b"x", "broken/demo-data.json": b'{"seed": 5}', "file": b"x"}


def test_a_full_disk_is_an_error_of_one_line(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("av.open", full)
    with pytest.raises(InputError, match=r"\.mp4: cannot be written \(No space left on device\); choose another path"):
        write_demo_data(tmp_path, **SMALL)
    assert set(contents(tmp_path)) == {"demo-data.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1; give 0 or more"),
        ({"train_videos": 7}, r"train_videos is 7; give 8 \(one per class\) to 1000000"),
        ({"val_videos": 0}, "val_videos is 0; give 1 to 1000000"),
        ({"workers": 0}, "workers is 0; give at least 1"),
    ],
)
def test_arguments_out_of_range(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_demo_data(tmp_path / "demo", **options)
    assert not (tmp_path / "demo").exists()
