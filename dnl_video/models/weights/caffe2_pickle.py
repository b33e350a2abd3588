"""Reading caffe2's pickles of arrays without running anything in them; their names are `caffe2`'s concern."""

from __future__ import annotations

import math
import mmap
import pickletools
import re
from enum import Enum
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from dnl_video.errors import InputError


def read_caffe2(path: Path) -> dict[str, Tensor]:
    """Read the arrays of a pickle that Python 2 wrote, without running anything it asks for.

    Raises:
        InputError: The file is damaged, or holds or names anything but numeric arrays.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _ArrayUnpickler(len(content)).load(cast("IO[bytes]", content))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file of weights") from error
    except Exception as error:  # a damaged file breaks whatever the reader stumbles over
        told = str(error).strip() if isinstance(error, (_Refused, ValueError)) else ""
        reason = (told or "damaged").splitlines()[0][:120]
        raise InputError(
            f"{path}: not a readable caffe2 pickle ({reason}); give a whole .pkl of PySlowFast's model zoo"
        ) from error
    return found


class _Refused(Exception):
    """A pickle asks for what weights never need."""


class _Name(Enum):
    """The only globals a pickle may name. They stand for themselves: nothing here can be called."""

    RECONSTRUCT = "numpy.core.multiarray _reconstruct"
    NDARRAY = "numpy ndarray"
    DTYPE = "numpy dtype"
    ENCODE = "_codecs encode"


class _Dtype:
    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype


class _Array:
    tensor: Tensor | None = None


_NUMERIC = re.compile(r"[<>=|]?(f[248]|[iu]1|i[248]|b1)")
_PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# A file has about thirty for each of some thousand blobs.
_MAX_OPCODES = 2_000_000
_MAX_DIMENSIONS = 8


class _ArrayUnpickler:
    """A pickle machine with the few opcodes that dictionaries of arrays need.

    Python's own unpickler calls, sets attributes and allocates as the file says, behind any `find_class`. Here REDUCE
    and BUILD know four names and make placeholders; an array's numbers are allocated once its shape, dtype and bytes
    agree, and never more of them than the file has.

    Args:
        size: Bytes of the file.
    """

    def __init__(self, size: int) -> None:
        # Protocol 2 of Python 3 has bytes as text first: two copies of each.
        self._budget = 2 * size
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self, file: IO[bytes]) -> dict[str, Tensor]:
        """Run the pickle and return its ``blobs``."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > _MAX_OPCODES:
                raise _Refused(f"more than {_MAX_OPCODES} steps")
            self._step(opcode.name, argument)
        content = self._stack.pop()
        blobs = content.get("blobs", content) if isinstance(content, dict) else None
        if not isinstance(blobs, dict) or not blobs:
            raise _Refused("it holds no dictionary of blobs")
        return {_key(name): _as_tensor(name, value) for name, value in blobs.items()}

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
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
                target[_key(key)] = value
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_global(argument if name == "GLOBAL" else " ".join([stack.pop(-2), stack.pop()])))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(self._reduce(stack.pop(), _expect(arguments, tuple)))
        elif name == "BUILD":
            state = stack.pop()
            self._build(stack[-1], _expect(state, tuple))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise _Refused(f"it uses the opcode {name}")

    def _to_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _reduce(self, name: Any, arguments: tuple[Any, ...]) -> Any:
        if name is _Name.RECONSTRUCT and arguments[:1] == (_Name.NDARRAY,):
            return _Array()  # whatever shape it names here: numpy's own is empty until BUILD
        if name is _Name.DTYPE and isinstance(arguments[0], str):
            if not _NUMERIC.fullmatch(arguments[0]):
                raise _Refused(f"it holds an array of dtype {arguments[0]!r}")
            return _Dtype(np.dtype(arguments[0]))
        if name is _Name.ENCODE and arguments[1:] == ("latin1",):
            self._spend(len(arguments[0]))
            return arguments[0].encode("latin1")
        raise _Refused("it calls what is no array")

    def _build(self, target: Any, state: tuple[Any, ...]) -> None:
        if isinstance(target, _Dtype):
            # (version, byte order, subarray, names, fields, size, alignment, flags)
            if state[2:5] != (None, None, None) or state[1] not in ("<", ">", "=", "|"):
                raise _Refused("it holds an array of structures")
            target.dtype = target.dtype.newbyteorder(state[1])
        elif isinstance(target, _Array):
            _, shape, dtype, fortran, data = state
            target.tensor = self._array(_expect(shape, tuple), _expect(dtype, _Dtype).dtype, bool(fortran), data)
        else:
            raise _Refused("it sets attributes of what is no array")

    def _array(self, shape: tuple[Any, ...], dtype: np.dtype[Any], fortran: bool, data: Any) -> Tensor:
        if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
            raise _Refused("it holds an array without a plain shape")
        content = data.encode("latin1") if isinstance(data, str) else _expect(data, bytes)
        if math.prod(shape) * dtype.itemsize != len(content):
            raise _Refused(f"an array {list(shape)} of {dtype} has {len(content)} bytes")
        self._spend(len(content))
        array = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
        return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("="), order="C"))

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise _Refused("its arrays have more bytes than the file")


def _global(name: str) -> _Name:
    try:
        return _Name(name.replace("numpy._core.", "numpy.core."))
    except ValueError:
        raise _Refused(f"it names {name.replace(' ', '.')[:60]}, which weights never need") from None


def _expect(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise _Refused(f"it has {type(value).__name__.strip('_')} where {kind.__name__.strip('_')} belongs")
    return value


def _key(key: Any) -> str:
    """Return a dictionary's key; others than text could take forever to hash."""
    return cast(str, _expect(key, str))


def _as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, _Array) and value.tensor is not None:
        return value.tensor
    if isinstance(value, (int, float)):
        return torch.tensor(value)
    raise _Refused(f"blob {name[:60]!r} is no array")
