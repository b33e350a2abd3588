"""Weights files, recognised by their content, read once and hashed at most once; the format of exported models.

No code from a file ever runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import re
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.files import atomic_path, file_sha256
from dnl_video.safe_pickle import PickledArray, UnsafePickleError, loads, stand_ins

Kind = Literal["torch", "safetensors", "pickle"]

# The entry of our checkpoints, and of the metadata of our exported models, that describes the network.
FORMAT_KEY = "dnl_video"
_CHECKSUM = "sha256"
# Keys under which projects put their tensors: pytorchvideo and PySlowFast; Lightning and OpenMMLab; torchvision.
_WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model")
# Prefixes that DistributedDataParallel and torch.compile add to every name.
_PREFIXES = ("module.", "_orig_mod.")
# The first object of torch's files before 1.6: its magic number, pickled.
_LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_REFUSED = re.compile(r"(?:unsupported GLOBAL|Unsupported global: GLOBAL|Unsupported class) (\S+)")
_SAFE_READER = re.compile(r"WeightsUnpickler error:\s*(.+)")
# A caffe2 file has about thirty opcodes for each of some thousand blobs.
_MAX_STEPS = 2_000_000


class Source:
    """A weights file. It is read on first use, and its content is kept.

    Reading compares files of this package with their checksums.

    Args:
        path: A torch file (new or old), a safetensors file or a caffe2 pickle, of any name.

    Raises:
        InputError: Raised by the properties: there is no such file, or it has another format, is damaged or holds code.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @cached_property
    def sha256(self) -> str:
        """The file's checksum."""
        return file_sha256(self.path)

    @property
    def kind(self) -> Kind:
        """How the tensors are stored."""
        return self._read[0]

    @property
    def content(self) -> Any:
        """The object in a torch file; the tensors by name for other kinds."""
        return self._read[1]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by the file's names, without the prefixes of parallel and compiled modules."""
        if not (found := tensors_in(self.content)):
            raise InputError(f"{self.path}: holds no weights; give a checkpoint with a state dict")
        return found

    @property
    def beside(self) -> Mapping[str, Any]:
        """Other entries of a torch file's outermost dictionary; a safetensors file's metadata."""
        return self._read[2]

    @property
    def stored(self) -> dict[str, Any] | None:
        """The description of the network, in a checkpoint or an exported model of this package; None in others."""
        stored = self.beside.get(FORMAT_KEY)
        return dict(stored) if isinstance(stored, Mapping) else None

    @cached_property
    def _read(self) -> tuple[Kind, Any, Mapping[str, Any]]:
        try:
            with self.path.open("rb") as file:
                kind = _kind(self.path, file)
                if kind == "torch":
                    content = _read_torch(self.path, file)
                    outer = content if isinstance(content, Mapping) else {}
                    return kind, content, {k: v for k, v in outer.items() if k not in _WRAPPERS}
                if kind == "pickle":
                    return kind, _read_caffe2(self.path, file), {}
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}); give a file of weights") from error
        return kind, *_read_safetensors(self.path)


