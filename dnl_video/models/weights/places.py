"""What a file of weights holds once its origin's names are translated into ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dnl_video.spec import Architecture, ModelSpec


@dataclass(frozen=True)
class TranslatedWeights:
    """Weights under this package's names, and what their origin says about the network they belong to.

    Attributes:
        origin: The project whose layout the file has, as a person would call it: ``PySlowFast``.
        state_dict: Tensors by the names of `VideoClassifier`. Convolutions of context blocks may keep their 1x1x1
            (``[D, C, 1, 1, 1]`` for ``[D, C]``), image networks their 2-D kernels: loading reshapes and inflates.
        source_names: For each name in ``state_dict`` the file's own name of that tensor.
        left: The file's names that have no place in a network of ours, with the reason: ``{"momentum": "optimiser"}``.
        spec: The network as far as the tensors and the origin's conventions tell, classes and head included; None for
            image networks, which fit any backbone.
        preprocessing: Fields of `Preprocessing` that the origin fixes: mean, std, channel_order, sampling. Numbers of
            frames are given only where the file states them.
        class_names: Names of the outputs, where the file has them.
        notes: Sentences for the person who loads it, for example that a permutation was applied.
    """

    origin: str
    state_dict: dict[str, Tensor]
    source_names: dict[str, str]
    left: dict[str, str] = field(default_factory=dict)
    spec: ModelSpec | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def block_prefixes(architecture: Architecture, pathway: int = 0) -> dict[str, str]:
    """Return where a network's parts lie in its state dict: ``stem``, ``res2`` ... ``res5`` and ``head``.

    Args:
        architecture: The network.
        pathway: SlowFast's pathway, 0 slow, 1 fast. For it there are also ``fuse1`` ... ``fuse4``: the lateral
            connections behind the stem, res2, res3 and res4.

    Returns:
        For example ``{"stem": "blocks.0", "res2": "blocks.1", ...}``; I3D and C2D pool in ``blocks.2``.
    """
    parts = ("stem", "res2", "res3", "res4", "res5")
    if architecture.startswith("slowfast"):
        found = {part: f"blocks.{i}.multipathway_blocks.{pathway}" for i, part in enumerate(parts)}
        fusions = {f"fuse{i + 1}": f"blocks.{i}.multipathway_fusion" for i in range(4)}
        return found | fusions | {"head": "blocks.6"}
    skip = 1 if architecture.startswith(("i3d", "c2d")) else 0
    return {part: f"blocks.{i + (skip if i > 1 else 0)}" for i, part in enumerate(parts)} | {
        "head": f"blocks.{5 + skip}"
    }
