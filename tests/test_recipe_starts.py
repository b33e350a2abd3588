"""Starting weights of the recipes, other class lists and two-stage training, with the code of a real run."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import pytorchvideo.models.hub as hub
import torch

import dnl_video
from dnl_video.cli.main import main
from dnl_video.config import TrainConfig
from dnl_video.models.weights.checkpoint import load_checkpoint
from dnl_video.models.weights.load import LoadReport
from dnl_video.models.weights.pretrained import SOURCES
from dnl_video.training import run as training_run
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.setup import start_from_weights
from tests.models.weights.test_imagenet import NarrowResNet
from tests.test_recipes import KINETICS, STARTS, reduced

STARTED = sorted({*STARTS["imagenet"].values(), *STARTS["kinetics400"].values()})
# Overrides that make a Kinetics recipe narrow, small and short, so that it takes seconds on a CPU.
SMALL = shlex.split(
    "--model.stem_channels 8 --preprocessing.short_side 48 --preprocessing.crop_size 48 --augment.crop_size 48 "
    '--augment.short_side "[48, 56]" --data.batch_size 4 --data.num_workers 0 --optim.precise_bn_batches 1 '
    "--optim.warmup_epochs 0.5 --trainer.max_epochs 1 --trainer.accelerator cpu --trainer.progress_bar false "
    "--data.train_root null --data.val_root null"
)


def published(architecture: str, source: str | None) -> dict[str, Any]:
    """Return the contents of the published file, an eighth as wide."""
    if source == "imagenet":
        return NarrowResNet(101 if architecture.endswith("r101") else 50).state_dict()
    slowfast = architecture.startswith("slowfast")
    width = {"stem_dim_outs": (8, 1)} if slowfast else {"stem_dim_out": 8}
    return {"model_state": getattr(hub, architecture)(pretrained=False, model_num_class=400, **width).state_dict()}


def started(config: TrainConfig) -> tuple[VideoTrainingModule, LoadReport]:
    module = VideoTrainingModule(config, [str(i) for i in range(config.model.num_classes)])
    report = start_from_weights(config, module)
    assert report is not None
    return module, report


@pytest.mark.parametrize("name", STARTED)
@torch.no_grad()
def test_published_weights_fill_the_network_of_each_recipe(name, tmp_path, monkeypatch):
    config = reduced(KINETICS / f"{name}.yaml")
    source, architecture = config.weights.source, config.model.architecture
    assert architecture in SOURCES[source], "these weights are published"
    torch.save(published(architecture, source), tmp_path / "published.pth")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setitem(SOURCES[source], architecture, (tmp_path / "published.pth").as_uri())
    module, report = started(config)
    assert not [note for note in report.notes if note.startswith("preprocessing.")], "clips are as the weights expect"
    new = {key.rpartition(".proj.")[2] for key in report.new if "context_blocks." not in key}
    assert new == ({"weight", "bias"} if source == "imagenet" else set()), "only ImageNet's classifier is not taken"
    assert bool(report.inflated) == (source == "imagenet")
    if source == "kinetics400":
        config.model = dataclasses.replace(config.model, context="none")
        bare, _ = started(config)
        clips = torch.randint(0, 256, (1, config.preprocessing.num_frames, 48, 48, 3), dtype=torch.uint8)
        assert torch.equal(module.eval()(clips), bare.eval()(clips)), "new blocks change nothing"


@pytest.mark.parametrize("classes", [600, 700])
def test_other_kinetics_are_overrides(classes, tiny, tmp_path, capsys):
    labels = Path(dnl_video.__file__).parent / "data" / "labels" / f"kinetics{classes}.txt"
    names = labels.read_text(encoding="utf-8").splitlines()
    videos = tiny.files("train")
    rows = [f"{video},{names[-(i % 2)]}" for i, video in enumerate(videos)]
    listing = tmp_path / "list.csv"
    listing.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    words = ["--data.class_list", f"kinetics{classes}", "--model.num_classes", str(classes)]
    words += ["--data.train_manifest", str(listing), "--data.val_manifest", str(listing)]
    assert main(["train", "--config", "slow_r50_8x8_dnl", *words, *SMALL, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert re.search(rf"^classes +{classes}$", printed, flags=re.MULTILINE)
    assert re.search(r"^training videos +16$", printed, flags=re.MULTILINE)


STAGES = (
    "train --config slow_r50_8x8_dnl --model.context none --output runs/stage_one",
    "train --config slow_r50_8x8_dnl_kinetics400 --weights.source runs/stage_one --output runs/stage_two",
)


def test_stage_two_starts_from_stage_one(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = [*SMALL, "--data.train_manifest", str(tiny.train), "--data.val_manifest", str(tiny.val)]
    small += ["--data.class_list", "null", "--model.num_classes", "8"]
    clips = torch.randint(0, 256, (2, 8, 48, 48, 3), dtype=torch.uint8)
    before_any_step: list[torch.Tensor] = []
    fit = training_run._fit

    def watched(trainer: Any, module: VideoTrainingModule, *args: Any) -> None:
        with torch.no_grad():
            before_any_step.append(module.eval()(clips))
        module.train()
        fit(trainer, module, *args)

    monkeypatch.setattr(training_run, "_fit", watched)
    for command in STAGES:
        capsys.readouterr()
        assert main([*command.split(), *small]) == 0
    assert re.search(r"^ +\d+ tensors new: .*block", capsys.readouterr().out, flags=re.MULTILINE)

    stage_one = load_checkpoint("runs/stage_one")
    config = reduced(KINETICS / "slow_r50_8x8_dnl.yaml")
    config.model = stage_one.spec
    module = VideoTrainingModule(config, stage_one.class_names)
    module.network.load_state_dict(stage_one.state_dict)
    with torch.no_grad():
        trained = module.eval()(clips)
    assert not torch.equal(before_any_step[0], trained), "stage one learned"
    assert torch.equal(before_any_step[1], trained), "stage two starts where it ended"

    stage_two = load_checkpoint("runs/stage_two")
    assert stage_two.spec.context == "dnl"
    ends = [value for key, value in stage_two.state_dict.items() if re.search(r"context_blocks\.\d\.norm\.weight", key)]
    assert len(ends) == 5
    assert all(value.abs().max() > 0 for value in ends), "new blocks learn"
