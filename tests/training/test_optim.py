"""Learning-rate schedules, parameter groups and frozen parts."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from dnl_video.config import OptimConfig, TrainConfig
from dnl_video.errors import InputError
from dnl_video.models.create import create_model
from dnl_video.spec import Architecture, ModelSpec
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.optim import lr_factor, make_optimizer, parameter_groups, scaled_lr


def test_linear_rule() -> None:
    config = OptimConfig(lr=0.1, lr_batch=64)
    assert scaled_lr(config, 64) == pytest.approx(0.1)
    assert scaled_lr(config, 512) == pytest.approx(0.8)
    assert scaled_lr(OptimConfig(lr=0.1, lr_batch=None), 512) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("epoch", "lr"),
    [
        # PySlowFast, SLOWFAST_8x8_R50: base 0.1, cosine over 196 epochs, warm-up 34 epochs from 0.01.
        (0, 0.01),
        (34, 0.1 * 0.5 * (1 + math.cos(math.pi * 34 / 196))),
        (17, (0.01 + 0.1 * 0.5 * (1 + math.cos(math.pi * 34 / 196))) / 2),
        (98, 0.05),
        (196, 0.0),
        (200, 0.0),  # rounding of steps may lead past the end
    ],
)
def test_cosine_with_warmup(epoch: float, lr: float) -> None:
    config = OptimConfig(lr=0.1, warmup_epochs=34, warmup_start_lr=0.01)
    assert 0.1 * lr_factor(epoch, config, 196) == pytest.approx(lr)


def test_step_schedule() -> None:
    config = OptimConfig(lr=0.01, schedule="step", milestones=(44, 88), gamma=0.1, warmup_epochs=0)
    assert [lr_factor(e, config, 118) for e in (0, 43.99, 44, 87.99, 88, 118)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def grouped(model: nn.Module, config: OptimConfig, lr: float = 0.1) -> dict[str, tuple[float, float]]:
    """Return weight decay and learning rate of every parameter by name; each parameter is in one group."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for group in parameter_groups(model, config, lr):
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = (group["weight_decay"], group["lr"])
    return found


def test_weight_decay_of_norms_and_biases() -> None:
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
    # Biases of convolutions and linear layers have weight decay, as in PySlowFast.
    others = dict.fromkeys(["0.weight", "0.bias", "2.0.weight", "2.0.bias"], (1e-4, 0.1))
    norms = dict.fromkeys(["1.weight", "1.bias", "2.1.weight", "2.1.bias"], (0.0, 0.1))
    assert grouped(model, OptimConfig(weight_decay=1e-4)) == others | norms
    biases = dict.fromkeys(["0.bias", "2.0.bias"], (0.0, 0.1))
    assert grouped(model, OptimConfig(weight_decay=1e-4, bias_weight_decay=0.0)) == others | norms | biases


def test_weight_decay_of_queries_and_keys_and_learning_rate_of_context_blocks() -> None:
    model = create_model("slow_r50", context="nl", stem_channels=8, num_classes=3)
    model.blocks[0].requires_grad_(False)
    config = OptimConfig(
        weight_decay=1e-4, query_key_weight_decay=0.0, bias_weight_decay=1e-5, context_lr_factor=10.0, lr=0.1
    )
    found = grouped(model, config, 0.1)
    block = "blocks.2.context_blocks.1."
    assert found[block + "query.weight"] == found[block + "key.bias"] == (0.0, 1.0)
    assert found[block + "value.weight"] == (1e-4, 1.0)
    assert found[block + "value.bias"] == (1e-5, 1.0)
    assert found[block + "norm.weight"] == (0.0, 1.0)
    assert found["blocks.2.res_blocks.1.branch2.conv_a.weight"] == (1e-4, 0.1)
    assert found["blocks.5.proj.bias"] == (1e-5, 0.1)
    assert set(found) == {name for name, p in model.named_parameters() if not name.startswith("blocks.0.")}


def test_all_parameters_frozen() -> None:
    with pytest.raises(InputError, match="leave no parameter to train; freeze less"):
        make_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimConfig(), 0.1)


def test_optimizers() -> None:
    model = nn.Linear(2, 2)
    sgd = make_optimizer(model, OptimConfig(momentum=0.9), 0.3)
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.3, 0.9, True)
    assert make_optimizer(model, OptimConfig(momentum=0.0), 0.3).defaults["nesterov"] is False
    adamw = make_optimizer(nn.Sequential(model, nn.BatchNorm1d(2)), OptimConfig(optimizer="adamw"), 0.3)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [(group["weight_decay"], group["lr"]) for group in adamw.param_groups] == [(1e-4, 0.3), (0.0, 0.3)]


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
    with pytest.raises(InputError, match=r"optim.frozen_stages is 6; give a whole number in \[0, 5\]"):
        OptimConfig(frozen_stages=6)
