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
from dnl_video.errors import InputError

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


def parameter_groups(model: nn.Module, config: OptimConfig, lr: float) -> list[dict[str, Any]]:
    """Split the trainable parameters into groups of equal weight decay and learning rate.

    Args:
        model: The network.
        config: Rules; the first that fits a parameter holds: normalisation layers, queries and keys, biases, others.
        lr: Peak learning rate; context blocks have it times ``context_lr_factor``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, module in model.named_modules():
        rate = lr * (config.context_lr_factor if "context_blocks." in name else 1.0)
        for kind, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                groups.setdefault((_decay(name, kind, module, config), rate), []).append(parameter)
    return [{"params": found, "weight_decay": decay, "lr": rate} for (decay, rate), found in groups.items()]


def _decay(name: str, kind: str, module: nn.Module, config: OptimConfig) -> float:
    if isinstance(module, _NORMS):
        return config.norm_weight_decay
    rules = (
        (name.endswith((".query", ".key")) and "context_blocks." in name, config.query_key_weight_decay),
        (kind == "bias", config.bias_weight_decay),
    )
    for holds, decay in rules:
        if holds and decay is not None:
            return decay
    return config.weight_decay


def make_optimizer(model: nn.Module, config: OptimConfig, lr: float) -> torch.optim.Optimizer:
    """Build the optimiser with peak learning rate ``lr``.

    Raises:
        InputError: Nothing is left to train.
    """
    groups = parameter_groups(model, config, lr)
    if not groups:
        raise InputError("optim.frozen_stages and freeze_batch_norm leave no parameter to train; freeze less")
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.momentum > 0)
