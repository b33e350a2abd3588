"""The studies in scripts/study: complete, consistent with their recipe, and with the options that write the videos."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
import yaml
from relation_task import RelationTask
from relations import parse

from dnl_video.config import TrainConfig
from dnl_video.spec import flat, to_dict
from dnl_video.studies.plan import StudyConfig, plan_runs
from tests.conftest import REPOSITORY
from tests.test_recipes import check_network, load

STUDIES = [Path("scripts", "study", f"{name}.yaml") for name in ("relations", "relations_gpu")]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_study_fits_its_recipe_and_its_videos(path: Path) -> None:
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    generate, ablate, *_ = text.replace("\\\n#", "").splitlines()
    assert ablate == f"# dnl-video ablate --config {path}"
    assert list(values) == [field.name for field in dataclasses.fields(StudyConfig)]
    words = shlex.split(generate)
    assert words[:3] == ["#", "python", "scripts/study/relations.py"]
    out, _, task, counts = parse(words[3:])
    config = load(REPOSITORY / values["recipe"])
    assert (config.data.train_manifest, config.data.val_manifest) == (f"{out}/train.csv", f"{out}/val.csv")
    assert [values[f"{split}_manifest"] for split in ("train", "val", "test")] == [
        f"{out}/{split}.csv" for split in ("train", "val", "test")
    ]
    assert [values["start"][f"data.{split}_manifest"] for split in ("train", "val")] == [
        f"{out}/start_{split}.csv" for split in ("train", "val")
    ]
    assert (config.preprocessing.crop_size, config.model.num_classes) == (task.side, task.candidates)
    assert values["start"]["model.num_classes"] == len(task.single_classes)
    assert config.augment.short_side == (task.side, task.side)
    assert config.preprocessing.num_frames <= task.num_frames
    assert config.augment.flip == 0.0
    starts, runs = plan_runs(StudyConfig(**values), yaml.safe_load((REPOSITORY / values["recipe"]).read_text("utf-8")))
    assert len(runs) == 7 * len(starts)
    assert len(starts) >= 3
    assert counts.test >= 500


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_study_recipe_is_complete_and_builds(path: Path) -> None:
    path = path.with_name(f"{path.stem}_recipe.yaml")
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    assert text.splitlines()[0] == f"# dnl-video train --config {path} --final-test"
    recipe = yaml.safe_load(text)
    assert flat(recipe).keys() == flat(to_dict(TrainConfig())).keys()
    config = load(REPOSITORY / path)
    assert to_dict(config) == recipe
    assert config.output_dir == f"runs/studies/{path.stem}"
    check_network(config)


def test_defaults_are_the_small_study_of_the_published_table() -> None:
    task = RelationTask()
    assert (task.candidates, task.directions, task.distractors, task.num_frames) == (8, 2, 0, 12)
    assert (task.grid, task.window, task.radius, task.speed, task.noise) == (3, 16, 3.5, 2.5, 3.0)
