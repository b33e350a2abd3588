"""`dnl-video ablate`: train every context with several seeds, all else equal, and write a table."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from dnl_video.cli import recipes, train
from dnl_video.cli.terminal import say
from dnl_video.config import TrainConfig
from dnl_video.errors import InputError
from dnl_video.spec import flat
from dnl_video.studies.plan import StudyConfig, StudyRun, plan_runs

DESCRIPTION = """Compare contexts under equal conditions: the same recipe, data, data order and budget; several seeds.

The YAML of a study names a recipe, the lists, the contexts and the seeds (example: scripts/study/relations.yaml). Top-1
is that of the last checkpoint on the test list. Differences between contexts are paired by seed.

  dnl-video ablate --config STUDY.yaml
  dnl-video ablate --config STUDY.yaml --seeds "[0, 1, 2, 3, 4]"     two more seeds
  dnl-video ablate --config STUDY.yaml --contexts "[none, dnl]" --output runs/studies/two
  dnl-video ablate --config STUDY.yaml --set optim.lr=0.001 --set trainer.max_epochs=20 --output runs/studies/longer

After an interruption, the same command continues the study: finished runs are rows of runs.jsonl and are not repeated.
Results: study.md (the table), study.json (all numbers), curves.png (validation accuracy against epochs).
"""

FORMATTER = train.FORMATTER


class PARSER(train.PARSER):
    """The parser of `dnl-video train`, for the values of a study."""

    command = "dnl-video ablate"
    common = ()


def add_arguments(parser: PARSER) -> None:
    """Add the options, and one for each field of `StudyConfig`."""
    parser.add_argument("--config", action=train.RecipeFile, metavar="YAML", help="File of the study.")
    # An option without a default is not a value of the study.
    add = partial(parser.add_argument, action="append", default=argparse.SUPPRESS, metavar="NAME=VALUE")
    add("--set", help="Set a value of the recipe in every run.")
    parser.add_config(StudyConfig)


def run(arguments: Any) -> int:
    """Do the runs that are not finished, and write the tables."""
    config = train.build_config(arguments, StudyConfig)
    config.overrides |= dict(map(recipes.parse_setting, arguments.get("set", [])))
    starts, runs = plan_runs(config, recipes.read_recipe(config.recipe))
    # Runs of the other seeds differ in the seed only.
    for group in (starts, runs):
        checked = [_check_recipe(planned.recipe, config.recipe) for planned in group[: len(config.contexts)]]
        if checked and checked[0].model.num_classes == "auto":
            from dnl_video.training.setup import resolve_classes

            classes = resolve_classes(checked[0]).model.outputs
            for planned in group:
                planned.recipe["model"]["num_classes"] = classes

    if checked[0].data.val_manifest is None and config.test_manifest is None:
        raise InputError("the study has no videos to compare accuracies on; give val_manifest or test_manifest")
    from dnl_video.studies.run import run_study, write_results

    # SIGTERM stops the runs like Ctrl-C.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        say(
            f"{len(runs)} runs: {len(config.contexts)} contexts x {len(config.seeds)} seeds, {config.jobs} at a time"
            + (f", after {len(starts)} that give the starting weights" if starts else "")
        )
        rows = run_study(config, starts, runs, _print_progress)
        # Without "ablate", `main` was called from Python.
        words = sys.argv[sys.argv.index("ablate") :] if "ablate" in sys.argv else ["ablate", "--config", "STUDY.yaml"]
        paths = write_results(config, runs, rows, shlex.join(["dnl-video", *words]))
    finally:
        signal.signal(signal.SIGTERM, previous)
    say("", Path(config.output_dir, "study.md").read_text(encoding="utf-8"), *paths)
    return 0


def _check_recipe(recipe: Mapping[str, Any], path: str) -> TrainConfig:
    """Parse the recipe of a run like `dnl-video train`, so that a wrong value is found before any training."""
    parser = train.PARSER()
    parser.add_class_arguments(TrainConfig, None)
    known, given = parser.keys(), flat(recipe)
    train.check_keys(recipe, known, path)
    if missing := [key for key in known if key not in given]:
        raise InputError(f"{path}: {missing[0]} is missing; a study needs a complete recipe")
    return TrainConfig(**vars(parser.instantiate(parser.parse_object(dict(recipe)))))


def _print_progress(run: StudyRun, result: Mapping[str, Any], done: int, total: int, left_s: float) -> None:
    if run.context is None:
        curve = result["val_top1"]
        outcome = f"validation top-1 {100 * curve[-1][1]:.1f}%" if curve else "trained"
    else:
        outcome = f"test top-1 {100 * result['top1']:.1f}%, trained in {result['train_s']:.0f} s"
    say(f"run {done} of {total}  {run.name:<16}  {outcome}  left {timedelta(seconds=round(left_s))}")
