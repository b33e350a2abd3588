"""Frozen parts keep their weights and statistics through a training step and a switch of modes."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from dnl_video.config import OptimConfig, TrainConfig
from dnl_video.errors import InputError
from dnl_video.spec import Architecture, ModelSpec
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.optim import make_optimizer


def module(architecture: Architecture, optim: OptimConfig) -> VideoTrainingModule:
    spec = ModelSpec(architecture, "dnl", 3, stem_channels=8, dropout=0.0, zero_init_residual=False)
    spec = dataclasses.replace(spec, context_options=dataclasses.replace(spec.context_options, zero_init=False))
    torch.manual_seed(0)
    return VideoTrainingModule(TrainConfig(model=spec, optim=optim), ["a", "b", "c"])


def changed(trained: VideoTrainingModule) -> set[str]:
    """Return the names of the tensors that one training step changes."""
    before = copy.deepcopy(trained.network.state_dict())
    optimizer = make_optimizer(trained.network, trained.config.optim, 0.1)
    trained.eval()
    trained.train()
    loss = trained.network(torch.randn(2, 3, 8, 64, 64)).square().sum()
    loss.backward()
    optimizer.step()
    return {name for name, value in trained.network.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("architecture", "stages", "prefixes"),
    [
        ("slow_r50", 1, ("blocks.0.",)),
        ("slow_r50", 3, ("blocks.0.", "blocks.1.", "blocks.2.")),
        # I3D's blocks.2 is a pool.
        ("i3d_r50", 3, ("blocks.0.", "blocks.1.", "blocks.3.")),
        ("slowfast_r50", 2, ("blocks.0.", "blocks.1.")),
        ("slow_r50", 5, ("blocks.0.", "blocks.1.", "blocks.2.", "blocks.3.", "blocks.4.")),
    ],
)
def test_frozen_stages(architecture: Architecture, stages: int, prefixes: tuple[str, ...]) -> None:
    trained = module(architecture, OptimConfig(frozen_stages=stages))
    learned = changed(trained)
    everything = set(trained.network.state_dict())
    frozen = {name for name in everything if name.startswith(prefixes)}
    assert frozen
    assert not learned & frozen
    # All other batch-norm counters change.
    assert {name for name in everything - frozen if name.endswith("num_batches_tracked")} <= learned
    assert learned


def test_only_batch_norms_of_the_backbone_are_frozen() -> None:
    trained = module("slow_r50", OptimConfig(freeze_batch_norm=True))
    learned = changed(trained)
    norms = {name for name in trained.network.state_dict() if "norm" in name}
    ours = {name for name in norms if "context_blocks" in name}
    assert not learned & (norms - ours)
    assert {name for name in ours if name.endswith(("running_mean", "num_batches_tracked"))} <= learned
    assert "blocks.1.res_blocks.0.branch2.conv_a.weight" in learned


def test_nothing_is_frozen_by_default() -> None:
    trained = module("slow_r50", OptimConfig())
    assert all(p.requires_grad for p in trained.parameters())
    assert all(m.training for m in trained.train().modules())


def test_frozen_stages_out_of_range() -> None:
    with pytest.raises(InputError, match=r"optim.frozen_stages is 6; give a number in \[0, 5\]"):
        OptimConfig(frozen_stages=6)
