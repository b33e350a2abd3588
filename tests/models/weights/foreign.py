"""Strict loading of translated weights, with the reshaping and inflation of `load_weights`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.build import build_model
from dnl_video.models.weights.matching import inflate
from dnl_video.models.weights.places import TranslatedWeights
from dnl_video.spec import ModelSpec


def loaded(
    source: TranslatedWeights, spec: ModelSpec | None = None, dtype: torch.dtype = torch.float64
) -> VideoClassifier:
    """Build the network and fill it; only batch counters and the classifier of image weights may stay unfilled."""
    spec = spec or source.spec
    assert spec is not None
    model = build_model(spec).to(dtype).eval()
    expected = model.state_dict()
    filled = {}
    for name, tensor in source.state_dict.items():
        shape = expected[name].shape
        if tensor.dim() == 4 and len(shape) == 5:
            tensor = inflate(tensor, shape[2])
        filled[name] = tensor.reshape(shape)
    missing, unexpected = model.load_state_dict(filled, strict=False)
    assert not unexpected
    for name in missing:
        assert name.endswith(".num_batches_tracked") or (source.spec is None and ".proj." in name)
    return model


def probabilities_of(source: TranslatedWeights, clip: torch.Tensor) -> torch.Tensor:
    """Return the converted network's probabilities; its head is ``dense_probabilities``, which returns logarithms."""
    return loaded(source)(clip).double().exp()  # the head itself works in float32


def shapes_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_bijection(source: TranslatedWeights, names: set[str], model: nn.Module, *, classifier: bool = True) -> None:
    """Every tensor of the file has one place or a reason, and every place of the network one tensor."""
    expected = {n for n in model.state_dict() if classifier or ".proj." not in n}
    assert set(source.state_dict) == set(source.source_names) == expected
    taken = [n for n in source.source_names.values() if not n.startswith("(")]
    assert len(taken) == len(set(taken))
    assert not set(taken) & set(source.left)
    assert set(taken) | set(source.left) == names
