"""`dnl-video evaluate`, in process."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dnl_video.cli.main import main
from dnl_video.models.weights.find import find_checkpoint
from dnl_video.results.reader import finished_ids, read_predictions
from tests.conftest import TinyRun
from tests.lists import write_list

QUICK = ["--num-workers", "0", "--device", "cpu", "--num-clips", "2", "--num-crops", "1"]


def evaluate(tiny: TinyRun, output: Path, *words: str, manifest: Path | None = None) -> int:
    options = ["--checkpoint", str(tiny.run), "--manifest", str(manifest or tiny.val), "--output", str(output)]
    return main(["evaluate", *options, *QUICK, *words])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def with_a_broken_video(tiny: TinyRun, folder: Path) -> tuple[Path, Path]:
    """Write a list of seven validation videos and a file that is not a video; return both paths."""
    return write_list(folder / "list.csv", tiny.val, broken=0, limit=7), folder / "list.broken.mp4"


def test_predictions_and_printed_accuracy(tiny, tmp_path, capsys):
    assert evaluate(tiny, tmp_path / "out") == 0
    printed, notes = capsys.readouterr()
    assert "8 videos listed, 8 evaluated, 0 failed" in printed
    assert f"next: dnl-video report {tmp_path / 'out'}\n" in notes
    predictions = read_predictions(tmp_path / "out")
    assert predictions.scores.shape == (8, 8)
    np.testing.assert_allclose(predictions.scores.sum(axis=1), 1, atol=1e-5)
    assert predictions.clip_scores.shape == (16, 8)
    rows = list(csv.DictReader(tiny.val.open(encoding="utf-8")))
    classes = sorted({row["label"] for row in rows})
    truth = {row["youtube_id"]: classes.index(row["label"]) for row in rows}
    assert [truth[video[:11]] for video in predictions.video_id] == predictions.label.tolist()


def test_json_holds_the_accuracy_and_the_directory(tiny, tmp_path, capsys):
    assert evaluate(tiny, tmp_path / "out", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    predictions = read_predictions(tmp_path / "out")
    hits = predictions.scores.argmax(axis=1) == predictions.label
    top1 = found["accuracy"]["evaluated"]["video"]["top1"]
    assert top1["value"] == hits.mean()
    assert 0 <= top1["low"] <= top1["value"] <= top1["high"] <= 1
    assert list(found["accuracy"]["listed"]["video"]) == ["top1", "top5", "mean_class_accuracy"]
    assert found["coverage"] == {"listed": 8, "finished": 8, "evaluated": 8, "failed": 0, "nan_scores": 0}
    assert found["predictions"] == str(tmp_path / "out")
    assert main(["report", str(tmp_path / "out"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.pop("files") == [str(tmp_path / "out" / f"report.{kind}") for kind in ("json", "md", "html")]
    assert shown == {key: value for key, value in found.items() if key != "predictions"}
    written = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert shown["accuracy"] == written["accuracy"]


def test_the_default_directory_is_named_by_model_and_list(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--checkpoint", str(tiny.run), "--manifest", str(tiny.val), *QUICK]
    folder = Path("predictions", f"run-{find_checkpoint(tiny.run).stem}", "val")
    for done in (0, 8):
        assert main(["evaluate", *words, "--quiet"]) == 0
        assert capsys.readouterr().out.endswith(f"predictions: {folder}\n")
        assert len(finished_ids(folder)) == 8
        assert len(list(folder.glob("*.jsonl"))) == 1, f"the second run, with {done} done, scores nothing"
    assert main(["features", str(tiny.val), *words[:2], *QUICK, "--root", str(tiny.val.parent)]) == 0
    assert f"features of 8 of 8 videos: features/{folder.parent.name}/val\n" in capsys.readouterr().out


def test_integer_labels_of_named_classes_are_shown(tiny, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"{tiny.files()[0]} 0.0\n{tiny.files()[1]} 1.0\n", encoding="utf-8")
    assert evaluate(tiny, tmp_path / "out", manifest=tmp_path / "list.txt") == 0
    pairs = "0 = growing, 1 = moving down, 2 = moving left"
    note = f"note: {tmp_path / 'list.txt'}: integer labels are taken as ids of the class names: {pairs}\n"
    assert capsys.readouterr().err.count(note) == 1
    assert read_predictions(tmp_path / "out").label.tolist() == [0, 1]


def test_processes_score_every_video_once_and_agree(tiny, tmp_path, monkeypatch):
    assert evaluate(tiny, tmp_path / "one") == 0
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        assert evaluate(tiny, tmp_path / "three") == 0
    one, three = read_predictions(tmp_path / "one"), read_predictions(tmp_path / "three")
    assert one.video_id == three.video_id
    np.testing.assert_array_equal(one.scores, three.scores)
    assert len(list((tmp_path / "three").glob("*.jsonl"))) == 3


def test_a_second_run_scores_nothing_again_and_keeps_the_protocol(tiny, tmp_path, capsys):
    assert evaluate(tiny, tmp_path / "out") == 0
    before = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert evaluate(tiny, tmp_path / "out") == 0
    assert "8 of 8 videos are already done" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == before
    assert evaluate(tiny, tmp_path / "out", "--num-clips", "3") == 2
    assert "num_clips" in error_line(capsys)


def test_a_broken_video_is_listed_and_counted(tiny, tmp_path, capsys):
    manifest, broken = with_a_broken_video(tiny, tmp_path)
    assert evaluate(tiny, tmp_path / "out", manifest=manifest) == 3
    captured = capsys.readouterr()
    assert f"failed: {broken}: " in captured.err
    assert "8 videos listed, 7 evaluated, 1 failed" in captured.out
    assert evaluate(tiny, tmp_path / "out", "--allow-failed", manifest=manifest) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["coverage"]["failed"] == 1
    assert report["accuracy"]["listed"]["video"]["top1"]["total"] == 8
    assert report["accuracy"]["evaluated"]["video"]["top1"]["total"] == 7


def test_failed_videos_can_be_retried(tiny, tmp_path):
    manifest, broken = with_a_broken_video(tiny, tmp_path)
    assert evaluate(tiny, tmp_path / "out", manifest=manifest) == 3
    shutil.copy(tiny.files()[0], broken)
    assert evaluate(tiny, tmp_path / "out", manifest=manifest) == 3
    assert evaluate(tiny, tmp_path / "out", "--retry-failed", manifest=manifest) == 0


def test_a_missing_video_counts_as_failed(tiny, tmp_path, capsys):
    rows = tiny.val.read_text(encoding="utf-8").rstrip("\n") + "\ngrowing,AAAAAAAAAAA,0,2,val\n"
    (tmp_path / "val.csv").write_text(rows, encoding="utf-8")
    root = ["--root", str(tiny.val.parent)]
    assert evaluate(tiny, tmp_path / "out", *root, manifest=tmp_path / "val.csv") == 3
    assert "9 videos listed, 8 evaluated, 1 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "empty"), ("a.mp4 growin\n", "growin"), ("a.mp4 growing\na.mp4 growing\n", "a.mp4"), ("a.mp4 8\n", "8")],
)
def test_bad_lists(text, message, tiny, tmp_path, capsys):
    manifest = tmp_path / "list.txt"
    manifest.write_text(text, encoding="utf-8")
    assert evaluate(tiny, tmp_path / "out", manifest=manifest) == 2
    line = error_line(capsys)
    assert str(manifest) in line
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--manifest", "nowhere.csv"], "nowhere.csv"),
        (["--checkpoint", "nowhere.ckpt"], "no such checkpoint; give a .ckpt file or the folder of a training run"),
        (["--device", "cuda:9"], "device 'cuda:9' is not available here; available: cpu"),
        (["--device", "tpux"], "device 'tpux' is unknown; allowed: auto, cpu, cuda, cuda:N, mps"),
        (["--num-crops", "2"], "argument --num-crops: invalid choice: 2 (choose from 1, 3)"),
        (["--decoder", "opencv"], "argument --decoder: invalid choice: 'opencv' (choose from "),
        (["--num-clips", "x"], "argument --num-clips: invalid int value: 'x'; see dnl-video evaluate --help"),
    ],
)
def test_bad_options(words, message, tiny, tmp_path, capsys):
    assert evaluate(tiny, tmp_path / "out", *words) == 2
    assert message in error_line(capsys)


def test_the_frame_order_changes_the_scores(tiny, tmp_path):
    for order in ("natural", "reversed", "repeated", "shuffled"):
        assert evaluate(tiny, tmp_path / order, "--frame-order", order) == 0
    scores = {order: read_predictions(tmp_path / order).scores for order in ("natural", "reversed", "repeated")}
    assert not np.allclose(scores["natural"], scores["reversed"])
    assert not np.allclose(scores["natural"], scores["repeated"])


def test_decoders_give_nearly_the_same_scores(tiny, tmp_path):
    for decoder in ("decord", "av", "auto"):
        assert evaluate(tiny, tmp_path / decoder, "--decoder", decoder) == 0
    decord, av, auto = (read_predictions(tmp_path / name).scores for name in ("decord", "av", "auto"))
    assert np.array_equal(av, auto)
    np.testing.assert_allclose(decord, av, atol=0.05)  # the two convert colours with different rounding
