"""The training module with several processes: gradients of all parameters, and conversion to SyncBatchNorm.

DDP raises an error for a parameter without a gradient. SyncBatchNorm runs on GPUs only; its conversion runs anywhere.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

from dnl_video.config import OptimConfig, TrainConfig
from dnl_video.spec import Architecture, Context, ContextOptions, ModelSpec
from dnl_video.training.callbacks import PreciseBatchNorm
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.optim import parameter_groups


def module_of(spec: ModelSpec, optim: OptimConfig) -> VideoTrainingModule:
    return VideoTrainingModule(TrainConfig(model=spec, optim=optim), ["a", "b", "c"])


def plain_and_converted(optim: OptimConfig) -> tuple[VideoTrainingModule, VideoTrainingModule]:
    spec = ModelSpec("slow_r50", "dnl", 3, stem_channels=8)
    plain = module_of(spec, optim)
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
    for module in (plain, converted):
        callback = PreciseBatchNorm(2)
        callback.on_validation_start(trainer, module)
        callback.on_validation_epoch_start(trainer, module)
    before, after = plain.state_dict(), converted.state_dict()
    moved = {
        name for name in after if "running_var" in name and not torch.equal(after[name], torch.ones_like(after[name]))
    }
    assert len(moved) == 5, "those of the blocks; the backbone is frozen"
    assert all(torch.equal(after[name], before[name]) for name in after)


def without_gradient(spec: ModelSpec, optim: OptimConfig) -> tuple[set[str], int]:
    """Return the trained parameters without a gradient after a step, and the number of trained parameters."""
    module = module_of(spec, optim).train()
    module.network(torch.rand(2, 3, 8, 32, 32)).sum().backward()
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return {name for name, p in trained.items() if p.grad is None}, len(trained)


@pytest.mark.parametrize("frozen", [0, 2])
@pytest.mark.parametrize("context", get_args(Context))
def test_every_context_uses_all_parameters(context: Context, frozen: int) -> None:
    spec = ModelSpec("slow_r50", context, 3, stem_channels=8)
    unused, trained = without_gradient(spec, OptimConfig(frozen_stages=frozen))
    assert unused == set()
    assert trained > 100


@pytest.mark.parametrize("architecture", ["i3d_r50", "slowfast_r50", "c2d_r50"])
def test_every_backbone_uses_all_parameters(architecture: Architecture) -> None:
    spec = ModelSpec(architecture, "dnl", 3, stem_channels=16)
    assert without_gradient(spec, OptimConfig(frozen_stages=2, freeze_batch_norm=True))[0] == set()


@pytest.mark.parametrize(
    ("context", "options"),
    [
        ("dnl", {"output": "gamma", "bias": True, "learned_temperature": True}),
        ("dnl", {"output": "conv", "pool": None, "checkpoint": True}),
        ("nl", {"attention": "gaussian"}),
        ("nl", {"attention": "dot_product"}),
        ("nl", {"attention": "concatenation"}),
        ("pairwise", {"learned_temperature": True, "whiten_over": "frame"}),
    ],
)
def test_every_option_uses_all_parameters(context: Context, options: dict[str, Any]) -> None:
    spec = ModelSpec("slow_r50", context, 3, stem_channels=8)
    spec = dataclasses.replace(spec, context_options=ContextOptions(**options))
    assert without_gradient(spec, OptimConfig())[0] == set()
