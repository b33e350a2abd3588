"""The exported model: one safetensors file with weights and everything needed to use them.

The file's metadata has one entry ``dnl_video``: JSON with the format's version, the architecture, the preprocessing,
class names, configuration and provenance, and a sha256 over all of that and the tensors. Reading verifies it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.files import atomic_path
from dnl_video.models.weights.reading import read_safetensors

FORMAT_KEY = "dnl_video"
_CHECKSUM = "sha256"


def write_exported(path: str | Path, stored: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write an exported model; the file appears whole or not at all.

    Args:
        path: The file, by custom ``model.safetensors``.
        stored: What `checkpoint.payload` makes: plain JSON types.
        tensors: Weights by the network's own names.

    Raises:
        InputError: The file cannot be written.
    """
    path = Path(path)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {**stored, _CHECKSUM: _checksum(stored, plain)}
    with atomic_path(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        # "format" is what other readers of safetensors files look for.
        # `save_file` would make it readable for its owner only.
        temporary.write_bytes(save(plain, metadata={"format": "pt", FORMAT_KEY: json.dumps(described)}))
    return path


def read_exported(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what `write_exported` stored, verified.

    Raises:
        InputError: The file is damaged, or not an exported model of this package.
    """
    tensors, metadata = read_safetensors(path)
    if FORMAT_KEY not in metadata:
        raise InputError(
            f"{path}: not an exported model of this package; `dnl-video convert` makes one from a foreign file"
        )
    try:
        stored = json.loads(metadata[FORMAT_KEY])
        expected = stored.pop(_CHECKSUM)
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: damaged: its metadata cannot be read; copy or export it again") from error
    if _checksum(stored, tensors) != expected:
        raise InputError(f"{path}: damaged: its content does not match its checksum; copy or export it again")
    return stored, tensors


def _checksum(stored: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Digest the description and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(stored, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # Through a flat view of bytes: numpy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
