from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dnl_video.config import OptimConfig
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


def test_steps() -> None:
    config = OptimConfig(lr=0.01, schedule="step", milestones=(44, 88), gamma=0.1, warmup_epochs=0)
    assert [lr_factor(e, config, 118) for e in (0, 43.99, 44, 87.99, 88, 118)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_every_parameter_is_in_one_group_and_norms_decay_apart() -> None:
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
    other, norm = parameter_groups(model, OptimConfig(weight_decay=1e-4, norm_weight_decay=0.0))
    # Biases of convolutions and linears keep their decay, as in PySlowFast.
    assert {id(p) for p in other["params"]} == {id(p) for m in (model[0], model[2][0]) for p in m.parameters()}
    assert {id(p) for p in norm["params"]} == {id(p) for m in (model[1], model[2][1]) for p in m.parameters()}
    assert (other["weight_decay"], norm["weight_decay"]) == (1e-4, 0.0)


def test_optimizers() -> None:
    model = nn.Linear(2, 2)
    sgd = make_optimizer(model, OptimConfig(momentum=0.9), 0.3)
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.3, 0.9, True)
    assert isinstance(make_optimizer(model, OptimConfig(optimizer="adamw"), 0.3), torch.optim.AdamW)
