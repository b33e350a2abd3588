"""`dnl-video ablate` on a miniature study: interruption, restart, and errors."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dnl_video.cli import ablate
from dnl_video.cli.main import main, make_parser
from dnl_video.data.manifest import read_manifest
from dnl_video.files import locked, read_json_lines
from dnl_video.studies import run_processes
from tests.conftest import REPOSITORY, TinyRun

RECIPE = REPOSITORY / "scripts" / "study" / "relations_recipe.yaml"


class InProcess:
    """Runs each command in this process, one after the other, and can be interrupted before a command."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.stop_before: int | None = None

    def start(self, job: run_processes.Job, command: list[str], at_once: int) -> Any:
        if len(self.commands) == self.stop_before:
            raise KeyboardInterrupt
        self.commands.append(command)
        with job.log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            status = main(command)

        class Ended:
            returncode = status

            def poll(self) -> int:
                return status

            def terminate(self) -> None: ...

            def wait(self, timeout: float) -> int:
                return status

        return Ended()

    def runs(self) -> list[str]:
        return [f"{command[0]} {Path(command[2]).stem if command[0] == 'train' else ''}" for command in self.commands]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """Commands run in this process."""
    runner = InProcess()
    monkeypatch.setattr(run_processes, "_start", runner.start)
    monkeypatch.setattr(run_processes, "_POLL_S", 0.0)
    return runner


