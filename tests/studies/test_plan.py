"""The runs of a study differ only in what the study compares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml

from dnl_video.errors import InputError
from dnl_video.models.build import build_model
from dnl_video.spec import ModelSpec, flat, from_dict
from dnl_video.studies.plan import StudyConfig, StudyRun, plan_runs
from tests.conftest import REPOSITORY

RECIPE = yaml.safe_load((REPOSITORY / "scripts" / "study" / "relations_recipe.yaml").read_text(encoding="utf-8"))


def study(**values: Any) -> StudyConfig:
    return StudyConfig("recipe.yaml", **values)


def differing(first: StudyRun, second: StudyRun) -> set[str]:
    a, b = flat(first.recipe), flat(second.recipe)
    keys = {key for key in a.keys() | b.keys() if not isinstance(a.get(key), dict)}
    return {key for key in keys if a.get(key) != b.get(key)}


def test_runs_of_one_seed_differ_only_in_the_context() -> None:
    start = {"trainer.max_epochs": 1, "data.train_manifest": "start.csv", "model.num_classes": 18}
    config = study(start=start, overrides={"optim.lr": 0.5}, seeds=(0, 7), train_manifest="own.csv")
    starts, runs = plan_runs(config, RECIPE)
    assert [run.name for run in starts] == ["start-seed0", "start-seed7"]
    assert [run.name for run in runs[:8]] == [*(f"{c}-seed0" for c in config.contexts), "none-seed7"]
    assert len(runs) == 14
    for run in runs[1:7]:
        assert differing(runs[0], run) == {"model.context", "output_dir"}
        assert run.start is starts[0]
    assert differing(runs[0], runs[7]) == {"seed", "output_dir"}
    assert all(run.recipe["optim"]["lr"] == 0.5 for run in (*starts, *runs))
    first = starts[0].recipe
    assert (first["trainer"]["max_epochs"], first["model"]["context"]) == (1, "none")
    assert (first["data"]["train_manifest"], first["model"]["num_classes"]) == ("start.csv", 18)
    for data in (first["data"], runs[0].recipe["data"]):
        assert data["val_manifest"] == RECIPE["data"]["val_manifest"]
    assert (runs[0].recipe["data"]["train_manifest"], runs[0].recipe["model"]["num_classes"]) == ("own.csv", 8)
    assert RECIPE["optim"]["lr"] != 0.5, "the recipe itself is unchanged"
    assert plan_runs(study(), RECIPE)[0] == []


def test_runs_of_one_seed_start_from_the_same_backbone() -> None:
    """Also without a start: the weights of the backbone are drawn before those of the blocks."""
    _, runs = plan_runs(study(seeds=(3,)), RECIPE)
    states = []
    for run in runs:
        torch.manual_seed(run.seed)
        states.append(build_model(from_dict(ModelSpec, run.recipe["model"])).state_dict())
    for state in states[1:]:
        for key, value in states[0].items():
            assert torch.equal(state[key], value), key


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"overrides": {"optim.lrr": 1}}, "overrides has 'optim.lrr', which the recipe does not have; did you mean 'o"),
        ({"overrides": {"seed": 1}}, "overrides sets 'seed', which the study sets for each run; leave it out"),
        (
            {"overrides": {"data.val_manifest": "x"}},
            "overrides sets 'data.val_manifest', which the study sets for each run; leave it out",
        ),
        ({"start": {"model.context": "nl"}}, "start sets 'model.context', which the study sets for each run"),
        ({"start": {"model.contxt": 1}}, "start has 'model.contxt', which the recipe does not have; did you mean 'mo"),
    ],
)
def test_wrong_override_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_runs(study(**values), RECIPE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"contexts": ("none", "dln")}, "contexts has 'dln'; allowed: none, nl, dnl, .*; did you mean 'dnl'"),
        ({"contexts": ()}, r"contexts is \[\]; give at least one, each once"),
        ({"seeds": (1, 1)}, r"seeds is \[1, 1\]; give at least one, each once"),
        ({"seeds": (-1,)}, r"seeds is \[-1\]; give a list of whole numbers in \[0, 4294967295\]"),
        ({"jobs": 0}, r"jobs is 0; give a whole number in \[1, 256\]"),
    ],
)
def test_wrong_study_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        study(**values)
