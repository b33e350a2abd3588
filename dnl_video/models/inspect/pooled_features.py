"""Pooled features: what the final projection sees."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dnl_video.models.backbones import VideoClassifier


def pooled_features(network: VideoClassifier, clips: Tensor) -> Tensor:
    """Return the input of the final projection, averaged over its positions.

    The projection is linear, so with the heads ``global`` and ``dense_logits`` the logits are these features times its
    weight plus its bias. SlowFast's are those of the slow pathway, then the fast one's.

    Args:
        network: The network, in evaluation mode (in training mode its dropout comes first).
        clips: [B, 3, T, H, W].

    Returns:
        [B, C], float32.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append(arguments[0])

    projection = cast(nn.Module, network.blocks[-1].proj)
    hook = projection.register_forward_pre_hook(keep)
    try:
        network(clips)
    finally:
        hook.remove()
    return seen[0].to(torch.float32).mean(dim=(1, 2, 3))  # channels come last: [B, T', H', W', C]
