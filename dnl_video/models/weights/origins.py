"""Finds a weights file, recognises the project that wrote it, and translates its tensor names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights import hub, imagenet, mmaction, pyslowfast
from dnl_video.models.weights.checkpoint import read_checkpoint
from dnl_video.models.weights.find import find_weights
from dnl_video.models.weights.places import TranslatedWeights
from dnl_video.models.weights.pretrained import pretrained_file
from dnl_video.models.weights.source import Source
from dnl_video.spec import Architecture, to_dict

# `matches(shapes)` and `convert(tensors, architecture=...)` of each origin; at most one matches.
_ORIGINS: tuple[tuple[Callable[..., bool], Callable[..., TranslatedWeights]], ...] = (
    (hub.matches, hub.convert),
    (pyslowfast.matches, pyslowfast.convert),
    (pyslowfast.matches_caffe2, pyslowfast.convert_caffe2),
    (mmaction.matches, mmaction.convert),
    (imagenet.matches, imagenet.convert),
)
OWN = "dnl_video"


def find_source(source: str, architecture: Architecture | None = None) -> Source:
    """Return the file of a path, of a run's folder, or of a published name, which is downloaded once.

    Raises:
        InputError: There is none.
    """
    if file := find_weights(source):
        return Source(file)
    if architecture is None:
        raise InputError(f"{source}: no such file; a published name needs to know the architecture")
    return pretrained_file(source, architecture)


def translate_source(source: Source, architecture: Architecture | None = None) -> TranslatedWeights:
    """Translate the tensor names in a file of any origin.

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
    """Translate the tensor names of any foreign origin.

    Args:
        tensors: The tensors by their origin's names.
        architecture: The network they are for; needed for image networks.
        name: Their name in messages.
        beside: Other entries of their file: PySlowFast's configuration, mmaction2's class names.

    Raises:
        InputError: Their names are of no known layout.
    """
    beside = beside or {}
    candidates = [tensors]
    while inner := _without_first(candidates[-1]):
        candidates.append(inner)
    if "pytorch-lightning_version" in beside:
        # Try first without the prefix of Lightning's module: PySlowFast's names may begin with ``model.`` too.
        candidates[:2] = candidates[1::-1]
    found = next(((named, convert) for named in candidates if (convert := _convert(named))), None)
    if found is None:
        first = next(iter(tensors), "none")
        known = "pytorchvideo, PySlowFast, caffe2 (video-nonlocal-net), mmaction2, ImageNet ResNets, dnl_video"
        raise InputError(f"{name}: {len(tensors)} tensors of an unknown layout, such as {first}; known: {known}")
    named, convert = found
    options: dict[str, Any] = {}
    if convert is pyslowfast.convert and isinstance(beside.get("cfg"), str):
        options["config"] = beside["cfg"]
    elif convert is mmaction.convert and isinstance(beside.get("meta"), Mapping):
        options["meta"] = beside["meta"]
    try:
        return convert(named, architecture=architecture, **options)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _convert(tensors: Mapping[str, Tensor]) -> Callable[..., TranslatedWeights] | None:
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    return next((convert for matches, convert in _ORIGINS if matches(shapes)), None)


def _without_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the tensors without a wrapper's prefix, the module that all names begin with; None if there is none."""
    shared = {name.partition(".")[0] for name in tensors}
    if len(shared) != 1 or not all("." in name for name in tensors):
        return None
    return {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
