"""Tensors in a plain pickle, read as numpy arrays: what `pickle.dump` writes for torch's tensors. Needs no torch.

A tensor is pickled as a call of ``torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)``, its storage as
``torch.storage._load_from_bytes(bytes)``, whose bytes are torch's file format of before 1.6: five small pickles (a
magic number, the version, facts about the system, the storage's id, the list of ids), the number of elements, the
elements.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.safe_pickle import NUMPY_NAMES, AllowListUnpickler, PickledArray, UnsafePickleError, guarded

_MAGIC = 0x1950A86A20F9469CFC6C
_BFLOAT16 = "bfloat16"
_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}


class PickledTensor:
    """A tensor in a pickle; `array` is it, read when asked for."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        self._parts = storage, offset, size, stride

    @property
    def array(self) -> NDArray[Any]:
        """The tensor's values.

        Raises:
            UnsafePickleError: It reaches outside its storage, or repeats it.
        """
        storage, offset, size, stride = self._parts
        if not isinstance(storage, _Storage) or not _are_sizes((offset,)) or not _are_sizes(size, stride):
            raise UnsafePickleError("a damaged tensor")
        flat = storage.values()
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) > len(flat) - offset or (math.prod(size) and last >= len(flat)):
            raise UnsafePickleError(f"a tensor of shape {tuple(size)} in {len(flat)} elements")
        if not math.prod(size):
            return np.empty(size, dtype=flat.dtype)
        steps = [step * flat.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(flat[offset:], size, steps, writeable=False).copy()


class _Storage:
    """The bytes of a storage, read when asked for."""

    def __init__(self, data: Any) -> None:
        if not isinstance(data, bytes):
            raise UnsafePickleError("a damaged storage")
        self._data = data

    def values(self) -> NDArray[Any]:
        """Return all elements; bfloat16 as float32."""
        values: NDArray[Any] = guarded(self._read)
        return values

    def _read(self) -> NDArray[Any]:
        file = io.BytesIO(self._data)
        magic, _, system, (code, count), _ = (
            AllowListUnpickler(file, _STORAGE_NAMES, storages=_storage_id).load() for _ in range(5)
        )
        little = system.get("little_endian") if isinstance(system, dict) else None
        if magic != _MAGIC or not isinstance(little, bool):
            raise UnsafePickleError("a damaged storage")
        order = "<" if little else ">"
        dtype = np.dtype(order + ("u2" if code == _BFLOAT16 else code))
        start = file.tell() + 8
        stated = int.from_bytes(self._data[start - 8 : start], "little" if little else "big")
        if stated != count or len(self._data) - start != count * dtype.itemsize:
            raise UnsafePickleError(f"a storage of {count} elements in {len(self._data) - start} bytes")
        values = np.frombuffer(self._data, dtype=dtype, offset=start)
        return (values.astype(np.uint32) << 16).view(np.float32) if code == _BFLOAT16 else values


def _storage_id(pid: Any) -> tuple[str, int]:
    """Return type and number of elements of ('storage', type, key, device, elements, view)."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
        raise UnsafePickleError("a damaged storage")
    if not _are_sizes((pid[4],)):
        raise UnsafePickleError("a damaged storage")
    return pid[1].code, pid[4]


class _StorageType:
    def __init__(self, code: str) -> None:
        self.code = code

    def __call__(self, *_: Any) -> None:
        raise UnsafePickleError("a call of a storage type")


def _are_sizes(*lists: Any) -> bool:
    return all(isinstance(x, tuple) and all(type(n) is int and n >= 0 for n in x) for x in lists) and (
        len({len(x) for x in lists}) == 1
    )


def _empty_dict(*items: Any) -> dict[Any, Any]:
    if items:
        raise UnsafePickleError("an OrderedDict with items")
    return {}


_STORAGE_NAMES: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch", name): _StorageType(code) for name, code in _STORAGES.items()
}
TENSOR_NAMES: Mapping[tuple[str, str], Callable[..., Any]] = {
    **NUMPY_NAMES,
    ("torch._utils", "_rebuild_tensor_v2"): PickledTensor,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): _empty_dict,  # a tensor's backward hooks
}


def as_array(value: Any) -> NDArray[Any] | None:
    """Return the array that a value of such a pickle, or of JSON, is: a tensor, an array, or nested lists of numbers.

    Returns:
        None when it is none of these.

    Raises:
        UnsafePickleError: The tensor is forged.
    """
    if isinstance(value, (PickledTensor, PickledArray)):
        return value.array
    if isinstance(value, (list, tuple)) and value and all(type(x) in (int, float) for x in value):
        return np.array(value)
    return None
