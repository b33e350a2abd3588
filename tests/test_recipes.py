"""Every recipe in configs/ is complete, typed and consistent, and trains."""

from __future__ import annotations

import copy
import dataclasses
import re
import shlex
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml

from dnl_video.cli.main import command_module, make_parser
from dnl_video.cli.train import build_config
from dnl_video.config import DataConfig, TrainConfig
from dnl_video.data.dataset import VideoViews
from dnl_video.data.manifest import VideoRecord
from dnl_video.models.build import build_model
from dnl_video.spec import Context, ModelSpec, flat, to_dict
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.optim import lr_factor, scaled_lr
from dnl_video.training.run import train
from dnl_video.training.trainer import validation_interval
from tests.conftest import REPOSITORY

RECIPES = sorted((REPOSITORY / "configs").rglob("*.yaml"))
KINETICS = REPOSITORY / "configs" / "kinetics400"
# Start -> backbone -> recipe.
STARTS = {
    start: {backbone: f"{backbone}_8x8_dnl{suffix}" for backbone in backbones}
    for start, suffix, backbones in (
        ("scratch", "", ("slow_r50", "i3d_r50", "slowfast_r50")),
        ("imagenet", "_imagenet", ("slow_r50", "i3d_r50", "slow_r101")),
        ("kinetics400", "_kinetics400", ("slow_r50", "i3d_r50", "slowfast_r50")),
    )
}
_SCHEDULE = {"weights.source", "model.zero_init_residual", "trainer.max_epochs"}
_SCHEDULE |= {"optim.lr", "optim.warmup_epochs", "optim.warmup_start_lr"}
# Keys in which a recipe may differ from the from-scratch recipe of its backbone.
STARTS_DIFFER_IN = {
    "kinetics400": _SCHEDULE,
    "imagenet": _SCHEDULE
    | {"optim.schedule", "optim.milestones", "trainer.check_val_every_n_epoch", "trainer.gradient_clip_val"}
    | {"preprocessing.mean", "preprocessing.std"},
}


class FakeTrainer:
    """A trainer with the two validation records, both of class 1, that a validation step reads."""

    def __init__(self) -> None:
        record = VideoRecord("v", "v.mp4", 1, "one")
        self.datamodule = SimpleNamespace(val=SimpleNamespace(records=(record, record)))


def load(path: Path, *overrides: str) -> TrainConfig:
    """Parse a recipe with overrides as the command line does."""
    return copy.deepcopy(_parsed(path, *overrides))


@cache
def _parsed(path: Path, *overrides: str) -> TrainConfig:
    arguments = make_parser("train", command_module("train")).parse_args(["--config", str(path), *overrides])
    return build_config(arguments, TrainConfig)


@cache
def settings(name: str) -> dict[str, Any]:
    """Return every parsed field of a Kinetics recipe."""
    values = flat(to_dict(load(KINETICS / f"{name}.yaml")))
    return {key: value for key, value in values.items() if not isinstance(value, dict)}


def differing(one: str, other: str) -> set[str]:
    a, b = settings(one), settings(other)
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


@cache
def build_on_meta(spec: ModelSpec, frames: int) -> tuple[torch.Size, int]:
    """Return the shape of the logits of two clips, and the number of blocks, without computing anything."""
    with torch.device("meta"):
        model = build_model(spec)
    blocks = [name for name, _ in model.named_modules() if name.split(".")[-2:-1] == ["context_blocks"]]
    return model(torch.empty(2, 3, frames, 224, 224, device="meta")).shape, len(blocks)


def check_network(config: TrainConfig) -> None:
    # The meta device computes no initial values, so networks that differ only in these are built once.
    spec = dataclasses.replace(config.model, zero_init_residual=True)
    if spec.num_classes == "auto":
        spec = dataclasses.replace(spec, num_classes=12)
    shape, blocks = build_on_meta(spec, config.preprocessing.num_frames)
    assert shape == (2, spec.num_classes)
    assert blocks == (0 if spec.context == "none" else 5)


