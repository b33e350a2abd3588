"""The data set of the relation task: lists, class balance, equal bytes, and restart after an interruption."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from relation_task import RelationTask
from relations import SPLITS, RelationCounts, main, write_relation_data

from dnl_video.data.decoding import open_video
from dnl_video.data.manifest import read_manifest
from dnl_video.errors import InputError

TASK = RelationTask(candidates=2, directions=2, window=16, radius=3.5, speed=2.5, num_frames=8)
COUNTS = RelationCounts(start_train=9, start_val=6, train=10, val=4, test=8)


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.mp4")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set; read only."""
    folder = tmp_path_factory.mktemp("relations") / "data"
    assert write_relation_data(folder, TASK, COUNTS, seed=5, workers=1) == 37
    return folder


def test_lists_are_complete_and_balanced(folder: Path) -> None:
    seen: set[str] = set()
    for split in SPLITS:
        manifest = read_manifest(folder / f"{split}.csv")
        assert len(manifest.records) == getattr(COUNTS, split)
        single = {f"{look} {way}" for look in ("blue", "red", "white") for way in ("left", "right")}
        assert manifest.class_names == tuple(sorted(single if split.startswith("start") else {"blue", "red"}))
        counts = Counter(record.label for record in manifest.records)
        assert max(counts.values()) - min(counts.values()) <= 1
        seen |= {record.path for record in manifest.records}
    assert len(seen) == 37
    assert all(Path(path).is_file() for path in seen)


def test_videos_have_the_size_of_the_task(folder: Path) -> None:
    with open_video(str(folder / "test" / "000000.mp4")) as video:
        assert (video.num_frames, video.fps) == (8, 8)
        assert video.read([0, 7]).shape == (2, 48, 48, 3)


def test_bytes_depend_on_the_seed_only(folder: Path, tmp_path: Path) -> None:
    smaller = RelationCounts(start_train=6, start_val=6, train=4, val=4, test=4)
    assert write_relation_data(tmp_path / "a", TASK, smaller, seed=5, workers=2) == 24
    whole = digests(folder)
    assert digests(tmp_path / "a").items() <= whole.items()
    # Larger counts add videos; a deleted video is written again with the same bytes.
    (tmp_path / "a" / "test" / "000001.mp4").unlink()
    assert write_relation_data(tmp_path / "a", TASK, COUNTS, seed=5, workers=2) == 14
    assert digests(tmp_path / "a") == whole
    assert (tmp_path / "a" / "train.csv").read_bytes() == (folder / "train.csv").read_bytes()
    assert write_relation_data(tmp_path / "a", TASK, COUNTS, seed=5) == 0


def test_lists_are_written_after_the_last_video(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_relation_data(tmp_path, TASK, COUNTS, workers=1, progress=stop)
    assert not list(tmp_path.glob("*.csv"))
    assert all(path.suffix == ".mp4" and path.name[0] != "." for path in (tmp_path / "start_train").iterdir())
    assert 0 < write_relation_data(tmp_path, TASK, COUNTS, workers=1) <= 34
    assert len(list(tmp_path.glob("*.csv"))) == 5


def test_wrong_input_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was made with seed=5, not 6; choose another folder, or remove this one"):
        write_relation_data(folder, TASK, COUNTS, seed=6)
    with pytest.raises(InputError, match=r"was made with speed=2.5, not 3.0"):
        write_relation_data(folder, RelationTask(candidates=2, speed=3.0, num_frames=8), COUNTS, seed=5)
    (tmp_path / "something").write_text("x")
    with pytest.raises(InputError, match=r"is not empty and holds no videos of this task \(relation-data.json\)"):
        write_relation_data(tmp_path, TASK, COUNTS)
    with pytest.raises(InputError, match="is a file; give a folder"):
        write_relation_data(tmp_path / "something", TASK, COUNTS)
    with pytest.raises(InputError, match=r"val is 0; give a whole number in \[1, 1000000\]"):
        RelationCounts(val=0)
    with pytest.raises(InputError, match="seed is -2; give 0 or more"):
        write_relation_data(tmp_path / "new", TASK, COUNTS, seed=-2)


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = ["--candidates", "2", "--num-frames", "8", "--seed", "5"]
    counts = [f"--{split.replace('_', '-')}={getattr(COUNTS, split)}" for split in SPLITS]
    assert main(["--output", str(tmp_path), *task, *counts]) == 0
    assert digests(tmp_path) == digests(folder)
    assert main(["--output", str(tmp_path), *task, *counts]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: wrote 37 videos\n{tmp_path}: all videos are there\n"
    assert main(["--output", str(tmp_path), "--grid", "1"]) == 2
    assert capsys.readouterr().err == "error: grid is 1; 9 squares need as many windows\n"
