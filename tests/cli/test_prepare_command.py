from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dnl_video.cli.main import main
from dnl_video.data.listings import LIST_FORMATS
from tests.conftest import REPOSITORY


def prepare(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["prepare", *map(str, words), "--num-workers", "1"]) == 0
    return "".join(capsys.readouterr())


def test_train_accepts_a_prepared_list(tiny, tmp_path, capsys):
    videos = tiny.folder / "videos"
    words = ["--annotations", tiny.train, "--videos", videos / "train", "--output", tmp_path / "train.csv"]
    text = prepare(capsys, *words)
    assert re.search(r"^listed +16$", text, re.MULTILINE)
    assert re.search(r"^usable +16  \(100\.0 % of the videos listed, 0\.0 h\)$", text, re.MULTILINE)
    assert "8 classes with 2 to 2 usable videos, median 2" in text
    assert "16 files checked\n" in text
    assert f"  {tmp_path / 'train.csv'}\n  {tmp_path / 'train.broken.csv'}\n  {tmp_path / 'train.summary.json'}" in text
    assert f"dnl-video train --config RECIPE --data.train_manifest {tmp_path / 'train.csv'}\n" in text, "absolute paths"
    assert "0 files checked; the others were cached" in prepare(capsys, *words)
    text = prepare(capsys, *words, "--keep-failed")
    assert text.endswith(f"train --config RECIPE --data.val_manifest {tmp_path / 'train.csv'}\n"), "for validation"
    run = ["--config", str(tiny.config), "--output_dir", str(tmp_path / "run"), "--dry-run"]
    assert main(["train", *run, "--data.train_manifest", str(tmp_path / "train.csv")]) == 0
    assert re.search(r"training videos +16\n", capsys.readouterr().out)


def test_broken_files_and_transcoding_are_reported(tiny, tmp_path, capsys):
    videos = tmp_path / "videos"
    source = tiny.files()[0]
    for name in ("a/1.mp4", "a/2.mp4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).write_bytes(source.read_bytes())
    (videos / "b").mkdir()
    (videos / "b" / "3.mp4").touch()
    words = ["--videos", videos, "--output", tmp_path / "m.csv", "--relative"]
    text = prepare(capsys, *words, "--resize", "32", "--resized-dir", tmp_path / "small")
    assert "broken files by reason\n        1  file is empty\n" in text
    assert "warning: 1 classes have no usable video: b\n" in text
    first, second = (str(tmp_path / "small" / "a" / f"{n}.mp4") for n in (1, 2))
    assert f"warning: 1 sets of files with the same content: {first} = {second}\n" in text
    assert "3 files checked, 2 transcoded\n" in text
    assert f"--data.train_manifest {tmp_path / 'm.csv'} --data.train_root {tmp_path / 'small'}\n" in text
    first_row = (tmp_path / "m.csv").read_text().splitlines()[1]
    assert first_row.startswith("a/1.mp4,a,a/1.mp4,32,16.0,40,32,h264,2.0,decord")


def test_a_list_without_labels(tiny, tmp_path, capsys):
    source = tiny.files()[0]
    (tmp_path / "test.csv").write_text(f"path\n{source}\n")
    words = ["--annotations", tmp_path / "test.csv", "--videos", tmp_path, "--output", tmp_path / "m.csv"]
    text = prepare(capsys, *words)
    assert "classes" not in text
    assert f"the list has no labels\nnext: dnl-video predict {tmp_path / 'm.csv'} --checkpoint CHECKPOINT\n" in text


def test_a_list_of_several_splits_serves_both_sides_of_a_training(tiny, tmp_path, capsys):
    files = [*tiny.files("train")[:4], *tiny.files("val")[:2]]
    rows = [f"{file},c{i % 2},{'train' if i < 4 else 'val'}" for i, file in enumerate(files)]
    (tmp_path / "all.csv").write_text("\n".join(["# made by hand", "path,label,split", *rows]))
    (tmp_path / "classInd.txt").write_text("1 c1\n2 c0\n")
    options = ["--annotations", tmp_path / "all.csv", "--videos", tmp_path, "--classes", tmp_path / "classInd.txt"]
    assert main(["prepare", *map(str, options), "--output", str(tmp_path / "my list.csv"), "--num-workers", "1"]) == 0
    printed = capsys.readouterr()
    note = f"note: {tmp_path / 'all.csv'}: 1 comment lines (#) were skipped\n"
    options = [word for side in ("train", "val") for word in (f"--data.{side}_manifest", str(tmp_path / "my list.csv"))]
    options += ["--data.class_list", str(tmp_path / "classInd.txt")]
    assert printed.err == f"{note}next: dnl-video train --config RECIPE {shlex.join(options)}\n"
    run = ["--config", str(tiny.config), "--output_dir", str(tmp_path / "run"), "--dry-run", "--model.num_classes", "2"]
    assert main(["train", *run, *options]) == 0
    printed = capsys.readouterr()
    assert re.search(r"training videos +4\n.*validation videos +2\n", printed.out, re.DOTALL)
    assert printed.err.splitlines()[1:3] == [
        f"note: {tmp_path / 'my list.csv'}: {count} of 6 rows are used, those of the split {split}"
        for count, split in ((4, "train"), (2, "val"))
    ]


def test_the_help_shows_every_format(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    text = capsys.readouterr().out
    assert all(f"  {form.name} " in text and form.form in text for form in LIST_FORMATS)
    page = (REPOSITORY / "docs" / "formats.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (.+?) \|", page.partition("## Lists\n")[2].partition("**")[0], re.MULTILINE)[1:] == [
        form.name for form in LIST_FORMATS
    ]


def test_errors_are_one_line(tmp_path, capsys):
    assert main(["prepare", "--videos", str(tmp_path / "no"), "--output", "m.csv"]) == 2
    assert capsys.readouterr().err == (
        f"dnl-video: error: --videos {tmp_path / 'no'} is not a folder; give the folder that holds the videos\n"
    )
