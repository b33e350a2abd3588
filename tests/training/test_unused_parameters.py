"""Every trained parameter gets a gradient; DDP raises an error otherwise."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
import torch

from dnl_video.config import OptimConfig, TrainConfig
from dnl_video.spec import Architecture, Context, ContextOptions, ModelSpec
from dnl_video.training.module import VideoTrainingModule


def without_gradient(spec: ModelSpec, optim: OptimConfig) -> tuple[set[str], int]:
    """Return the trained parameters without a gradient after a step, and the number of trained parameters."""
    module = VideoTrainingModule(TrainConfig(model=spec, optim=optim), ["a", "b", "c"]).train()
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
    spec = dataclasses.replace(spec, context_options=dataclasses.replace(ContextOptions(), **options))
    assert without_gradient(spec, OptimConfig())[0] == set()
