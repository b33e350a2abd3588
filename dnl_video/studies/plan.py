"""The configuration of a study, its runs, and the complete recipe of each run. Imports no torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, get_args

from dnl_video.errors import InputError, nearest
from dnl_video.spec import Context, check_fields, flat

# Recipe values that the study sets itself.
_PER_RUN = ("output_dir", "seed", "model.context")
_LISTS = ("data.train_manifest", "data.val_manifest")


@dataclass
class StudyConfig:
    """A controlled study: one run for each context and seed; everything else is equal.

    Args:
        recipe: Complete recipe of every run: a name or a path, as for `dnl-video train`.
        output_dir: Folder of the study: rows, tables, curves, and the folders of its runs.
        train_manifest: Training list; null: the recipe's.
        val_manifest: Validation list; null: the recipe's.
        test_manifest: List for the final accuracy of every run; null: the validation list. Relative paths in it start
            at the recipe's data.val_root, if that is set.
        overrides: Recipe values to change in every run, by dotted name, e.g. {optim.lr: 0.001}.
        start: Recipe values, by dotted name, of an extra run without context blocks for each seed. All runs of the seed
            start from its last weights. It may have other lists and classes. null: start as the recipe says.
        contexts: The contexts to compare.
        seeds: Seeds of weights, data order and sampling. Runs of one seed start from the same backbone and see the same
            clips in the same order.
        jobs: Number of runs at the same time; they share the cores.
    """

    recipe: str
    output_dir: str = "runs/studies/study"
    train_manifest: str | None = None
    val_manifest: str | None = None
    test_manifest: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] | None = None
    contexts: tuple[str, ...] = ("none", "nl", "snl", "gc", "pairwise", "unary", "dnl")
    seeds: tuple[int, ...] = (0, 1, 2)
    jobs: int = 1

    RANGES: ClassVar[dict[str, str]] = {"[0, 4294967295]": "seeds", "[1, 256]": "jobs"}

    def __post_init__(self) -> None:
        check_fields(self)
        allowed = get_args(Context)
        for context in self.contexts:
            if context not in allowed:
                raise InputError(
                    f"contexts has {context!r}; allowed: {', '.join(allowed)}{nearest(str(context), allowed)}"
                )
        for name in ("contexts", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise InputError(f"{name} is {list(values)}; give at least one, each once")


@dataclass(frozen=True)
class StudyRun:
    """One training run.

    Args:
        context: Its context; None for the run that the other runs of the seed start from.
        seed: Its seed.
        recipe: Its complete recipe.
        start: The run whose last weights it starts from.
    """

    context: str | None
    seed: int
    recipe: dict[str, Any]
    start: StudyRun | None = None

    @property
    def name(self) -> str:
        """Name of its folder, recipe and log."""
        return f"{self.context or 'start'}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Its output folder."""
        return Path(self.recipe["output_dir"])


def plan_runs(config: StudyConfig, recipe: Mapping[str, Any]) -> tuple[list[StudyRun], list[StudyRun]]:
    """Return the runs that give the starting weights, and the runs to compare, grouped by seed.

    Args:
        config: The study.
        recipe: The values of its recipe file.

    Raises:
        InputError: An override names an unknown value, or one that the study sets.
    """
    common = override(recipe, config.overrides, "overrides", (*_PER_RUN, *_LISTS))
    for name, path in zip(_LISTS, (config.train_manifest, config.val_manifest), strict=True):
        if path is not None:
            _set(common, name, path)
    bare = None if config.start is None else override(common, config.start, "start", _PER_RUN)
    starts: list[StudyRun] = []
    runs: list[StudyRun] = []
    for seed in config.seeds:
        start = None if bare is None else _make(config, None, seed, bare)
        starts += [start] if start else []
        runs += [_make(config, context, seed, common, start) for context in config.contexts]
    return starts, runs


def override(
    recipe: Mapping[str, Any], values: Mapping[str, Any], where: str, refused: Sequence[str]
) -> dict[str, Any]:
    """Return a copy of a recipe with values set by dotted names.

    Raises:
        InputError: A name is unknown, or is one of ``refused``.
    """
    changed = copy.deepcopy(dict(recipe))
    known = list(flat(changed))
    for name, value in values.items():
        if name in refused:
            raise InputError(f"{where} sets {name!r}, which the study sets for each run; leave it out")
        if name not in known:
            raise InputError(f"{where} has {name!r}, which the recipe does not have{nearest(name, known)}")
        _set(changed, name, value)
    return changed


def _make(
    config: StudyConfig, context: str | None, seed: int, recipe: Mapping[str, Any], start: StudyRun | None = None
) -> StudyRun:
    run = StudyRun(context, seed, copy.deepcopy(dict(recipe)), start)
    folder = Path(config.output_dir) / "runs" / run.name
    for name, value in zip(_PER_RUN, (str(folder), seed, context or "none"), strict=True):
        _set(run.recipe, name, value)
    return run


def _set(recipe: dict[str, Any], name: str, value: Any) -> None:
    *sections, key = name.split(".")
    for section in sections:
        recipe = recipe.setdefault(section, {})
    recipe[key] = value
