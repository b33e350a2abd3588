"""Finding out whose layout a file of weights has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights import caffe2, imagenet, mmaction, pyslowfast, pytorchvideo_hub
from dnl_video.models.weights.checkpoint import find_checkpoint, read_checkpoint
from dnl_video.models.weights.places import TranslatedWeights
from dnl_video.models.weights.pretrained import pretrained_file
from dnl_video.models.weights.source import Source
from dnl_video.spec import Architecture, to_dict

# Each has `matches(shapes)` and `convert(tensors, architecture=...)`; at most one matches.
_ORIGINS: tuple[ModuleType, ...] = (pytorchvideo_hub, pyslowfast, caffe2, mmaction, imagenet)
OWN = "dnl_video"


def find_source(source: str, architecture: Architecture | None = None) -> Source:
    """Return the file of a path, of a run's folder, or of a published name, which is downloaded once.

    Raises:
        InputError: There is none.
    """
    if Path(source).exists():
        return Source(find_checkpoint(source))
    if Path(source).suffix or len(Path(source).parts) != 1:
        raise InputError(f"{source}: no such file of weights")
    if architecture is None:
        raise InputError(f"{source}: no such file; a published name needs to know the architecture")
    return pretrained_file(source, architecture)


def translate_source(source: Source, architecture: Architecture | None = None) -> TranslatedWeights:
    """Bring the weights in a file of any origin under our names.

    Args:
        source: The file.
        architecture: The network they are for; needed for image networks.

    Raises:
        InputError: The file is damaged, or its layout is unknown.
    """
    if source.stored is None:
        return translate(source.tensors, architecture, str(source.path), beside=source.beside)
    loaded = read_checkpoint(source)
    return TranslatedWeights(
        origin=OWN,
        state_dict=loaded.state_dict,
        source_names={name: name for name in loaded.state_dict},
        spec=loaded.spec,
        preprocessing=to_dict(loaded.preprocessing),
        class_names=loaded.class_names or None,
    )


def translate(
    tensors: Mapping[str, Tensor],
    architecture: Architecture | None = None,
    name: str = "the state dict",
    *,
    beside: Mapping[str, Any] | None = None,
) -> TranslatedWeights:
    """Bring tensors of any foreign origin under our names.

    Args:
        tensors: The tensors by their origin's names.
        architecture: The network they are for; image networks need to know.
        name: What to call them in messages.
        beside: What lies beside them in the file: PySlowFast's configuration, mmaction2's class names.

    Raises:
        InputError: Their names are of no known layout.
    """
    beside = beside or {}
    first = next(iter(tensors), "none")
    # A module of Lightning's around the network; PySlowFast's own files may begin with ``model.`` too.
    inner = _without_first(tensors) if "pytorch-lightning_version" in beside else None
    found = _origin(inner) if inner else None
    if inner and found:
        tensors = inner
    else:
        found = _origin(tensors)
    while not found and (inner := _without_first(tensors)):
        tensors, found = inner, _origin(inner)
    if found is None:
        known = "pytorchvideo, PySlowFast, caffe2 (video-nonlocal-net), mmaction2, ImageNet ResNets, dnl_video"
        raise InputError(f"{name}: {len(tensors)} tensors of an unknown layout, such as {first}; known: {known}")
    told: dict[str, Any] = {}
    if found is pyslowfast and isinstance(beside.get("cfg"), str):
        told["config"] = beside["cfg"]
    elif found is mmaction and isinstance(beside.get("meta"), Mapping):
        told["meta"] = beside["meta"]
    try:
        source: TranslatedWeights = found.convert(tensors, architecture=architecture, **told)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return source


def _origin(tensors: Mapping[str, Tensor]) -> ModuleType | None:
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    return next((origin for origin in _ORIGINS if origin.matches(shapes)), None)


def _without_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the tensors without the module that all names begin with: what a wrapper called the network."""
    shared = {name.partition(".")[0] for name in tensors}
    if len(shared) != 1 or not all("." in name for name in tensors):
        return None
    return {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
