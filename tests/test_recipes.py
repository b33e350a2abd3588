"""Every recipe in configs/: complete, typed, consistent, and it trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from dnl_video.cli.main import command_module, make_parser
from dnl_video.config import DataConfig, TrainConfig
from dnl_video.data.dataset import VideoViews
from dnl_video.data.manifest import VideoRecord
from dnl_video.models.build import build_model
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.run import resolved_config, train
from tests.conftest import REPOSITORY, TinyRun

RECIPES = sorted((REPOSITORY / "configs").rglob("*.yaml"))


class FakeTrainer:
    """What a validation step asks its trainer for: the records, here two of class 1."""

    def __init__(self) -> None:
        record = VideoRecord("v", "v.mp4", 1, "one")
        self.datamodule = SimpleNamespace(val=SimpleNamespace(records=(record, record)))


def load(path: Path) -> TrainConfig:
    """Parse a recipe as the command line does."""
    arguments = make_parser("train", command_module("train")).parse_args(["--config", str(path)])
    for name in ("config", "resume", "dry_run", "final_test", "limit_videos"):
        arguments.pop(name)
    parser = ArgumentParser()
    parser.add_class_arguments(TrainConfig, None)
    return TrainConfig(**vars(parser.instantiate(arguments)))


def keys(values: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in values.items():
        found |= keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def test_the_recipes_are_there() -> None:
    names = {str(p.relative_to(REPOSITORY / "configs")) for p in RECIPES}
    demo = {f"demo/{name}.yaml" for name in ("i3d_dnl", "slow_dnl", "slow_none", "slowfast_dnl")}
    k400 = {
        f"kinetics400/{backbone}_r50_8x8_{context}.yaml"
        for backbone in ("slow", "i3d", "slowfast")
        for context in ("none", "nl", "dnl")
    }
    assert names == demo | k400


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_are_complete(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    assert keys(recipe) == keys(resolved_config(TrainConfig()))
    first = text.splitlines()[0]
    assert f"train --config {path.relative_to(REPOSITORY)}" in first, "the first comment is the command that runs it"
    assert resolved_config(load(path)) == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_build(path: Path) -> None:
    config = load(path)
    with torch.device("meta"):
        model = build_model(config.model)
    crop, frames = config.augment.crop_size, config.preprocessing.num_frames
    assert model(torch.empty(2, 3, frames, crop, crop, device="meta")).shape == (2, config.model.num_classes)
    blocks = [name for name, _ in model.named_modules() if name.split(".")[-2:-1] == ["context_blocks"]]
    assert len(blocks) == (0 if config.model.context == "none" else 5)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_take_a_step_at_a_reduced_size(path: Path) -> None:
    config = load(path)
    config.model = dataclasses.replace(config.model, stem_channels=8)
    torch.manual_seed(0)
    module = VideoTrainingModule(config, [str(i) for i in range(config.model.num_classes)], {})
    clips = torch.randint(0, 256, (2, config.preprocessing.num_frames, 48, 48, 3), dtype=torch.uint8)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    loss = module.training_step({"clip": clips, "label": torch.tensor([0, 1]), "index": torch.arange(2)}, 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in module.network.parameters())
    # A validation step: the scores of a video are the mean of softmax over its views.
    trainer = FakeTrainer()
    module.trainer = trainer  # type: ignore[assignment]
    module.eval()
    views = clips[:, :, :48, :48]
    nowhere = np.zeros(1)
    with torch.no_grad():
        module.validation_step(
            [VideoViews(0, views, nowhere, nowhere, None), VideoViews(1, None, nowhere, nowhere, "x")], 0
        )
        scores = module(views).softmax(dim=1).mean(dim=0)
    assert module.val_failed == 1
    assert module.val_top1.compute() == float(scores.argmax() == 1)
    assert module.val_loss.compute() == pytest.approx(-scores[1].log().item(), rel=1e-4)


@pytest.mark.parametrize("backbone", ["slow", "i3d", "slowfast"])
def test_within_a_backbone_only_the_context_differs(backbone: str) -> None:
    folder = REPOSITORY / "configs" / "kinetics400"
    plain = []
    for context in ("none", "nl", "dnl"):
        recipe = yaml.safe_load((folder / f"{backbone}_r50_8x8_{context}.yaml").read_text(encoding="utf-8"))
        assert recipe["model"].pop("context") == context
        assert recipe.pop("output_dir") == f"runs/kinetics400/{backbone}_r50_8x8_{context}"
        plain.append(recipe)
    assert plain[0] == plain[1] == plain[2]


def test_kinetics_recipes_follow_the_published_schedule() -> None:
    config = load(REPOSITORY / "configs" / "kinetics400" / "slow_r50_8x8_dnl.yaml")
    assert (config.preprocessing.num_frames, config.preprocessing.frame_stride) == (8, 8)
    optim, augment = config.optim, config.augment
    assert (optim.lr, optim.lr_batch, optim.momentum, optim.weight_decay) == (0.1, 64, 0.9, 1e-4)
    assert (optim.warmup_epochs, optim.warmup_start_lr, config.trainer.max_epochs) == (34, 0.01, 196)
    assert (optim.norm_weight_decay, optim.precise_bn_batches, config.model.dropout) == (0, 200, 0.5)
    assert (augment.short_side, augment.crop_size, augment.flip) == ((256, 320), 224, 0.5)
    assert (config.evaluation.num_clips, config.evaluation.num_crops, config.preprocessing.crop_size) == (10, 3, 256)
    slowfast = load(REPOSITORY / "configs" / "kinetics400" / "slowfast_r50_8x8_dnl.yaml").preprocessing
    assert (slowfast.num_frames, slowfast.frame_stride) == (32, 2)


@pytest.mark.parametrize("name", ["slow_none", "slow_dnl", "slowfast_dnl"])
def test_demo_recipes_train_and_validate(name: str, tiny: TinyRun, tmp_path: Path) -> None:
    config = load(REPOSITORY / "configs" / "demo" / f"{name}.yaml")
    assert config.augment.flip == 0.0, "a mirrored video shows another class"
    config.output_dir = str(tmp_path)
    config.data = DataConfig(str(tiny.train), str(tiny.val), batch_size=8, num_workers=0)
    config.optim.precise_bn_batches, config.optim.warmup_epochs = 1, 0.5
    config.trainer = dataclasses.replace(
        config.trainer, max_epochs=1, check_val_every_n_epoch=1, accelerator="cpu", progress_bar=False
    )
    result = train(config)
    assert result.best_checkpoint.is_file()
    assert 0 <= result.best_top1 <= 1