@pytest.fixture
def study(tiny: TinyRun, tmp_path: Path) -> Path:
    """A study of two contexts and two seeds that trains for seconds: two classes, after a start with three."""

    def write(name: str, source: Path, classes: int) -> str:
        records = read_manifest(source, root=source.parent / source.stem).records
        lines = [f"{r.path},{r.class_name}" for r in records if r.label is not None and r.label < classes]
        (tmp_path / name).write_text("\n".join(["path,label", *lines]), encoding="utf-8")
        return str(tmp_path / name)

    values = {
        "recipe": str(RECIPE),
        "output_dir": str(tmp_path / "study"),
        "train_manifest": write("train.csv", tiny.train, 2),
        "val_manifest": write("val.csv", tiny.val, 2),
        "test_manifest": write("test.csv", tiny.train, 2),
        "overrides": {
            "model.num_classes": "auto",
            "trainer.max_epochs": 1,
            "trainer.accelerator": "cpu",
            "optim.warmup_epochs": 0.5,
            "data.batch_size": 4,
            "preprocessing.num_frames": 4,
            "preprocessing.short_side": 32,
            "preprocessing.crop_size": 32,
            "augment.short_side": [32, 32],
            "augment.crop_size": 32,
            "evaluation.device": "cpu",
            "data.num_workers": 0,
        },
        "start": {
            "model.num_classes": "auto",
            "data.train_manifest": write("start_train.csv", tiny.train, 3),
            "data.val_manifest": write("start_val.csv", tiny.val, 3),
        },
        "contexts": ["none", "dnl"],
        "seeds": [0, 1],
        "jobs": 2,
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def test_interrupted_study_continues(
    study: Path, here: InProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    rows_file = folder / "runs.jsonl"
    # Two starts, two runs with their evaluations; then none-seed1 is trained, and its evaluation interrupted.
    here.stop_before = 7
    assert main(["ablate", "--config", str(study)]) == 130
    first = rows_file.read_text(encoding="utf-8")
    assert [(row["context"], row["seed"]) for row in read_json_lines(rows_file)] == [("none", 0), ("dnl", 0)]
    assert not (folder / "study.md").exists()
    out = capsys.readouterr().out
    assert "4 runs: 2 contexts x 2 seeds, 2 at a time, after 2 that give the starting weights" in out
    assert "run 4 of 6  dnl-seed0 " in out
    assert "test top-1 " in out.splitlines()[-1]
    # A killed run leaves a folder with a checkpoint; a killed study, half a row.
    left = folder / "runs" / "dnl-seed1" / "checkpoints"
    left.mkdir(parents=True, exist_ok=True)
    (left / "last.ckpt").write_bytes(b"half")
    (folder / "runs" / "dnl-seed1" / "trained.json").unlink(missing_ok=True)
    with rows_file.open("a", encoding="utf-8") as file:
        file.write('{"context": "none", "se')

    here.stop_before, here.commands = None, []
    assert main(["ablate", "--config", str(study)]) == 0
    # A training without a recorded end is repeated.
    assert sorted(here.runs()) == ["evaluate ", "evaluate ", "train dnl-seed1", "train none-seed1"]
    assert rows_file.read_text(encoding="utf-8").startswith(first)
    rows = read_json_lines(rows_file)
    assert sorted((row["context"], row["seed"]) for row in rows) == [(c, s) for c in ("dnl", "none") for s in (0, 1)]
    for row in rows:
        assert row["top1"] == row["correct"] / 4
        assert [epoch for epoch, _ in row["val_top1"]] == [1]
    out = capsys.readouterr().out
    assert "run 6 of 6" in out
    results = ("runs.jsonl", "study.json", "study.md", "curves.png")
    assert out.splitlines()[-4:] == [str(folder / name) for name in results]
    text = (folder / "study.md").read_text(encoding="utf-8")
    assert "| `none` |" in text
    assert "on 4 test videos (2 classes, chance 50.0 %)" in text
    written = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert [figures["seeds"] for figures in written["summary"]] == [[0, 1], [0, 1]]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")

    # Both contexts of a seed started from the same weights, and the study is complete.
    for context in ("none", "dnl"):
        config = yaml.safe_load((folder / "runs" / f"{context}-seed0" / "config.yaml").read_text())
        assert config["weights"]["source"] == str(folder / "runs" / "start-seed0" / "checkpoints" / "last.ckpt")
    here.commands = []
    assert main(["ablate", "--config", str(study)]) == 0
    assert here.commands == []
    capsys.readouterr()

    # The folder refuses other settings, a second process, and a run that a killed study left running.
    assert main(["ablate", "--config", str(study), "--set", "optim.lr=0.5"]) == 2
    assert "holds runs with overrides.optim.lr=None, not 0.5; give another output_dir" in capsys.readouterr().err
    with locked(folder / ".lock"):
        assert main(["ablate", "--config", str(study)]) == 2
    assert "another process works on" in capsys.readouterr().err
    rows_file.write_text(first, encoding="utf-8")
    with locked(folder / "logs" / "none-seed1.lock"):
        assert main(["ablate", "--config", str(study)]) == 2
    assert "or a run of a killed study is still active; wait for it to end" in capsys.readouterr().err
    assert here.commands == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "optim.lr"], "--set optim.lr: give NAME=VALUE, for example --set model.head=global"),
        (["--set", "optim.lr=[1"], "--set optim.lr=[1: '[1' is not valid YAML"),
        (["--set", "optim.lrr=1"], "overrides has 'optim.lrr', which the recipe does not have; did you mean 'optim.lr"),
        (["--set", "optim.lr=-1"], "optim.lr is -1"),
        (["--recipe", "nothing.yaml"], "nothing.yaml: no such file or recipe; recipes: i3d_dnl, "),
        (
            ["--context", "[none]"],
            "unknown option '--context'; did you mean '--contexts'?; see dnl-video ablate --help",
        ),
        (["--seeds", "[0, zero]"], "seeds"),
    ],
)
def test_wrong_option_is_refused_before_any_training(
    words: list[str], message: str, study: Path, here: InProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", "--config", str(study), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_unknown_or_missing_key_is_named(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load(study.read_text(encoding="utf-8"))
    values["contxts"] = ["none"]
    study.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert main(["ablate", "--config", str(study)]) == 2
    assert "unknown key 'contxts'; did you mean 'contexts'?" in capsys.readouterr().err
    incomplete = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    del incomplete["optim"]["momentum"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(incomplete), encoding="utf-8")
    del values["contxts"]
    study.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert main(["ablate", "--config", str(study), "--recipe", str(tmp_path / "recipe.yaml")]) == 2
    assert "recipe.yaml: optim.momentum is missing; a study needs a complete recipe" in capsys.readouterr().err


def test_a_study_without_videos_to_compare_on(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    recipe["data"]["val_manifest"] = None
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    lists = ["--val_manifest", "null", "--test_manifest", "null"]
    assert main(["ablate", "--config", str(study), "--recipe", str(tmp_path / "recipe.yaml"), *lists]) == 2
    assert "no videos to compare accuracies on; give val_manifest or test_manifest" in capsys.readouterr().err


def test_folder_with_other_files_is_refused(
    study: Path, here: InProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").write_text("x")
    assert main(["ablate", "--config", str(study)]) == 2
    assert f"output_dir {tmp_path / 'study'} holds something else; give a new folder" in capsys.readouterr().err


def test_help_has_the_examples() -> None:
    text = make_parser("ablate", ablate).format_help()
    assert "dnl-video ablate --config STUDY.yaml" in text
    assert "--set NAME=VALUE" in text
    assert "--test_manifest" in text
