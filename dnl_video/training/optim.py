"""Frozen parts, parameter groups and learning-rate schedules.

Conventions of PySlowFast (`slowfast/models/optimizer.py`, `slowfast/utils/lr_policy.py`): weight decay on biases, none
on batch norm; half-period cosine over fractional epochs with linear warm-up. Linear rule of Goyal et al. 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dnl_video.config import OptimConfig
from dnl_video.errors import InputError
from dnl_video.models.backbones import VideoClassifier, stages_from_input

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def freeze(network: VideoClassifier, config: OptimConfig) -> None:
    """Freeze stages and batch norms: no gradients, no weight decay, no new statistics.

    Call it once before the optimiser is made, and `set_frozen_to_eval` after every switch to training mode.
    """
    for module in _frozen(network, config):
        module.requires_grad_(False)
    set_frozen_to_eval(network, config)


def set_frozen_to_eval(network: VideoClassifier, config: OptimConfig) -> None:
    """Set frozen parts to evaluation mode, so that batch norms keep their statistics."""
    for module in _frozen(network, config):
        module.eval()


def _frozen(network: VideoClassifier, config: OptimConfig) -> Iterator[nn.Module]:
    yield from stages_from_input(network)[: config.frozen_stages]
    if config.freeze_batch_norm:
        for name, module in network.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and "context_blocks." not in name:
                yield module


def scaled_lr(config: OptimConfig, clips_per_step: int) -> float:
    """Return the peak learning rate for this number of clips per step, by the linear rule."""
    return config.lr * (clips_per_step / config.lr_batch if config.lr_batch else 1.0)


def lr_factor(epoch: float, config: OptimConfig, max_epochs: float) -> float:
    """Return the learning rate at a fractional epoch, as a share of the peak rate.

    Warm-up rises linearly from ``warmup_start_lr`` to the value of the schedule at the end of the warm-up.
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
        config: Weight decays. The first match decides: normalisation layers, queries and keys, biases, others.
        lr: Peak learning rate; that of context blocks is multiplied by ``context_lr_factor``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, module in model.named_modules():
        rate = lr * (config.context_lr_factor if "context_blocks." in name else 1.0)
        for kind, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                groups.setdefault((_decay(name, kind, module, config), rate), []).append(parameter)
    return [{"params": found, "weight_decay": decay, "lr": rate} for (decay, rate), found in groups.items()]


def change_rates(optimizer: Any, schedule: Any, model: nn.Module, config: OptimConfig, lr: float) -> None:
    """Give a restored optimiser and its LambdaLR other rates and weight decays at the same place; its state stays.

    Args:
        optimizer: The optimiser, restored with the settings of its checkpoint.
        schedule: Its schedule, restored too.
        model: The network.
        config: The new settings.
        lr: The new peak learning rate.
    """
    factor, common = schedule.lr_lambdas[0](schedule.last_epoch), optimizer.param_groups[0]
    groups = parameter_groups(model, config, lr)
    optimizer.param_groups[:] = [{**common, **g, "initial_lr": g["lr"], "lr": g["lr"] * factor} for g in groups]
    schedule.base_lrs = [group["lr"] for group in groups]
    schedule.lr_lambdas = schedule.lr_lambdas[:1] * len(groups)


def _decay(name: str, kind: str, module: nn.Module, config: OptimConfig) -> float:
    if isinstance(module, _NORMS):
        return config.norm_weight_decay
    if "context_blocks." in name and name.endswith((".query", ".key")) and config.query_key_weight_decay is not None:
        return config.query_key_weight_decay
    if kind == "bias" and config.bias_weight_decay is not None:
        return config.bias_weight_decay
    return config.weight_decay


def make_optimizer(model: nn.Module, config: OptimConfig, lr: float) -> torch.optim.Optimizer:
    """Build the optimiser with peak learning rate ``lr``.

    Raises:
        InputError: All parameters are frozen.
    """
    groups = parameter_groups(model, config, lr)
    if not groups:
        raise InputError("optim.frozen_stages and freeze_batch_norm leave no parameter to train; freeze less")
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.momentum > 0)
