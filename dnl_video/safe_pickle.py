"""An allow-list unpickler: reads plain data, arrays and tensors from a pickle and runs no code from it.

A pickle is a program. Python's own unpickler lets it call any function, set any attribute and reserve any amount of
memory. This one accepts only the opcodes of plain data and the names in `_NAMES`, and calls its own functions for them.
An array uses memory only if its shape, type and bytes agree; all arrays together have at most twice the file's bytes.

`torch.load` reads torch's own files; with `stand_ins` it skips foreign objects beside the tensors. Needs no torch.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_NUMERIC = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1)")
_MAX_DIMENSIONS = 8
_MAGIC = 0x1950A86A20F9469CFC6C  # the first object of torch's files before version 1.6
_PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING", "BYTEARRAY8"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle uses a name, an opcode or a shape that plain data does not need; the message names it."""


@dataclass
class PickledArray:
    """The values of a numpy array or a torch tensor in a pickle."""

    array: NDArray[Any]


def loads(data: bytes, *, max_steps: int | None = None) -> Any:
    """Read a pickle of protocol 2 to 5 that holds plain data, arrays and tensors.

    Args:
        data: The pickle: bytes, or a mapped file.
        max_steps: Largest number of opcodes; None for no limit.

    Returns:
        Python's plain types, with a `PickledArray` for each array and tensor.

    Raises:
        UnsafePickleError: It uses another name or opcode, or a shape that does not fit its data.
        pickle.UnpicklingError: It is damaged.
    """
    file: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return _Unpickler(len(data), max_steps).load(file)
    except pickle.UnpicklingError:
        raise
    except (MemoryError, RecursionError) as error:
        raise UnsafePickleError("more memory than there is") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error


def as_array(value: Any) -> NDArray[Any] | None:
    """Return a pickled array or tensor, or a non-empty list of numbers, as an array; None for other values."""
    if isinstance(value, PickledArray):
        return value.array
    if isinstance(value, (list, tuple)) and value and all(type(x) in (int, float) for x in value):
        return np.array(value)
    return None


class _Unpickler:
    """A stack machine; with ``storage``, the pickle describes a tensor's storage and may name it by a persistent id."""

    def __init__(self, size: int, max_steps: int | None = None, *, storage: bool = False) -> None:
        # Protocol 2 of Python 3 holds bytes as text first: two copies of each.
        self._budget = 2 * size
        self._max_steps = sys.maxsize if max_steps is None else max_steps
        self._storage = storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self, file: IO[bytes]) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > self._max_steps:
                raise UnsafePickleError(f"more than {self._max_steps} steps")
            self._step(opcode.name, argument)
        return self._stack.pop()

    def spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise UnsafePickleError("arrays with more bytes than the file")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            width = int(name[-1])
            stack[-width:] = [tuple(stack[-width:])]
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._to_mark()
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._to_mark()
            target = _expect(stack[-1], dict)
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_expect(key, (str, int))] = value  # hashing nested tuples could take forever
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_global(argument if name == "GLOBAL" else " ".join([stack.pop(-2), stack.pop()])))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_expect(stack.pop(), _Function).call(self, *_expect(arguments, tuple)))
        elif name == "BUILD":
            state = stack.pop()
            self._build(stack[-1], _expect(state, tuple))
        elif name == "BINPERSID" and self._storage:
            stack.append(_storage_id(stack.pop()))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise UnsafePickleError(f"the opcode {name}")

    def _to_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _build(self, target: Any, state: tuple[Any, ...]) -> None:
        if isinstance(target, _Dtype):
            # (version, byte order, subarray, names, fields, size, alignment, flags)
            if state[2:5] != (None, None, None) or state[1] not in ("<", ">", "=", "|"):
                raise UnsafePickleError("an array of structures")
            target.dtype = target.dtype.newbyteorder(state[1])
        elif isinstance(target, PickledArray):
            # (version, shape, dtype, whether in Fortran order, bytes); very old pickles lack the version.
            shape, dtype, fortran, data = state[-4:]
            target.array = _array(self, data, dtype, shape, "F" if fortran else "C")
        else:
            raise UnsafePickleError(f"a state for {type(target).__name__.strip('_')}")


@dataclass
class _Function:
    """Stand-in of a name; REDUCE runs ``call(machine, *arguments)``."""

    call: Callable[..., Any]


