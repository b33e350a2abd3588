"""Command-line options derived from config dataclasses."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Literal

import pytest

from dnl_video.cli.main import command_module, make_parser
from dnl_video.cli.options import add_config_options, config_from
from dnl_video.config import EvaluationConfig


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
