"""What a study's YAML is parsed into. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

from dnl_video.errors import InputError, nearest
from dnl_video.spec import Context
from dnl_video.synthetic.relation_data import RelationCounts
from dnl_video.synthetic.relations import RelationTask


@dataclass
class StudyConfig:
    """A controlled study: contexts times seeds, all else equal.

    Args:
        output_dir: Folder of the study: rows, tables, curves, and the folders of its runs.
        recipe: Recipe of every run (a complete one of `dnl-video train`).
        overrides: Recipe values that differ in every run, by dotted name, as {optim.lr: 0.001}.
        start: Recipe values that differ in the run without context blocks, on videos of one square, whose weights every
            run of a seed starts from; null starts from random weights.
        contexts: What is compared.
        seeds: Seeds of weights, order, sampling. Runs of one seed start from the same backbone and see the same clips
            in the same order.
        jobs: Runs side by side; they share the cores.
        data_dir: Folder of the generated videos.
        data_seed: Seed of the generated videos.
        task: How the videos look.
        videos: How many videos there are.
    """

    output_dir: str = "runs/studies/relations"
    recipe: str = "configs/studies/relations_recipe.yaml"
    overrides: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] | None = None
    contexts: tuple[str, ...] = ("none", "nl", "snl", "gc", "pairwise", "unary", "dnl")
    seeds: tuple[int, ...] = (0, 1, 2)
    jobs: int = 1
    data_dir: str = "data/relations"
    data_seed: int = 0
    task: RelationTask = field(default_factory=RelationTask)
    videos: RelationCounts = field(default_factory=RelationCounts)

    def __post_init__(self) -> None:
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
        for name, value in (("seeds", min(self.seeds)), ("data_seed", self.data_seed)):
            if value < 0:
                raise InputError(f"{name} has {value}; give 0 or more")
        if self.jobs < 1:
            raise InputError(f"jobs is {self.jobs}; give at least 1")
