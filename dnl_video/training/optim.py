"""Parameter groups and learning-rate schedules.

Conventions: PySlowFast (`slowfast/models/optimizer.py`, `slowfast/utils/lr_policy.py`): no weight decay on batch norm,
decay on biases; half-period cosine over fractional epochs with linear warm-up; Goyal et al. 2017 for the linear rule.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from dnl_video.config import OptimConfig

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def scaled_lr(config: OptimConfig, clips_per_step: int) -> float:
    """Return the peak learning rate for this many clips a step, by the linear rule."""
    return config.lr * (clips_per_step / config.lr_batch if config.lr_batch else 1.0)


def lr_factor(epoch: float, config: OptimConfig, max_epochs: float) -> float:
    """Return the learning rate at a fractional epoch, as a share of the peak rate.

    Warm-up climbs linearly from ``warmup_start_lr`` to the value the schedule has where warm-up ends.
    """
    if epoch < config.warmup_epochs:
        start = config.warmup_start_lr / config.lr
        end = _scheduled(config.warmup_epochs, config, max_epochs)
        return start + (end - start) * epoch / config.warmup_epochs
    return _scheduled(epoch, config, max_epochs)


def _scheduled(epoch: float, config: OptimConfig, max_epochs: float) -> float:
    if config.schedule == "step":
        return config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    return 0.5 * (1.0 + math.cos(math.pi * min(epoch / max_epochs, 1.0)))


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Split parameters into those of normalisation layers and all others, each with its weight decay."""
    norm: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            (norm if isinstance(module, _NORMS) else other).append(parameter)
    return [
        {"params": other, "weight_decay": config.weight_decay},
        {"params": norm, "weight_decay": config.norm_weight_decay},
    ]


def make_optimizer(model: nn.Module, config: OptimConfig, lr: float) -> torch.optim.Optimizer:
    """Build the optimiser with peak learning rate ``lr``."""
    groups = parameter_groups(model, config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.momentum > 0)