def test_one_recipe_per_backbone_and_start():
    names = {str(p.relative_to(REPOSITORY / "configs")) for p in RECIPES}
    demo = {f"demo/{name}.yaml" for name in ("i3d_dnl", "slow_dnl", "slowfast_dnl")}
    own = {"finetune/finetune.yaml", "finetune/finetune_small.yaml"}
    kinetics = {f"kinetics400/{name}.yaml" for backbones in STARTS.values() for name in backbones.values()}
    assert names == demo | kinetics | own
    assert all(load(path).model.context == "dnl" for path in RECIPES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_are_complete(path):
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert flat(recipe).keys() == flat(to_dict(TrainConfig())).keys()
    config = load(path)
    assert to_dict(config) == recipe
    assert config.output_dir == f"runs/{path.relative_to(REPOSITORY / 'configs').with_suffix('')}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_comments_start_with_a_description_and_the_command(path):
    description, command = path.read_text(encoding="utf-8").splitlines()[:2]
    assert re.fullmatch("# [A-Z].{50,100}\\.", description)
    mark, *words = shlex.split(command)
    assert mark == "#"
    here = words.index("train")
    own = ["--data.train_manifest", "mine.train.csv", "--data.val_manifest", "mine.val.csv"]
    more = own if path.parent.name == "finetune" else []
    assert words[here:] == ["train", "--config", path.stem, *more, "--final-test"]
    if path.parent == KINETICS:
        config = load(path)
        assert words[:here] == ["torchrun", "--nproc_per_node", "8", "-m", "dnl_video"]
        assert 8 * config.data.batch_size == config.optim.lr_batch, "on 8 GPUs the learning rate is the published one"
    else:
        assert words[:here] == ["dnl-video"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_build(path):
    check_network(load(path))


@pytest.mark.parametrize("context", get_args(Context))
@pytest.mark.parametrize(
    "name", ["slow_r50_8x8_dnl", "i3d_r50_8x8_dnl_imagenet", "slow_r101_8x8_dnl_imagenet", "slowfast_r50_8x8_dnl"]
)
def test_every_context_is_an_override(name, context):
    """One recipe per backbone; a test below checks that the others have the same network."""
    config = load(KINETICS / f"{name}.yaml", "--model.context", context)
    assert config.model.context == context
    check_network(config)


def reduced(path: Path) -> TrainConfig:
    """Return the recipe with an eighth of the channels."""
    config = load(path)
    config.model = dataclasses.replace(config.model, stem_channels=8)
    if config.model.num_classes == "auto":
        config.model = dataclasses.replace(config.model, num_classes=12)
    return config


def one_of_each_network() -> list[Path]:
    models = {path: yaml.safe_load(path.read_text(encoding="utf-8"))["model"] for path in reversed(RECIPES)}
    return list({(model["architecture"], model["context"]): path for path, model in models.items()}.values())


@pytest.mark.parametrize("path", one_of_each_network(), ids=lambda p: p.stem)
def test_recipes_train_one_step_at_reduced_size(path):
    config = reduced(path)
    torch.manual_seed(0)
    module = VideoTrainingModule(config, [str(i) for i in range(config.model.num_classes)])
    clips = torch.randint(0, 256, (2, config.preprocessing.num_frames, 48, 48, 3), dtype=torch.uint8)
    module.log = lambda *args, **kwargs: None
    loss = module.training_step({"clip": clips, "label": torch.tensor([0, 1]), "index": torch.arange(2)}, 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in module.network.parameters())
    # A validation step: the scores of a video are the mean of softmax over its views.
    trainer = FakeTrainer()
    module.trainer = trainer
    module.eval()
    views = clips[:, :, :48, :48]
    nowhere = np.zeros(1)
    with torch.no_grad():
        module.validation_step(
            [VideoViews(0, views, nowhere, nowhere, None), VideoViews(1, None, nowhere, nowhere, "x")], 0
        )
        scores = module(views).softmax(dim=1).mean(dim=0)
    assert module.val_top1.compute() == float(scores.argmax() == 1)
    assert module.val_loss.compute() == pytest.approx(-scores[1].log().item(), rel=1e-4)


def test_starts_of_a_backbone_differ_only_in_training():
    for start, allowed in STARTS_DIFFER_IN.items():
        for backbone, name in STARTS[start].items():
            found = differing(STARTS["scratch"].get(backbone, "slow_r50_8x8_dnl"), name)
            assert found - {"output_dir", "model.architecture"} <= allowed
            assert ("model.architecture" in found) == (backbone == "slow_r101")


def test_backbones_of_a_start_differ_only_in_these_keys():
    clips = {"preprocessing.num_frames", "preprocessing.frame_stride"}
    # Slow and I3D have different published schedules from ImageNet.
    schedules = {"optim.milestones", "optim.warmup_epochs", "optim.warmup_start_lr"}
    schedules |= {"trainer.max_epochs", "trainer.check_val_every_n_epoch", "trainer.gradient_clip_val"}
    allowed = {"scratch": clips, "kinetics400": clips, "imagenet": schedules}
    for start, backbones in STARTS.items():
        first, *others = backbones.values()
        for name in others:
            assert differing(first, name) <= allowed[start] | {"model.architecture", "output_dir"}
    assert differing("slow_r50_8x8_dnl_imagenet", "slow_r101_8x8_dnl_imagenet") == {"model.architecture", "output_dir"}


def test_kinetics_recipes_follow_the_published_schedule():
    config = load(KINETICS / "slow_r50_8x8_dnl.yaml")
    assert (config.preprocessing.num_frames, config.preprocessing.frame_stride) == (8, 8)
    optim, augment = config.optim, config.augment
    assert (optim.lr, optim.lr_batch, optim.momentum, optim.weight_decay) == (0.1, 64, 0.9, 1e-4)
    assert (optim.warmup_epochs, optim.warmup_start_lr, config.trainer.max_epochs) == (34, 0.01, 196)
    assert (optim.norm_weight_decay, optim.precise_bn_batches, config.model.dropout) == (0, 200, 0.5)
    assert (augment.short_side, augment.crop_size, augment.flip) == ((256, 320), 224, 0.5)
    assert (config.evaluation.num_clips, config.evaluation.num_crops, config.preprocessing.crop_size) == (10, 3, 256)
    slowfast = load(KINETICS / "slowfast_r50_8x8_dnl.yaml").preprocessing
    assert (slowfast.num_frames, slowfast.frame_stride) == (32, 2)


@pytest.mark.parametrize(
    ("name", "epoch", "rate"),
    [
        # mmaction2: LinearLR of factor 0.1 for 10 epochs, MultiStepLR at 90 and 130; bare: 0.02 for 128 clips.
        ("slow_r50_8x8_dnl_imagenet", 0, 0.001),
        ("slow_r50_8x8_dnl_imagenet", 5, 0.0055),
        ("slow_r50_8x8_dnl_imagenet", 10, 0.01),
        ("slow_r50_8x8_dnl_imagenet", 89.9, 0.01),
        ("slow_r50_8x8_dnl_imagenet", 90, 0.001),
        ("slow_r101_8x8_dnl_imagenet", 149, 0.0001),
        # PySlowFast: STEPS [0, 44, 88, 118], LRS [1, 0.1, 0.01, 0.001] of 0.01, no warm-up.
        ("i3d_r50_8x8_dnl_imagenet", 0, 0.01),
        ("i3d_r50_8x8_dnl_imagenet", 43.9, 0.01),
        ("i3d_r50_8x8_dnl_imagenet", 44, 0.001),
        ("i3d_r50_8x8_dnl_imagenet", 117, 0.0001),
        # Ours.
        ("slowfast_r50_8x8_dnl_kinetics400", 0, 0.001),
        ("slowfast_r50_8x8_dnl_kinetics400", 20, 0.005),
        ("slowfast_r50_8x8_dnl_kinetics400", 40, 0.0),
    ],
)
def test_learning_rate_of_64_clips_at_an_epoch(name, epoch, rate):
    config = load(KINETICS / f"{name}.yaml")
    peak = scaled_lr(config.optim, 64)
    assert peak * lr_factor(epoch, config.optim, config.trainer.max_epochs) == pytest.approx(rate, abs=1e-12)
    assert validation_interval(config.trainer.check_val_every_n_epoch, config.trainer.max_epochs) == (
        config.trainer.check_val_every_n_epoch
    )


@pytest.mark.parametrize(("name", "context"), [("slow_dnl", "none"), ("slow_dnl", "dnl"), ("slowfast_dnl", "dnl")])
def test_demo_recipes_train_and_validate(name, context, tiny, tmp_path):
    config = load(REPOSITORY / "configs" / "demo" / f"{name}.yaml", "--model.context", context)
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
