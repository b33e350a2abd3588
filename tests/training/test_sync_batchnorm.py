"""Conversion to torch's SyncBatchNorm (which runs on GPUs only) keeps every layer and its rules."""

from __future__ import annotations

import contextlib
import copy
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

from dnl_video.config import OptimConfig, TrainConfig
from dnl_video.spec import ModelSpec
from dnl_video.training.callbacks import PreciseBatchNorm
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.optim import parameter_groups


def plain_and_converted(optim: OptimConfig) -> tuple[VideoTrainingModule, VideoTrainingModule]:
    spec = ModelSpec("slow_r50", "dnl", 3, stem_channels=8)
    plain = VideoTrainingModule(TrainConfig(model=spec, optim=optim), ["a", "b", "c"])
    # Like the trainer: after freezing and before the optimiser is made.
    converted = TorchSyncBatchNorm().apply(copy.deepcopy(plain))
    return plain.train(), converted.train()


def norms(module: nn.Module, kind: type[nn.Module]) -> dict[str, nn.Module]:
    return {name: m for name, m in module.named_modules() if type(m) is kind}


def test_every_batch_norm_is_converted_and_keeps_its_name_and_rules() -> None:
    for optim in (OptimConfig(), OptimConfig(freeze_batch_norm=True), OptimConfig(frozen_stages=3)):
        plain, converted = plain_and_converted(optim)
        ours, theirs = norms(plain, nn.BatchNorm3d), norms(converted, nn.SyncBatchNorm)
        assert not norms(converted, nn.BatchNorm3d)
        assert ours.keys() == theirs.keys()
        assert sum("context_blocks" in name for name in theirs) == 5
        assert {name: m.training for name, m in ours.items()} == {name: m.training for name, m in theirs.items()}
        assert list(converted.state_dict()) == list(plain.state_dict())
        groups = [
            [(len(group["params"]), group["weight_decay"]) for group in parameter_groups(m.network, optim, 0.1)]
            for m in (plain, converted)
        ]
        assert groups[0] == groups[1]


def test_precise_batch_norm_updates_converted_layers() -> None:
    clips = {"clip": torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8), "failures": []}
    loader = SimpleNamespace(precise_bn_dataloader=lambda epoch: [clips, clips])
    trainer: Any = SimpleNamespace(
        sanity_checking=False,
        state=SimpleNamespace(fn="fit"),
        current_epoch=0,
        datamodule=loader,
        precision_plugin=SimpleNamespace(forward_context=contextlib.nullcontext),
    )
    plain, converted = plain_and_converted(OptimConfig(freeze_batch_norm=True))
    for module, callback in ((plain, PreciseBatchNorm(2)), (converted, PreciseBatchNorm(2))):
        callback.on_validation_start(trainer, module)
        callback.on_validation_epoch_start(trainer, module)
    before, after = plain.state_dict(), converted.state_dict()
    moved = {
        name for name in after if "running_var" in name and not torch.equal(after[name], torch.ones_like(after[name]))
    }
    assert len(moved) == 5, "those of the blocks; the backbone is frozen"
    assert all(torch.equal(after[name], before[name]) for name in after)