@dataclass
class _StorageType(_Function):
    """Stand-in of a storage type of torch; `code` is numpy's type of the elements."""

    code: str
    bfloat16: bool = False


@dataclass
class _Dtype:
    dtype: np.dtype[Any]


@dataclass
class _Storage:
    kind: _StorageType
    count: int
    values: Any = None  # None if only a persistent id names it


def _refuse(*_: Any) -> None:
    raise UnsafePickleError("a call of a type")


def _dtype(_: _Unpickler, code: Any, *__: Any) -> _Dtype:
    if not isinstance(code, str) or not _NUMERIC.fullmatch(code):
        raise UnsafePickleError(f"an array of type {code[:20] if isinstance(code, str) else '?'!r}")
    return _Dtype(np.dtype(code))


def _array(machine: _Unpickler, data: Any, kind: Any, shape: Any, order: Any = "C") -> NDArray[Any]:
    """Return bytes as an array, if their number is exactly that of its shape."""
    if len(_expect(shape, tuple)) > _MAX_DIMENSIONS or not _are_sizes(*shape):
        raise UnsafePickleError("an array without a plain shape")
    dtype = _expect(kind, _Dtype).dtype
    content = data.encode("latin1") if isinstance(data, str) else _expect(data, (bytes, bytearray))
    if math.prod(shape) * dtype.itemsize != len(content):
        raise UnsafePickleError(f"an array of shape {list(shape)} and type {dtype} in {len(content)} bytes")
    machine.spend(len(content))
    return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")


def _encode(machine: _Unpickler, text: Any, encoding: Any = None) -> bytes:
    """Return bytes, which protocol 2 writes as text."""
    if encoding != "latin1":
        raise UnsafePickleError("a call of encode")
    machine.spend(len(_expect(text, str)))
    return bytes(text.encode("latin1"))


def _tensor(machine: _Unpickler, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> PickledArray:
    """Return ``torch._utils._rebuild_tensor_v2``'s tensor, which must lie in its storage and not repeat it."""
    flat = _expect(storage, _Storage).values
    sizes, steps = _expect(size, tuple), _expect(stride, tuple)
    if len(sizes) != len(steps) or len(sizes) > _MAX_DIMENSIONS or not _are_sizes(offset, *sizes, *steps):
        raise UnsafePickleError("a tensor without a plain shape")
    count, last = math.prod(sizes), offset + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True))
    if count > max(len(flat) - offset, 0) or (count and last >= len(flat)):
        raise UnsafePickleError(f"a tensor of shape {list(sizes)} in {len(flat)} elements")
    machine.spend(count * flat.itemsize)
    strides = [step * flat.itemsize for step in steps]
    view = np.lib.stride_tricks.as_strided(flat[offset:], sizes, strides, writeable=False) if count else flat[:0]
    values = view.reshape(sizes).copy()
    return PickledArray((values.astype(np.uint32) << 16).view(np.float32) if storage.kind.bfloat16 else values)


def _load_storage(_: _Unpickler, data: Any) -> _Storage:
    """Read the argument of ``torch.storage._load_from_bytes``: torch's file format before version 1.6.

    Five pickles (magic number, version, system, the storage's id, list of ids), the number of elements, the elements.
    """
    file = io.BytesIO(_expect(data, bytes))
    magic, _, system, found, _ = (_Unpickler(len(data), storage=True).load(file) for _ in range(5))
    little = _expect(system, dict).get("little_endian")
    kind, count = _expect(found, _Storage).kind, found.count
    if magic != _MAGIC or not isinstance(little, bool):
        raise UnsafePickleError("a damaged storage")
    dtype = np.dtype(("<" if little else ">") + kind.code)
    start = file.tell() + 8
    stated = int.from_bytes(data[start - 8 : start], "little" if little else "big")
    if stated != count or len(data) - start != count * dtype.itemsize:
        raise UnsafePickleError(f"a storage of {count} elements in {len(data) - start} bytes")
    return _Storage(kind, count, np.frombuffer(data, dtype, offset=start))


def _storage_id(pid: Any) -> _Storage:
    """Return the storage that ('storage', type, key, device, elements, view) names, without values."""
    if len(_expect(pid, tuple)) < 5 or pid[0] != "storage" or not _are_sizes(pid[4]):
        raise UnsafePickleError("a damaged storage")
    return _Storage(_expect(pid[1], _StorageType), pid[4])


