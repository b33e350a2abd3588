"""`dnl-video show`, on a trained tiny run and on hand-made predictions."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dnl_video.cli.main import main
from dnl_video.models.create import create_model
from dnl_video.results.predictions import PredictionsMeta, VideoPrediction
from dnl_video.results.writer import PredictionsWriter


def show(capsys: pytest.CaptureFixture[str], path: Path, *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["show", str(path), "--json", *words]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def test_a_run(tiny, capsys):
    facts = show(capsys, tiny.run, "--gmacs")
    best = next((tiny.run / "checkpoints").glob("best-*.ckpt"))
    assert facts["kind"] == "training run"
    assert facts["finished"] is True
    assert facts["model"]["architecture"] == "i3d_r50"
    assert facts["model"]["positions"] == {"res3": [1, 3], "res4": [1, 3, 5]}
    assert "slow_alpha" not in facts["model"]
    assert facts["model"]["parameters"] == 555_376  # the README's 0.56M
    assert 0 < facts["model"]["parameters of context blocks"] < facts["model"]["parameters"]
    assert 0 < facts["model"]["GMACs per view"] < 1
    assert facts["weights"]["sha256"] == hashlib.sha256(best.read_bytes()).hexdigest()
    assert facts["weights"]["bytes"] == best.stat().st_size
    assert facts["weights"]["best epoch"] == 1
    assert f"{facts['weights']['validation top-1']:.4f}" in best.name
    assert facts["progress"]["epochs done"] == facts["progress"]["max epochs"] == 1
    assert facts["progress"]["metrics"]["val/top1"] == pytest.approx(facts["weights"]["validation top-1"], abs=1e-4)
    assert facts["preprocessing"]["num_frames"] == 4
    assert facts["classes"]["number"] == len(facts["classes"]["names"]) == 8
    assert facts["training"]["optim.schedule"] == "cosine"
    assert facts["training"]["data.val_manifest"] == str(tiny.val)
    assert facts["progress"]["curves"] == str(tiny.run / "curves.png")
    assert facts["next"] == [
        f"dnl-video evaluate --checkpoint {tiny.run} --manifest {tiny.val}",
        f"dnl-video predict VIDEO --checkpoint {tiny.run}",
    ]
    assert "config" not in facts


def test_a_stopped_run(tiny, tmp_path, capsys):
    shutil.copytree(tiny.run, tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    config["trainer"]["max_epochs"] = 5
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    facts = show(capsys, tmp_path / "run")
    assert facts["finished"] is False
    assert facts["next"][0] == f"dnl-video train --config {tmp_path / 'run' / 'config.yaml'} --resume"
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    facts = show(capsys, tmp_path / "run")
    assert facts["finished"] is False
    assert facts["next"][0].endswith("(no checkpoint was written yet)")
    assert "model" not in facts


def test_the_best_epoch_counts_from_1_whatever_the_name_counts_from(tiny, tmp_path, capsys):
    shutil.copytree(tiny.run, tmp_path / "run")
    (best,) = (tmp_path / "run" / "checkpoints").glob("best-epoch-001-*")
    best.rename(best.with_name("best-epoch000-top1_0.4321.ckpt"))  # as version 0.1 wrote it
    weights = show(capsys, tmp_path / "run")["weights"]
    assert (weights["best epoch"], weights["validation top-1"]) == (1, 0.4321)


def test_a_checkpoint_on_the_terminal(tiny, capsys):
    capsys.readouterr()
    last = tiny.run / "checkpoints" / "last.ckpt"
    assert main(["show", str(last)]) == 0
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == f"checkpoint {last}"
    assert "parameters 555,376" in lines
    assert "epochs done 1" in lines
    assert f"next: dnl-video predict VIDEO --checkpoint {last}" in lines


def predictions(folder: Path, listed: int, labelled: bool) -> Path:
    meta = PredictionsMeta(
        model={"architecture": "slow_r50", "context": "gc", "context_options": {"gc_ratio": 0.0625, "bias": None}},
        preprocessing={"num_frames": 8}, weights="w.ckpt", weights_sha256="f" * 64, num_clips=10, num_crops=3,
        class_names=["a", "b"], manifest="val.csv", manifest_sha256="0", num_videos=listed, labelled=labelled,
    )  # fmt: skip
    with PredictionsWriter(folder, meta) as out:
        label = 0 if labelled else None
        out.add(VideoPrediction("v0", "v0", label, 30, np.array([0.9, 0.1])))
        out.add(VideoPrediction("v1", "v1", label, 30, np.array([0.2, 0.8])))
        out.add(VideoPrediction("v2", "v2", label, error="broken"))
    return folder


def test_predictions(tmp_path, capsys):
    folder = predictions(tmp_path / "p", 3, True)
    facts = show(capsys, folder)
    assert facts["kind"] == "predictions directory"
    assert facts["finished"] is True
    assert facts["videos"] == {"list": "val.csv", "listed": 3, "done": 3, "labelled": True, "failed": 1}
    assert facts["accuracy"]["video-level top-1"] == 0.5
    assert facts["model"]["context_options"] == {"gc_ratio": 0.0625}
    assert facts["next"] == [f"dnl-video report {folder}", f"dnl-video compare {folder} OTHER"]
    assert main(["report", str(folder)]) == 0
    assert show(capsys, folder)["next"][0] == f"dnl-video report {folder} (exists: report.md)"


def test_unfinished_and_unlabelled_predictions(tmp_path, capsys):
    facts = show(capsys, predictions(tmp_path / "p", 5, False))
    assert facts["finished"] is False
    assert "accuracy" not in facts
    assert facts["next"] == [f"run the command that wrote {tmp_path / 'p'} again: it resumes"]


def test_an_exported_model_has_its_provenance(tiny, tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    assert main(["export", "--checkpoint", str(tiny.run), "--output", str(file)]) == 0
    facts = show(capsys, file)
    best = next((tiny.run / "checkpoints").glob("best-*.ckpt"))
    assert facts["kind"] == "exported model"
    assert facts["provenance"]["checkpoint"] == best.name
    assert facts["provenance"]["checkpoint sha256"] == hashlib.sha256(best.read_bytes()).hexdigest()
    assert facts["provenance"]["run"] == tiny.run.name
    assert facts["provenance"]["exported with"]["torch"] == torch.__version__.partition("+")[0]
    assert main(["show", str(file)]) == 0
    assert f"checkpoint {best.name}" in " ".join(capsys.readouterr().out.split())


def test_features(tiny, tmp_path, capsys):
    folder = tmp_path / "features"
    (tmp_path / "broken.mp4").write_bytes(b"x")
    words = [str(next(tiny.val.parent.rglob("*.mp4"))), str(tmp_path / "broken.mp4"), "--num-clips", "1"]
    assert main(["features", *words, "--checkpoint", str(tiny.run), "--output", str(folder)]) == 3
    facts = show(capsys, folder)
    assert facts["kind"] == "predictions directory with features"
    assert facts["videos"] | {"list": ""} == {"list": "", "listed": 2, "done": 2, "labelled": False, "failed": 1}
    assert (facts["protocol"]["num_clips"], facts["protocol"]["num_crops"]) == (1, 3)
    assert facts["next"] == [f"dnl_video.results.reader.read_predictions('{folder}').clip_features: [clips, channels]"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "nowhere does not exist; give a run's folder, a checkpoint, an exported model, a pred"),
        ("run/config.yaml", "- 1", "config.yaml: contains no settings; "),
        ("run/config.yaml", "a: [", "config.yaml: not valid YAML"),
        (
            "run/notes.txt",
            "x",
            "run contains nothing that this package wrote or reads; give a run's folder, a checkpoint, an exported",
        ),
        ("run", "x", "run contains nothing that this package wrote or reads; give a run's folder, a checkpoint, an"),
        ("run.png", "x", "run.png contains nothing that this package wrote or reads; give a run's folder, a "),
        ("run.txt", "word " * 20, "run.txt contains nothing that this package wrote or reads; give a run's folder, a "),
        ("run.yaml", "{model: {context_options: [1]}}", "run.yaml contains nothing that this package wrote or reads"),
        ("run.yaml", "a: 1", "run.yaml contains nothing that this package wrote or reads; give a run's folder, a "),
        ("run.mp4", "x", "run.mp4: cannot be opened (not a video: begins with x)"),
        ("run.pth", "x", "run.pth: not a file of weights (it starts with b'x')"),
        ("compare.json", "{}", "compare.json: damaged, or not written by this package; write it again"),
    ],
)
def test_paths_that_cannot_be_shown(name, content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert main(["show", str(tmp_path / name.split("/")[0])]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def make_frames(folder: Path) -> Path:
    (folder / "frames").mkdir()
    for i in range(3):
        Image.new("RGB", (40, 30)).save(folder / "frames" / f"img_{i:05d}.jpg")
    return folder / "frames"


def make_weights(folder: Path) -> Path:
    torch.save({"model_state": create_model("slow_r50", stem_channels=8).state_dict()}, folder / "hub.pyth")
    return folder / "hub.pyth"


def make_results(folder: Path, name: str) -> Path:
    accuracy = {"evaluated": {"top1": {"value": 0.5}, "video": {"top1": {"value": 0.5}}}}
    numbers = {
        "study.json": {"summary": [{"context": "dnl", "top1": {"mean": 0.5}}]},
        "compare.json": {"runs": [{"short_name": "dnl", "accuracy": accuracy}]},
        "report.json": {"accuracy": accuracy},
    }
    (folder / name).write_text(json.dumps(numbers[name]), encoding="utf-8")
    (folder / name).with_suffix(".md").touch()
    return folder


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


BROKEN = "path,label,video_id,status,reason\na.mp4,x,a,missing,\nb.mp4,x,b,broken,cut off\nc.mp4,x,c,broken,cut off\n"


@pytest.mark.parametrize(
    ("make", "kind", "expected", "following"),
    [
        (lambda d: make_results(d, "study.json"), "study of contexts", {"top-1": {"dnl": "50.0%"}}, "open {0}/st"),
        (lambda d: make_results(d, "compare.json"), "comparison", {"top-1": {"dnl": "50.0%"}}, "open {0}"),
        (lambda d: make_results(d, "report.json"), "report", {"top-1": {"evaluated videos": "50.0%"}}, "open {0}/rep"),
        (lambda d: write(d, "runs.jsonl", "{}").parent, "study of contexts", {"finished": False}, "run the `dnl-vid"),
        (lambda d: write(d, "s.yaml", "recipe: i3d_dnl"), "recipe of a study", {}, "dnl-video ablate --config {0}/s"),
        (
            lambda d: write(d, "r.yaml", "{model: {context: nl, context_options: {pool: null}}, optim: {lr: 0.1}}"),
            "recipe",
            {"model": {"context": "nl", "context_options": {"pool": None}}, "training": {"optim.lr": 0.1}},
            "dnl-video train --config {0}/r.yaml --dry-run",
        ),
        (
            lambda d: write(d, "v.csv", "path,label\na.mp4,run\nb.mp4,walk\nc.mp4,run\n"),
            "list of videos",
            {
                "videos": {"number": 3, "missing": 3},
                "classes": {"number": 2, "names": ["run", "walk"], "fewest videos": 1},
            },
            "dnl-video train --config finetune --data.train_manifest {0}/v.csv --data.val_manifest LIST",
        ),
        (
            lambda d: write(d, "v.txt", "a.mp4\nb.mp4\n"),
            "list of videos",
            {},
            "dnl-video predict {0}/v.txt --checkpoint CHECKPOINT",
        ),
        (
            lambda d: write(d, "c.txt", "moving left\ngrowing\n"),
            "class list",
            {"classes": {"number": 2, "names": ["moving left", "growing"]}},
            "dnl-video prepare --annotations LIST --videos DIR --classes {0}/c.txt --output OUT.csv",
        ),
        (
            lambda d: write(d, "v.broken.csv", BROKEN),
            "videos that prepare left out",
            {"videos": {"broken: cut off": 2, "missing": 1}},
            "repair them, then run `dnl-video prepare` again",
        ),
        (
            make_frames,
            "folder of frames",
            {"video": {"num frames": 3, "fps": 30.0, "height": 30, "width": 40, "variable rate": False,
                       "codec": "images", "duration s": 0.1}},
            "dnl-video predict {0}/frames --checkpoint CHECKPOINT",
        ),
        (make_weights, "weights of pytorchvideo hub", {}, "dnl-video convert {0}/hub.pyth --output model.safetensors"),
    ],
)  # fmt: skip
def test_other_files_and_folders(make, kind, expected, following, tmp_path, capsys):
    place = make(tmp_path)
    facts = show(capsys, place)
    assert facts["kind"] == kind
    assert facts["path"] == str(place)
    assert {key: facts[key] for key in expected} == expected
    assert facts["next"][0].startswith(following.format(tmp_path))
    assert main(["show", str(place)]) == 0
    assert capsys.readouterr().out.startswith(f"{kind} {place}")


def test_videos_and_lists_of_a_data_set(tiny, capsys):
    video = tiny.files()[0]
    facts = show(capsys, video)
    assert (facts["kind"], facts["video"]["codec"]) == ("video", "h264")
    assert facts["next"] == [f"dnl-video predict {video} --checkpoint CHECKPOINT"]
    facts = show(capsys, tiny.val)
    assert facts["videos"] == {"number": 8, "missing": 0}
    assert facts["classes"]["number"] == 8


def test_weights_of_other_projects(tmp_path, capsys):
    facts = show(capsys, make_weights(tmp_path))
    assert facts["model"]["architecture"] == "slow_r50"
    assert facts["weights"]["sha256"] == hashlib.sha256((tmp_path / "hub.pyth").read_bytes()).hexdigest()
    assert facts["preprocessing"]["antialias"] is False
