"""Command-line options derived from config dataclasses."""

from __future__ import annotations

import argparse
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

from dnl_video.cli.main import command_module, make_parser
from dnl_video.cli.options import add_config_options, config_from, default_output
from dnl_video.config import EvaluationConfig
from dnl_video.results.writer import PredictionsWriter
from tests.report.directories import make_meta


@dataclass
class Base:
    """A config.

    Args:
        num_clips: Clips, 100 %
            of them.
    """

    num_clips: int = 3


@dataclass
class Example(Base):
    """A config with a base.

    Args:
        crops: Crops.
        mode: Mode.
        rate: Rate. null: automatic.
        scores: Store scores.
        quiet: Print nothing.

    Raises:
        ValueError: Not a field.
    """

    crops: Literal[1, 3] = 1
    mode: Literal["a", "b"] = "a"
    rate: float | None = None
    scores: bool = True
    quiet: bool = False


FIELDS = ("num_clips", "crops", "mode", "rate", "scores", "quiet")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_config_options(made, Example(num_clips=5), *FIELDS)
    return made


def test_options_have_type_default_and_help_of_the_field():
    assert config_from(parser().parse_args([]), Example) == Example(num_clips=5)
    words = ["--num-clips", "2", "--crops", "3", "--mode", "b", "--rate", "0.5", "--no-scores", "--quiet"]
    assert config_from(parser().parse_args(words), Example) == Example(2, 3, "b", 0.5, False, True)
    text = " ".join(parser().format_help().replace("(default: True)", "").split())  # Python 3.10 adds it
    assert "--num-clips N Clips, 100 % of them. Default: 5. --crops {1,3} Crops. Default: 1." in text
    assert "--rate N Rate. Default: automatic. --scores, --no-scores Store scores. --quiet Print nothing." in text


@pytest.mark.parametrize("words", [["--crops", "2"], ["--mode", "c"], ["--num-clips", "x"]])
def test_values_outside_the_annotation_are_refused(words):
    with pytest.raises(SystemExit):
        parser().parse_args(words)


def test_fields_without_default_are_required():
    @dataclass
    class Required:
        """A config.

        Args:
            folder: A folder.
        """

        folder: str

    made = argparse.ArgumentParser()
    add_config_options(made, Required, "folder", metavars={"folder": "DIR"})
    assert config_from(made.parse_args(["--folder", "x"]), Required) == Required("x")
    assert "--folder DIR" in made.format_help()
    with pytest.raises(SystemExit):
        made.parse_args([])


@pytest.mark.parametrize("name", ["evaluate", "predict", "features"])
def test_evaluation_commands_parse_to_their_config(name):
    words = {"evaluate": ["--manifest", "m"], "predict": ["v"], "features": ["v", "--output", "o"]}[name]
    arguments = make_parser(name, command_module(name)).parse_args(["--checkpoint", "c", *words])
    assert config_from(arguments, EvaluationConfig) == EvaluationConfig(num_clips=10, num_crops=3)


def place(tmp_path: Path, checkpoint: str, weights: str, listed: str, videos: str) -> str:
    """Return the default folder of a model and a list, with these checksums, and make it as a run does."""
    model = SimpleNamespace(path=tmp_path / checkpoint, sha256=weights * 64)
    manifest = SimpleNamespace(source=listed, sha256=videos * 64)
    folder = default_output("predictions", model, manifest, listed)  # type: ignore[arg-type]
    meta = make_meta(1, ["a"], weights_sha256=model.sha256, manifest=listed, manifest_sha256=manifest.sha256)
    PredictionsWriter(folder, meta).close()
    return folder.relative_to("predictions").as_posix()


def test_two_models_and_two_lists_never_share_a_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("v1.5", "day1/clips", "day2/clips", "day3/clips"):
        (tmp_path / name).mkdir(parents=True)
    best = "dnl-best-epoch001-top1_0.5000"
    one, two = (f"{run}/dnl/checkpoints/best-epoch001-top1_0.5000.ckpt" for run in "ab")
    cases = [
        (one, "1", "val.csv", "a", rf"{best}/val"),
        (one, "1", "other/val.csv", "b", rf"{best}/val-[0-9a-f]{{8}}"),
        (one, "1", "third/val.csv", "b", rf"{best}/val-[0-9a-f]{{8}}"),  # the same content in another place
        # Three folders with videos of the same names.
        (one, "1", "day1/clips", "d", rf"{best}/clips"),
        (one, "1", "day2/clips", "d", rf"{best}/clips-[0-9a-f]{{8}}"),
        (one, "1", "day3/clips", "d", rf"{best}/clips-[0-9a-f]{{8}}"),
        (two, "2", "val.csv", "a", rf"{best}-22222222/val"),
        # A new list: the name of the model is still that of the first one.
        (two, "2", "test.csv", "c", rf"{best}-22222222/test"),
        ("a/dnl/checkpoints/last.ckpt", "3", "v1.5", "d", "dnl-last/v1.5"),
        ("slow.safetensors", "4", "val.csv", "a", "slow/val"),
        ("exported/model.safetensors", "5", "val.csv", "a", "exported/val"),
    ]
    folders = [place(tmp_path, *words) for *words, _ in cases]
    assert len(set(folders)) == len(cases)
    for folder, (*words, expected) in zip(folders, cases, strict=True):
        assert re.fullmatch(expected, folder)
        assert place(tmp_path, *words) == folder, "the same again"
    assert place(tmp_path, one, "1", "./day2/clips", "d") == folders[4]
    # A model keeps its folder when the first one of that name is deleted.
    shutil.rmtree(tmp_path / "predictions" / best)
    assert place(tmp_path, *cases[6][:4]) == folders[6]