def tensors_in(content: Any) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's or a state dict's dictionary, without wrappers and prefixes."""
    while isinstance(content, Mapping):
        inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
            while prefix := next((p for p in _PREFIXES if tensors and all(name.startswith(p) for name in tensors)), ""):
                tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
            return tensors
        content = inner
    return {}


def _kind(path: Path, file: IO[bytes]) -> Kind:
    start, size = file.read(32), path.stat().st_size
    file.seek(0)
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


def _read_torch(path: Path, file: IO[bytes]) -> Any:
    """Read a torch file; foreign objects beside the tensors become inert, except in files of this package."""
    try:
        inert = _foreign_objects(file)
        file.seek(0)
        with torch.serialization.safe_globals(inert):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        text = str(error).strip()
        if found := _REFUSED.search(text):
            raise _refusal(path, found[1]) from error
        told = _SAFE_READER.search(text)
        reason = (told[1] if told else text or type(error).__name__).splitlines()[0].split(". ")[0][:120]
        raise InputError(f"{path}: not a readable checkpoint ({reason.rstrip('.')}); is it complete?") from error
    if isinstance(content, Mapping) and isinstance(content.get(FORMAT_KEY), Mapping):
        if inert:
            raise _refusal(path, inert[0][1])
        _check_parts(path, file)
    return content


def _foreign_objects(file: IO[bytes]) -> list[Any]:
    if file.read(4) != b"PK\x03\x04":
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return stand_ins(cast("IO[bytes]", mapped), pickles=4)  # magic number, version, system, content
    with zipfile.ZipFile(file) as archive:
        data = next((info for info in archive.infolist() if info.filename.endswith("/data.pkl")), None)
        # torch.save does not compress.
        stored = data is not None and data.compress_type == zipfile.ZIP_STORED
        return stand_ins(io.BytesIO(archive.read(data))) if data and stored else []


def _refusal(path: Path, name: str) -> InputError:
    return InputError(
        f"{path}: not a readable checkpoint: it holds {name} beside tensors, and code from files is never run; save "
        "its state dict alone"
    )


def _check_parts(path: Path, file: IO[bytes]) -> None:
    """Compare every part of a torch file with its CRC; torch.load does not, and accepts flipped bits."""
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            part = archive.testzip()
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{path}: damaged ({error}); copy it again, or take another one") from error
    if part is not None:
        raise InputError(f"{path}: damaged ({part} does not match its checksum); copy it again, or take another one")


def _read_caffe2(path: Path, file: IO[bytes]) -> dict[str, Tensor]:
    """Read the arrays of a pickle that Python 2 wrote."""
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            content = loads(cast(bytes, mapped), max_steps=_MAX_STEPS)
        blobs = content.get("blobs", content) if isinstance(content, dict) else None
        if not isinstance(blobs, dict) or not blobs:
            raise UnsafePickleError("no dictionary of blobs")
        return {name: _blob(name, value) for name, value in blobs.items()}
    except Exception as error:  # a damaged file can raise anything
        reason = f"it holds {error}"[:120].splitlines()[0] if isinstance(error, UnsafePickleError) else "damaged"
        raise InputError(
            f"{path}: not a readable caffe2 pickle ({reason}); give a whole .pkl of PySlowFast's model zoo"
        ) from error


def _blob(name: Any, value: Any) -> Tensor:
    if isinstance(name, str) and isinstance(value, PickledArray):
        native = value.array.dtype.newbyteorder("=")
        return torch.from_numpy(np.array(value.array, dtype=native, order="C"))
    if isinstance(name, str) and isinstance(value, (int, float)):
        return torch.tensor(value)
    raise UnsafePickleError(f"a blob {str(name)[:60]!r} that is no array")


# ---- exported models: one safetensors file with weights and everything needed to use them


def write_exported(path: str | Path, stored: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write an exported model, atomically.

    The metadata's entry ``dnl_video`` is JSON: the description of the network, and a sha256 over it and the tensors.

    Args:
        path: The file, by convention ``model.safetensors``.
        stored: The description, from `checkpoint.payload`.
        tensors: Weights by the network's names.

    Raises:
        InputError: The file cannot be written.
    """
    path = Path(path)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {**stored, _CHECKSUM: _checksum(stored, plain)}
    with atomic_path(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Other readers of safetensors files look for "format". `save_file` lets only the owner read the file.
        temporary.write_bytes(save(plain, metadata={"format": "pt", FORMAT_KEY: json.dumps(described)}))
    return path


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and metadata; the description of an exported model is parsed and verified."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata: dict[str, Any] = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); is it complete?") from error
    if FORMAT_KEY not in metadata:
        return tensors, metadata
    try:
        stored = json.loads(metadata[FORMAT_KEY])
        expected = stored.pop(_CHECKSUM)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: damaged: its metadata cannot be read; copy or export it again") from error
    if _checksum(stored, tensors) != expected:
        raise InputError(f"{path}: damaged: its content does not match its checksum; copy or export it again")
    return tensors, {**metadata, FORMAT_KEY: stored}


def _checksum(stored: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hash the description and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(stored, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, because numpy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
