"""`dnl-video ablate`: a controlled study of the contexts, from generated videos to a table."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dnl_video.cli import recipes, train
from dnl_video.config import TrainConfig
from dnl_video.errors import InputError
from dnl_video.studies.config import StudyConfig

if TYPE_CHECKING:
    from dnl_video.studies.plan import Run
    from dnl_video.studies.run import Progress

DESCRIPTION = """Compare contexts under equal conditions: the same network, data, order and budget, several seeds.

The task is generated: of several moving squares, say which candidate moves as the white sample does. No square, place
or motion alone tells; the videos are real mp4 files. A run of a bare network on videos of one
square gives the weights from which every run of its seed starts. Top-1 is that of the last checkpoint on videos that
nothing else sees.

  dnl-video ablate --config configs/studies/relations.yaml
  dnl-video ablate --config configs/studies/relations.yaml --seeds "[0, 1, 2, 3, 4]"     two more seeds
  dnl-video ablate --config STUDY --contexts "[none, dnl]" --output_dir runs/studies/two
  dnl-video ablate --config STUDY --set optim.lr=0.001 --set trainer.max_epochs=20 --output_dir runs/studies/longer

Interrupted or killed, it goes on with the same command: finished runs are rows of runs.jsonl and are not redone. In
the end study.md has the table, study.json everything, curves.png validation accuracy against epochs.
"""

FORMATTER = train.FORMATTER


class PARSER(train.PARSER):
    """The recipe's parser, for a study's values."""

    command = "dnl-video ablate"
    common = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def keys(self) -> list[str]:
        """Return every dotted name a study may hold."""
        return [action.dest for action in self._actions if action.dest not in ("help", "config", "set")]


def add_arguments(parser: PARSER) -> None:
    """Add the options, and every field of `StudyConfig` by its dotted name."""
    parser.add_argument("--config", action=train.RecipeFile, metavar="YAML", help="Study to start from.")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="Set a value of the recipe in every run."
    )
    parser.add_config(StudyConfig)


def run(arguments: Any) -> int:
    """Do what is left of the study, and write its tables."""
    words = arguments.pop("set")
    config_file = arguments.pop("config")
    parser = PARSER()
    parser.add_class_arguments(StudyConfig, None)
    config = StudyConfig(**vars(parser.instantiate(arguments)))
    config.overrides |= dict(_assignment(word) for word in words)

    from dnl_video.studies.plan import plan_runs

    starts, runs = plan_runs(config, recipes.read_recipe(config.recipe))
    # Of further seeds only the seed differs.
    for planned in (*starts[:1], *runs[: len(config.contexts)]):
        _check_recipe(planned, config.recipe)

    from dnl_video.studies.run import count_costs, describe_machine, run_study, write_results

    # A scheduler's or a user's `kill` ends the runs as Ctrl-C does.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _write_videos(config)
        print(
            f"{len(runs)} runs: {len(config.contexts)} contexts x {len(config.seeds)} seeds, {config.jobs} at a time"
            + (f", after {len(starts)} that give the starting weights" if starts else ""),
            flush=True,
        )
        rows = run_study(config, starts, runs, describe_machine(), _print_progress)
        paths = write_results(config, rows, count_costs(runs), _command(config_file, sys.argv))
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(f"\n{Path(config.output_dir, 'study.md').read_text(encoding='utf-8')}")
    for path in paths:
        print(path)
    return 0


def _assignment(word: str) -> tuple[str, Any]:
    """Read NAME=VALUE, the value as YAML does."""
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise InputError(f"--set {word}: give NAME=VALUE, for example --set optim.lr=0.001")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {word}: {value!r} is no value in YAML") from error


def _check_recipe(planned: Run, path: str) -> None:
    """Parse a run's recipe as `dnl-video train` will, so that a wrong value costs no time."""
    parser = train.PARSER()
    parser.add_class_arguments(TrainConfig, None)
    known = parser.keys()
    train.check_keys(planned.recipe, known, path)
    missing = [key for key in known if not _has(planned.recipe, key)]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing; a study needs a complete recipe")
    TrainConfig(**vars(parser.instantiate(parser.parse_object(planned.recipe))))


def _has(values: Mapping[str, Any], key: str) -> bool:
    section, _, rest = key.partition(".")
    if section not in values:
        return False
    return not rest or not isinstance(values[section], Mapping) or _has(values[section], rest)


def _write_videos(config: StudyConfig) -> None:
    from dnl_video.cli.progress import file_progress
    from dnl_video.synthetic.relation_data import write_relation_data

    with file_progress() as bar:

        def show(done: int, total: int) -> None:
            bar("generating videos", done, total, 0)

        written = write_relation_data(config.data_dir, config.task, config.videos, seed=config.data_seed, progress=show)
    print(f"{config.data_dir}: {f'wrote {written} videos' if written else 'all videos are there'}", flush=True)


def _print_progress(progress: Progress) -> None:
    run, result = progress.run, progress.result
    if run.context is None:
        curve = result["val_top1"]
        outcome = f"validation top-1 {100 * curve[-1][1]:.1f}%" if curve else "trained"
    else:
        outcome = f"test top-1 {100 * result['top1']:.1f}%, trained in {result['train_s']:.0f} s"
    left = timedelta(seconds=round(progress.left_s))
    print(f"run {progress.done} of {progress.total}  {run.name:<16}  {outcome}  left {left}", flush=True)


def _command(config_file: Any, words: list[str]) -> str:
    """Return what was typed, for the tables; from Python the command that stands for it."""
    if "ablate" in words:
        return shlex.join(["dnl-video", *words[words.index("ablate") :]])
    return shlex.join(["dnl-video", "ablate", *(["--config", str(config_file[0])] if config_file else [])])
