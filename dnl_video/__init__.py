"""Disentangled Non-Local networks for video action recognition.

The names below load torch when first used; `import dnl_video` alone does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dnl_video.errors import InputError

if TYPE_CHECKING:
    from dnl_video.inference.predictor import Predictor, VideoScores
    from dnl_video.models.blocks import DisentangledNonLocalBlock3d, NonLocalBlock3d
    from dnl_video.models.build import insert_context_blocks
    from dnl_video.models.create import create_model
    from dnl_video.models.inspect.decomposition import decompose
    from dnl_video.models.simplified import GlobalContextBlock3d, SimplifiedNonLocalBlock3d
    from dnl_video.models.weights.checkpoint import load_checkpoint
    from dnl_video.models.weights.load import load_weights
    from dnl_video.visualize.examine import draw_attention

_HOMES = {
    "DisentangledNonLocalBlock3d": "dnl_video.models.blocks",
    "GlobalContextBlock3d": "dnl_video.models.simplified",
    "NonLocalBlock3d": "dnl_video.models.blocks",
    "Predictor": "dnl_video.inference.predictor",
    "VideoScores": "dnl_video.inference.predictor",
    "SimplifiedNonLocalBlock3d": "dnl_video.models.simplified",
    "create_model": "dnl_video.models.create",
    "insert_context_blocks": "dnl_video.models.build",
    "decompose": "dnl_video.models.inspect.decomposition",
    "draw_attention": "dnl_video.visualize.examine",
    "load_checkpoint": "dnl_video.models.weights.checkpoint",
    "load_weights": "dnl_video.models.weights.load",
}

__all__ = [
    "DisentangledNonLocalBlock3d",
    "GlobalContextBlock3d",
    "InputError",
    "NonLocalBlock3d",
    "Predictor",
    "SimplifiedNonLocalBlock3d",
    "VideoScores",
    "create_model",
    "decompose",
    "draw_attention",
    "insert_context_blocks",
    "load_checkpoint",
    "load_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dnl_video' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
