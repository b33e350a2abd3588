"""How widely the attention of each context block is spread, and whether its queries attend to different keys.

Trained non-local networks often have one map for all queries (Cao et al. 2019, "GCNet", arXiv 1904.11492, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dnl_video.models.blocks import NonLocalBlock3d
from dnl_video.models.context_block import AttentionMaps
from dnl_video.models.inspect.geometry import placed_blocks

_MOST_QUERIES = 256  # the maps of all queries of a large clip have 10^8 weights
# An entropy of h is that of a uniform map over M^h keys: here 3 keys of 256, or 5 of 2048.
COLLAPSED_ENTROPY = 0.2
# Half of the queries have the same strongest key. Nearly uniform maps have one by chance.
_COLLAPSED_SHARE, _UNIFORM_ENTROPY = 0.5, 0.9


def map_health(maps: AttentionMaps) -> dict[str, float]:
    """Describe the maps of a block by numbers from 0 to 1, means over clips and queries.

    Args:
        maps: ``pairwise`` [B, Q, M] and ``unary`` [B, M].

    Returns:
        For each map that exists, ``pairwise_entropy`` and ``unary_entropy``: ``-sum_j w_j log w_j / log M`` (1 uniform,
        0 one key). For a pairwise map also ``same_key_share``: the share of queries with the most frequent strongest
        key of their clip.
    """
    named = {"pairwise_entropy": maps.pairwise, "unary_entropy": maps.unary}
    health = {name: _entropy(weights) for name, weights in named.items() if weights is not None}
    if maps.pairwise is not None:
        strongest = maps.pairwise.argmax(dim=-1)
        health["same_key_share"] = float((strongest == strongest.mode(dim=1, keepdim=True).values).float().mean())
    return health


def _entropy(weights: Tensor) -> float:
    keys = weights.shape[-1]
    return float(torch.special.entr(weights).sum(dim=-1).mean()) / math.log(keys) if keys > 1 else 1.0


def collapse_note(blocks: Mapping[str, Mapping[str, float]]) -> str:
    """Return a note about collapsed blocks (see the constants above) with their worst values; empty without them."""
    found = []
    for health in blocks.values():
        pairwise, share = health.get("pairwise_entropy", 1.0), health.get("same_key_share", 0.0)
        entropy = min(pairwise, health.get("unary_entropy", 1.0))
        if entropy < COLLAPSED_ENTROPY or (share >= _COLLAPSED_SHARE and pairwise < _UNIFORM_ENTROPY):
            found.append((entropy, share))
    if not found:
        return ""
    entropy, share = min(entropy for entropy, _ in found), max(share for _, share in found)
    queries = f", {share:.0%} of queries on one key" if share else ""
    return f"attention collapsed in {len(found)} of {len(blocks)} blocks: entropy {entropy:.2f}{queries}"


@torch.no_grad()
def attention_health(network: nn.Module, clips: Tensor) -> dict[str, dict[str, float]]:
    """Run a network in evaluation mode; return `map_health` of each block by its name.

    Blocks without a softmax are left out. For more than 256 queries, a fixed random choice stands for all.

    Args:
        network: A network that `create_model` built.
        clips: Normalised, [B, 3, T, H, W].
    """
    found: dict[str, dict[str, float]] = {}

    def look(name: str, block: Any, x: Tensor) -> None:
        queries = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(0))[:_MOST_QUERIES]
        found[name] = map_health(block.attention_maps(x, queries))

    hooks = [
        block.register_forward_pre_hook(lambda block, inputs, name=name: look(name, block, inputs[0]))
        for name, block, *_ in placed_blocks(network)
        if not isinstance(block, NonLocalBlock3d) or block.attention.endswith("gaussian")
    ]
    if hooks:
        network.forward(clips)  # compiled code, which network() may run, has no hooks
    for hook in hooks:
        hook.remove()
    return found
