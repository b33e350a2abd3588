"""Parts of a network that keep what they know: frozen stages, frozen batch norms."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from dnl_video.config import OptimConfig
from dnl_video.models.backbones import VideoClassifier, stages_from_input


def freeze(network: VideoClassifier, config: OptimConfig) -> None:
    """Take frozen parts out of training: no gradients, no weight decay, no new statistics.

    Call it once before the optimiser is made, and `hold` after every switch to training mode.
    """
    for module in _frozen(network, config):
        module.requires_grad_(False)
    hold(network, config)


def hold(network: VideoClassifier, config: OptimConfig) -> None:
    """Put frozen parts back into evaluation mode, in which batch norms keep their statistics."""
    for module in _frozen(network, config):
        module.eval()


def _frozen(network: VideoClassifier, config: OptimConfig) -> Iterator[nn.Module]:
    yield from stages_from_input(network)[: config.frozen_stages]
    if config.freeze_batch_norm:
        for name, module in network.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and "context_blocks." not in name:
                yield module
