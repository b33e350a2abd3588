"""The runs of a study, and the complete recipe of each."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnl_video.errors import InputError, nearest
from dnl_video.studies.config import StudyConfig
from dnl_video.synthetic.relation_data import class_names


@dataclass(frozen=True)
class Run:
    """One training run.

    Args:
        context: Its context; None for the run that a seed's others start from.
        seed: Its seed.
        recipe: Its complete recipe; weights.source is set when there are weights to start from.
        start: The run whose last weights it starts from.
    """

    context: str | None
    seed: int
    recipe: dict[str, Any]
    start: Run | None = None

    @property
    def name(self) -> str:
        """Name of its folder, recipe and log."""
        return f"{self.context or 'start'}-seed{self.seed}"


def plan_runs(config: StudyConfig, recipe: Mapping[str, Any]) -> tuple[list[Run], list[Run]]:
    """List the runs that give starting weights, and those that are compared, seed by seed.

    Args:
        config: The study.
        recipe: Its recipe as it stands in the file.

    Raises:
        InputError: An override names no value of the recipe, or one that the study sets.
    """
    common = override(recipe, config.overrides, "overrides")
    bare = None if config.start is None else override(common, config.start, "start")
    starts: list[Run] = []
    runs: list[Run] = []
    for seed in config.seeds:
        start = None if bare is None else _make(config, None, seed, bare, None)
        starts += [start] if start else []
        runs += [_make(config, context, seed, common, start) for context in config.contexts]
    return starts, runs


def run_folder(config: StudyConfig, run: Run) -> Path:
    """Return the folder of a run."""
    return Path(config.output_dir) / "runs" / run.name


def override(recipe: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a copy of a recipe with values set by dotted names.

    Raises:
        InputError: A name is no value of the recipe, or one that the study sets itself.
    """
    changed = copy.deepcopy(dict(recipe))
    known = _names(changed)
    for name, value in values.items():
        if name in _OWN:
            raise InputError(f"{where} sets {name!r}, which the study sets for each run; leave it out")
        if name not in known:
            raise InputError(f"{where} has {name!r}, which the recipe does not have{nearest(name, known)}")
        _set(changed, name, value)
    return changed


_OWN = (
    "output_dir",
    "seed",
    "model.context",
    "model.num_classes",
    "weights.source",
    "data.train_manifest",
    "data.val_manifest",
    "data.train_root",
    "data.val_root",
    "data.class_list",
)


def _make(config: StudyConfig, context: str | None, seed: int, recipe: Mapping[str, Any], start: Run | None) -> Run:
    prefix = "start_" if context is None else ""
    run = Run(context, seed, copy.deepcopy(dict(recipe)), start)
    data = Path(config.data_dir)
    own = {
        "output_dir": str(run_folder(config, run)),
        "seed": seed,
        "model.context": context or "none",
        "model.num_classes": len(class_names(config.task, f"{prefix}train")),
        "weights.source": None,
        "data.train_manifest": str(data / f"{prefix}train.csv"),
        "data.val_manifest": str(data / f"{prefix}val.csv"),
        "data.train_root": None,
        "data.val_root": None,
        "data.class_list": None,
    }
    assert set(own) == set(_OWN)
    for name, value in own.items():
        _set(run.recipe, name, value)
    return run


def _set(recipe: dict[str, Any], name: str, value: Any) -> None:
    *sections, key = name.split(".")
    for section in sections:
        recipe = recipe.setdefault(section, {})
    recipe[key] = value


def _names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in values.items():
        names += [f"{prefix}{key}"]
        if isinstance(value, Mapping):
            names += _names(value, f"{prefix}{key}.")
    return names