_NAMES: dict[str, _Function] = {
    "_codecs encode": _Function(_encode),
    "__builtin__ bytes": _Function(lambda _: b""),
    "numpy dtype": _Function(_dtype),
    "numpy ndarray": _Function(_refuse),  # only an argument of _reconstruct
    "numpy.core.multiarray _reconstruct": _Function(lambda *_: PickledArray(np.empty(0))),  # BUILD fills it
    "numpy.core.multiarray scalar": _Function(lambda machine, kind, data=b"": _array(machine, data, kind, ()).item()),
    "numpy.core.numeric _frombuffer": _Function(lambda *given: PickledArray(_array(*given))),
    "torch._utils _rebuild_tensor_v2": _Function(_tensor),
    "torch.storage _load_from_bytes": _Function(_load_storage),
    "torch Size": _Function(lambda _, sizes=(): _expect(sizes, tuple)),
    "collections OrderedDict": _Function(lambda _: {}),  # a tensor's backward hooks
    **{
        f"torch {name}Storage": _StorageType(_refuse, code, name == "BFloat16")
        for name, code in (
            *(("Float", "f4"), ("Double", "f8"), ("Half", "f2"), ("BFloat16", "u2"), ("Long", "i8"), ("Int", "i4")),
            *(("Short", "i2"), ("Char", "i1"), ("Byte", "u1"), ("Bool", "b1")),
        )
    },
}


def _global(name: str) -> _Function:
    try:
        return _NAMES[name.replace("numpy._core.", "numpy.core.")]
    except KeyError:
        raise UnsafePickleError(name.replace(" ", ".")[:60]) from None


def _expect(value: Any, kind: type[Any] | tuple[type[Any], ...]) -> Any:
    if not isinstance(value, kind):
        wanted = " or ".join(k.__name__.strip("_") for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise UnsafePickleError(f"{type(value).__name__.strip('_')} in the place of {wanted}")
    return value


def _are_sizes(*values: Any) -> bool:
    return all(type(n) is int and n >= 0 for n in values)


# ---- foreign objects in torch's files

# Modules of the standard library whose objects a training may record.
_DATA = frozenset(["argparse", "collections", "copyreg", "datetime", "functools", "pathlib", "types", "typing"])
_BUILTINS = frozenset(
    ["getattr", "bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "slice", "str", "tuple"]
)


class _Inert:
    """Stand-in of a class, a function or its result: it accepts any arguments and state, and keeps none."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _InertDict:
    """Stand-in of a subclass of dict: torch's reader adds items only to this type."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def stand_ins(file: IO[bytes], pickles: int = 1) -> list[tuple[Any, str]]:
    """Return inert stand-ins of the foreign classes and functions that a torch file names beside its tensors.

    Training checkpoints hold more than weights, such as mmengine's loss history, numpy numbers or a configuration, and
    ``torch.load(weights_only=True)`` refuses such files. With these pairs for `torch.serialization.safe_globals` it
    reads the tensors, and imports and calls nothing that the file names. Functions of the standard library get no
    stand-in: attacks use them, and training records do not. Neither do torch's own names, so that no tensor is lost.

    Args:
        file: The pickles of a torch file: a mapped file or `io.BytesIO`, which reserve no memory for a stated length.
        pickles: Number of pickles to scan.

    Raises:
        ValueError: A pickle is damaged.
    """
    found = set()
    for _ in range(pickles):
        for opcode, argument, _position in pickletools.genops(file):
            if opcode.name == "GLOBAL":
                module, _, name = str(argument).partition(" ")
                # As torch's reader does for protocol 2, which writes Python 2's names.
                module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                if _may_stand_in(module, name):
                    found.add(f"{module}.{name}")
    return [(_InertDict if name.lower().endswith(("dict", "cfgnode")) else _Inert, name) for name in sorted(found)]


def _may_stand_in(module: str, name: str) -> bool:
    top = module.partition(".")[0]
    if top == "builtins":
        return name in _BUILTINS
    known_to_torch = top == "torch" or (module, name) in (("collections", "OrderedDict"), ("collections", "Counter"))
    return not known_to_torch and (top not in sys.stdlib_module_names or top in _DATA)
