"""How widely the attention of each context block is spread, and whether its queries attend to different keys.

Trained non-local networks often have the same map for every query (Cao et al. 2019, "GCNet", arXiv 1904.11492, section
3); a low softmax temperature gives maps with a single key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dnl_video.models.blocks import NonLocalBlock3d
from dnl_video.models.context_block import AttentionMaps
from dnl_video.models.inspect.geometry import placed_blocks

Health = dict[str, float]
# Queries of a clip whose maps are computed; all maps of a large clip have 10^8 weights.
_MOST_QUERIES = 1024
# An entropy of h is that of a uniform map over M^h keys: here 3 keys of 256, or 5 of 2048.
COLLAPSED_ENTROPY = 0.2
# Half of the queries have the same strongest key. Nearly uniform maps have one by chance.
COLLAPSED_SHARE, _UNIFORM_ENTROPY = 0.5, 0.9


def map_health(maps: AttentionMaps) -> Health:
    """Describe the maps of a block by numbers from 0 to 1, means over clips and queries.

    Args:
        maps: ``pairwise`` [B, Q, M] and ``unary`` [B, M].

    Returns:
        For each map that exists, ``pairwise_entropy`` and ``unary_entropy``: ``-sum_j w_j log w_j / log M`` (1 uniform,
        0 one key). For a pairwise map also ``same_key_share``: the share of queries with the most frequent strongest
        key of their clip.
    """
    health = {}
    if maps.pairwise is not None:
        strongest = maps.pairwise.argmax(dim=-1)
        health["pairwise_entropy"] = _entropy(maps.pairwise)
        health["same_key_share"] = float((strongest == strongest.mode(dim=1, keepdim=True).values).float().mean())
    if maps.unary is not None:
        health["unary_entropy"] = _entropy(maps.unary)
    return health


def _entropy(weights: Tensor) -> float:
    keys = weights.shape[-1]
    return float(torch.special.entr(weights).sum(dim=-1).mean()) / math.log(keys) if keys > 1 else 1.0


def is_collapsed(health: Mapping[str, float]) -> bool:
    """Return whether a map attends to few keys, or half of the queries or more to the same one."""
    pairwise, unary = (health.get(f"{term}_entropy", 1.0) for term in ("pairwise", "unary"))
    same_key = health.get("same_key_share", 0.0) >= COLLAPSED_SHARE and pairwise < _UNIFORM_ENTROPY
    return same_key or min(pairwise, unary) < COLLAPSED_ENTROPY


def collapse_note(blocks: Mapping[str, Health]) -> str:
    """Return a note about collapsed blocks with their worst values; empty if there are none."""
    collapsed = [health for health in blocks.values() if is_collapsed(health)]
    if not collapsed:
        return ""
    entropy = min(value for health in collapsed for name, value in health.items() if name.endswith("entropy"))
    share = max(health.get("same_key_share", 0.0) for health in collapsed)
    queries = f", {share:.0%} of queries on one key" if share else ""
    return f"attention collapsed in {len(collapsed)} of {len(blocks)} blocks: entropy {entropy:.2f}{queries}"


@torch.no_grad()
def attention_health(network: nn.Module, clips: Tensor) -> dict[str, Health]:
    """Return the health of each block by its name; run the network, which must be in evaluation mode.

    Blocks without a softmax are left out. For more than 1024 queries, a fixed random choice stands for all.

    Args:
        network: A network that `create_model` built.
        clips: Normalised, [B, 3, T, H, W].
    """
    found: dict[str, Health] = {}
    places = [
        (name, block)
        for name, block, *_ in placed_blocks(network)
        if not isinstance(block, NonLocalBlock3d) or block.attention.endswith("gaussian")
    ]

    def look(name: str, block: nn.Module, x: Tensor) -> None:
        queries = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(0))[:_MOST_QUERIES]
        found[name] = map_health(block.attention_maps(x, queries))  # type: ignore[operator]

    hooks = [
        block.register_forward_pre_hook(lambda block, inputs, name=name: look(name, block, inputs[0]))
        for name, block in places
    ]
    try:
        if places:
            network.forward(clips)  # compiled code, which network() may run, has no hooks
    finally:
        for hook in hooks:
            hook.remove()
    return found
