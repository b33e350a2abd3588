"""Disentangled Non-Local networks for video action recognition.

The public names load torch on first use; `import dnl_video` alone does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dnl_video.errors import InputError as InputError

if TYPE_CHECKING:
    from dnl_video.config import EvaluationConfig as EvaluationConfig
    from dnl_video.inference.predictor import Predictor as Predictor
    from dnl_video.inference.scores import VideoScores as VideoScores
    from dnl_video.models.blocks import DisentangledNonLocalBlock3d as DisentangledNonLocalBlock3d
    from dnl_video.models.blocks import NonLocalBlock3d as NonLocalBlock3d
    from dnl_video.models.build import insert_context_blocks as insert_context_blocks
    from dnl_video.models.create import create_model as create_model
    from dnl_video.models.inspect.decomposition import decompose as decompose
    from dnl_video.models.simplified import GlobalContextBlock3d as GlobalContextBlock3d
    from dnl_video.models.simplified import SimplifiedNonLocalBlock3d as SimplifiedNonLocalBlock3d
    from dnl_video.models.weights.checkpoint import load_checkpoint as load_checkpoint
    from dnl_video.models.weights.load import load_weights as load_weights
    from dnl_video.spec import ContextOptions as ContextOptions
    from dnl_video.spec import ModelSpec as ModelSpec
    from dnl_video.spec import Preprocessing as Preprocessing
    from dnl_video.spec import list_models as list_models
    from dnl_video.visualize.examine import draw_attention as draw_attention

    __version__: str

_NAMES = {
    "config": ["EvaluationConfig"],
    "inference.predictor": ["Predictor"],
    "inference.scores": ["VideoScores"],
    "models.blocks": ["DisentangledNonLocalBlock3d", "NonLocalBlock3d"],
    "models.build": ["insert_context_blocks"],
    "models.create": ["create_model"],
    "models.inspect.decomposition": ["decompose"],
    "models.simplified": ["GlobalContextBlock3d", "SimplifiedNonLocalBlock3d"],
    "models.weights.checkpoint": ["load_checkpoint"],
    "models.weights.load": ["load_weights"],
    "spec": ["ContextOptions", "ModelSpec", "Preprocessing", "list_models"],
    "visualize.examine": ["draw_attention"],
}
_MODULES = {name: f"dnl_video.{module}" for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_MODULES, "InputError"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dnl-video")
    if name not in _MODULES:
        raise AttributeError(f"module 'dnl_video' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
