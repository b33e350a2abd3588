"""Reading files of tensors, recognised by their content, without ever executing code from them."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.weights.caffe2_pickle import read_caffe2
from dnl_video.models.weights.inert import InertNames

Kind = Literal["torch", "safetensors", "pickle"]

# Keys under which projects put their tensors: pytorchvideo and PySlowFast; Lightning and OpenMMLab; torchvision.
_WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model")
# What DistributedDataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")
# The first object of torch's files before 1.6: its magic number, pickled.
_LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_REFUSED = re.compile(r"(?:unsupported GLOBAL|Unsupported global: GLOBAL|Unsupported class) (\S+)")
_SAFE_READER = re.compile(r"WeightsUnpickler error:\s*(.+)")


@dataclass(frozen=True)
class TensorFile:
    """The tensors of a file, out of their wrappers.

    Attributes:
        path: The file.
        kind: How it is stored.
        tensors: The tensors by the file's names, without the prefixes of parallel and compiled modules.
        extra: What lies beside them: other entries of the outermost dictionary, or a safetensors file's metadata.
    """

    path: Path
    kind: Kind
    tensors: dict[str, Tensor]
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_tensors(path: str | Path) -> TensorFile:
    """Read a torch file (new or old), a safetensors file or a caffe2 pickle.

    Raises:
        InputError: There is no such file; it is none of these, damaged, or holds objects beside tensors.
    """
    path = Path(path)
    kind = file_kind(path)
    if kind == "safetensors":
        tensors, metadata = read_safetensors(path)
        return TensorFile(path, kind, _without_prefixes(tensors), metadata)
    if kind == "pickle":
        return TensorFile(path, kind, read_caffe2(path))
    content = load_torch(path, InertNames())
    extra = {k: v for k, v in content.items() if k not in _WRAPPERS} if isinstance(content, Mapping) else {}
    tensors = tensors_in(content)
    if not tensors:
        raise InputError(f"{path}: holds no weights; give a checkpoint with a state dict")
    return TensorFile(path, kind, tensors, extra)


def file_kind(path: Path) -> Kind:
    """Tell a file's kind by its first bytes.

    Raises:
        InputError: It cannot be read, or is of no known kind.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(32)
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file of weights") from error
    if not start:
        raise InputError(f"{path}: empty file; download or copy it again")
    if start.startswith(b"PK\x03\x04") or _LEGACY_TORCH in start:
        return "torch"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < max(size, 1 << 20):
        return "safetensors"
    if start[:1] == b"\x80":  # pickle protocol 2 and above
        return "pickle"
    raise InputError(
        f"{path}: not a file of weights (it starts with {start[:8]!r}); give a torch, safetensors or caffe2 file"
    )


def load_torch(path: Path, inert: InertNames | None = None) -> Any:
    """Read a torch file; only tensors and plain containers, nothing that runs.

    Args:
        path: The file.
        inert: What other objects stand for; None refuses them.

    Raises:
        InputError: It is damaged or holds other objects.
    """
    try:
        with torch.serialization.safe_globals(inert.as_safe_globals() if inert else []):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever the reader stumbles over
        text = str(error).strip()
        found = _REFUSED.search(text)
        if found is None:
            told = _SAFE_READER.search(text)
            reason = (told[1] if told else text or type(error).__name__).splitlines()[0].split(". ")[0][:120]
            reason = reason.rstrip(".")
            raise InputError(f"{path}: not a readable checkpoint ({reason}); is it complete?") from error
        if inert is None or not inert.add(found[1]):
            raise InputError(
                f"{path}: not a readable checkpoint: it holds {found[1]} beside tensors, and code from files is never "
                "run; save its state dict alone"
            ) from error
    return load_torch(path, inert)


def check_torch(path: Path) -> None:
    """Hold every part of a torch file against its checksum, which torch.load does not: it takes flipped bits.

    Raises:
        InputError: A part differs, or the file is no whole archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except Exception as error:  # a damaged file raises whatever the reader stumbles over
        raise InputError(f"{path}: damaged ({error}); copy it again, or take another one") from error
    if part is not None:
        raise InputError(f"{path}: damaged ({part} does not match its checksum); copy it again, or take another one")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a safetensors file's tensors and metadata.

    Raises:
        InputError: It is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); is it complete?") from error


def file_sha256(path: Path) -> str:
    """Return a file's checksum."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def tensors_in(content: Any) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's or a state dict's dictionary, out of its wrappers and prefixes."""
    while isinstance(content, Mapping):
        inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            return _without_prefixes({str(name): v for name, v in content.items() if isinstance(v, Tensor)})
        content = inner
    return {}


def _without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in _PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return dict(tensors)
