"""From folders of videos to a trained network, with the commands of the guide."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from dnl_video.cli.main import main
from dnl_video.models.weights.checkpoint import load_checkpoint
from dnl_video.models.weights.pretrained import SOURCES
from tests.conftest import TinyRun

# Overrides that make a recipe narrow, small and short, so that it takes seconds.
SMALL = shlex.split(
    "--model.stem_channels 8 --preprocessing.num_frames 4 --preprocessing.short_side 32 --preprocessing.crop_size 32 "
    '--augment.crop_size 32 --augment.short_side "[32, 40]" --data.batch_size 4 --data.num_workers 0 '
    "--optim.precise_bn_batches 1 --trainer.max_epochs 1 --trainer.accelerator cpu --evaluation.num_workers 0 "
    "--evaluation.num_clips 1 --evaluation.num_crops 1 --evaluation.device cpu"
)


@pytest.fixture
def folders(tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three class folders of four videos, two clips of each source; the working folder is empty."""
    videos = tmp_path / "my videos"
    files = iter(tiny.files("train"))
    for name in ("left turn", "Jumping", "waving"):
        for group in ("g01", "g02"):
            for clip in ("c01", "c02"):
                (videos / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(next(files), videos / name / f"v_{name}_{group}_{clip}.mp4")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return videos


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def next_command(printed: str) -> list[str]:
    """Return the words of the train command that `prepare` prints."""
    found = re.search(r"^next: dnl-video (train .*)$", printed, re.MULTILINE)
    assert found
    return shlex.split(found[1])


def test_folders_to_report_with_the_printed_commands(folders, capsys):
    words = ["prepare", "--videos", str(folders), "--out", "mine.csv", "--val-share", "0.5", "--num-workers", "1"]
    assert main([*words, "--group-by", r"(v_.+_g\d+)_c\d+"]) == 0
    printed = "".join(capsys.readouterr())
    assert "divided into 6 training and 6 validation videos, in 6 groups\n" in printed
    assert "  mine.train.csv\n  mine.val.csv\n  mine.broken.csv\n  mine.summary.json\n" in printed
    written = {"train.csv", "val.csv", "broken.csv", "summary.json", "journal.jsonl"}
    assert {path.name for path in Path().iterdir()} == {f"mine.{name}" for name in written}
    train, val = rows("mine.train.csv"), rows("mine.val.csv")
    assert sorted(row["label"] for row in train) == sorted(row["label"] for row in val)
    sources = [{row["path"][:-8] for row in side} for side in (train, val)]
    assert not sources[0] & sources[1]
    command = next_command(printed)
    assert command[2:] == shlex.split(
        "finetune --data.train_manifest mine.train.csv --data.val_manifest mine.val.csv --final-test"
    )
    command[2] = "finetune_small"
    assert main([*command, "--output", "run", *SMALL]) == 0
    printed = capsys.readouterr()
    assert "warning: a mirrored video" not in printed.err, "finetune_small does not mirror"
    assert "3 classes" in printed.out
    resolved = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
    assert resolved["model"]["num_classes"] == 3
    stored = load_checkpoint("run")
    assert (stored.spec.num_classes, stored.class_names) == (3, ("Jumping", "left turn", "waving"))
    assert stored.config == resolved
    assert len(list(Path("run").glob("evaluation/*/report.html"))) == 1
    # The same command continues the run, although its recipe says auto.
    assert main([*command[:-1], "--output", "run", *SMALL, "--resume", "--trainer.max_epochs", "2"]) == 0


def test_a_list_file_is_divided(folders, capsys):
    names = sorted(path.relative_to(folders).as_posix() for path in folders.rglob("*.mp4"))
    Path("all.txt").write_text("\n".join(f"{name} {i // 4}" for i, name in enumerate(names)))
    words = ["--annotations", "all.txt", "--videos", str(folders), "--output", "mine.csv", "--num-workers", "1"]
    assert main(["prepare", *words, "--val-share", "0.25", "--relative"]) == 0
    command = next_command(capsys.readouterr().err)
    assert [row["label"] for row in rows("mine.val.csv")] == ["0", "1", "2"]
    for side in ("train", "val"):
        assert command[command.index(f"--data.{side}_root") + 1] == str(folders)
    assert main([*command[:2], "finetune_small", *command[3:-1], *SMALL, "--dry-run"]) == 0
    assert re.search(r"training videos +9\n.*validation videos +3\nclasses +3\n", capsys.readouterr().out, re.DOTALL)


def test_a_class_with_one_video_is_named_and_trains(folders, capsys):
    for path in sorted((folders / "waving").iterdir())[1:]:
        path.unlink()
    assert main(["prepare", "--videos", str(folders), "--output", "mine.csv", "--val-share", "0.3"]) == 0
    assert "warning: 1 classes have videos on one side only: waving\n" in capsys.readouterr().out
    assert "waving" in {row["label"] for row in rows("mine.train.csv")}


def test_broken_files_are_in_no_list_unless_they_are_kept(folders, capsys):
    broken = folders / "Jumping" / "empty.mp4"
    broken.touch()
    words = ["prepare", "--videos", str(folders), "--output", "mine.csv", "--val-share", "0.5", "--num-workers", "1"]
    for more, listed in (((), 12), (("--keep-failed",), 13)):
        assert main([*words, *more]) == 0
        lists = [rows("mine.train.csv"), rows("mine.val.csv")]
        assert sum(map(len, lists)) == listed
        assert sum(row["path"] == str(broken) for side in lists for row in side) == listed - 12
        assert [row["path"] for row in rows("mine.broken.csv")] == [str(broken)]
        assert all({"Jumping", "left turn", "waving"} == {row["label"] for row in side} for side in lists)


def test_a_folder_without_a_readable_video_is_still_named(folders, capsys):
    for path in folders.rglob("*.mp4"):
        path.write_bytes(b"")
    assert main(["prepare", "--videos", str(folders), "--output", "mine.csv", "--val-share", "0.5"]) == 2
    assert "none of the 12 videos found can be read" in capsys.readouterr().err


def test_lists_that_cannot_be_divided(folders, capsys):
    video = next(folders.rglob("*.mp4"))
    Path("splits.csv").write_text(f"path,label,split\n{video},a,train\n{folders / 'x.mp4'},a,val\n")
    Path("unlabelled.csv").write_text(f"path\n{video}\n")
    for name, reason in (("splits", "splits (train, val)"), ("unlabelled", "no labels")):
        words = ["--annotations", f"{name}.csv", "--videos", str(folders), "--output", "m.csv", "--val-share", "0.2"]
        assert main(["prepare", *words]) == 2
        assert capsys.readouterr().err == f"dnl-video: error: {name}.csv has {reason}; leave out --val-share\n"


@pytest.mark.parametrize(
    ("words", "expected", "left_out"),
    [
        ("", ("k400/train", "k400/val", "kinetics400"), ()),
        ("--data.train_manifest a.csv", (None, "k400/val", None), ("train", "data.train_root, data.class_list")),
        ("--data.val_manifest b.csv", ("k400/train", None, "kinetics400"), ("val", "data.val_root")),
        (
            "--data.class_list kinetics400 --data.train_manifest=a.csv --data.train_root=x",
            ("x", "k400/val", "kinetics400"),
            (),
        ),
        ("--data.train_manifest k400/train.csv", ("k400/train", "k400/val", "kinetics400"), ()),
    ],
)
def test_roots_and_class_list_of_a_recipe_belong_to_its_lists(words, expected, left_out, capsys):
    command = ["train", "--config", "slow_r50_8x8_dnl", *words.replace("k400", "data/kinetics400").split()]
    with pytest.raises(SystemExit):
        main([*command, "--print_config"])
    printed = capsys.readouterr()
    data = yaml.safe_load(printed.out)["data"]
    found = tuple(data[name] for name in ("train_root", "val_root", "class_list"))
    assert found == tuple(value and value.replace("k400/", "data/kinetics400/") for value in expected)
    note = "note: data.{}_manifest replaces the recipe's list; left out with it: {}\n"
    assert printed.err == (note.format(*left_out) if left_out else "")


def test_a_training_without_network_says_both_ways_out(folders, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setitem(SOURCES["kinetics400"], "slow_r50", "http://127.0.0.1:9/SLOW_8x8_R50.pyth")
    words = ["--data.train_manifest", str(folders), "--data.val_manifest", str(folders), *SMALL, "--output", "run"]
    assert main(["train", "--config", "finetune", *words]) == 2
    *others, message = capsys.readouterr().err.splitlines()
    assert message.startswith("dnl-video: error: http://127.0.0.1:9/SLOW_8x8_R50.pyth: download failed (")
    assert message.endswith(", or train with --weights.source FILE, or --weights.source null (random weights)")
    # This recipe mirrors its videos.
    assert [line for line in others if line.startswith("warning: ")] == [
        "warning: a mirrored video may show another class: left turn; set --augment.flip 0, or name these classes in "
        "--augment.flip_except"
    ]
    assert main(["train", "--config", "finetune", *words, "--weights.source", "null", "--augment.flip", "0"]) == 0
    assert "warning: a mirrored" not in capsys.readouterr().err
