"""Learning-rate schedules and parameter groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dnl_video.config import OptimConfig
from dnl_video.errors import InputError
from dnl_video.models.create import create_model
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
    assert isinstance(make_optimizer(model, OptimConfig(optimizer="adamw"), 0.3), torch.optim.AdamW)
