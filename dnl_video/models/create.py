"""`create_model`: build a video classifier by name, with or without pretrained weights."""

from __future__ import annotations

import dataclasses
from typing import Any

from dnl_video.errors import InputError, nearest
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.build import build_model
from dnl_video.models.weights.load import load_weights
from dnl_video.spec import Architecture, ContextOptions, ModelSpec, from_dict

_BLOCK_OPTIONS = tuple(f.name for f in dataclasses.fields(ContextOptions))
_OPTIONS = (*(f.name for f in dataclasses.fields(ModelSpec)), *_BLOCK_OPTIONS, "pretrained")


def create_model(architecture: Architecture, *, pretrained: str | None = None, **options: Any) -> VideoClassifier:
    """Build a video classifier: clips [B, 3, T, H, W] to logits [B, num_classes].

    Example:
        ``create_model("slow_r50", context="dnl", num_classes=101, positions={"res4": [1, 3, 5]})``

    Args:
        architecture: slow, i3d, c2d or slowfast, with _r50 or _r101 (see `list_models`).
        pretrained: Weights to start from: a published name such as ``kinetics400``, or a file (see `load_weights`).
        **options: Fields of `ModelSpec` (``context``, ``num_classes``, ``head``, ...) and of its `ContextOptions`
            (``positions``, ``pool``, ``temperature``, ...). ``context_options`` may be a mapping. Defaults are those of
            the two classes, but ``context`` is ``none`` by default.

    Raises:
        InputError: An option is unknown, or a value is not allowed. The message says what is allowed.
    """
    for name in options:
        if name not in _OPTIONS:
            raise InputError(f"unknown option {name!r}; allowed: {', '.join(_OPTIONS)}{nearest(name, _OPTIONS)}")
    given = options.pop("context_options", None) or ContextOptions()
    given = given if isinstance(given, ContextOptions) else from_dict(ContextOptions, given)
    blocks = dataclasses.replace(given, **{k: options.pop(k) for k in _BLOCK_OPTIONS if k in options})
    model = build_model(ModelSpec(architecture, **{"context": "none", **options}, context_options=blocks))
    if pretrained is not None:
        load_weights(model, pretrained)
    return model
