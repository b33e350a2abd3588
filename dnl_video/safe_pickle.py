"""Reading plain data from a pickle without running anything that is in it.

A pickle is a program: it names functions and calls them. Here every name it may use is on a list, with a stand-in of
ours that only holds what it is given; any other name is refused before anything is called. numpy arrays come out as
`PickledArray`, whose data is checked against its shape before an array is made, so a forged shape allocates nothing.
"""

from __future__ import annotations

import io
import math
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

# numpy's own type codes, such as f4, i8 or b1; no objects, no records.
_PLAIN_KINDS = frozenset("biuf")


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle wants something that plain data does not need."""


class PickledType:
    """numpy's dtype in a pickle."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code if isinstance(code, str) else "?"
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, ...)
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise UnsafePickleError("an array of records")
        self.order = {">": ">", "<": "<"}.get(state[1], "=")

    def numpy(self) -> np.dtype[Any]:
        """Return the type.

        Raises:
            UnsafePickleError: It is no plain number.
        """
        if self.code[:1] not in _PLAIN_KINDS or not self.code[1:].isdigit():
            raise UnsafePickleError(f"an array of type {self.code!r}")
        try:
            return np.dtype(self.order + self.code)
        except TypeError as error:
            raise UnsafePickleError(f"an array of type {self.code!r}") from error


class PickledArray:
    """A numpy array in a pickle; `array` is it."""

    def __init__(self) -> None:
        self.array: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        # (version, shape, dtype, whether in Fortran's order, bytes); very old ones lack the version.
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise UnsafePickleError("a damaged array")
        self.array = _array(state[-1], state[-3], state[-4], "F" if state[-2] else "C")


def _array(data: Any, kind: Any, shape: Any, order: Any = "C") -> NDArray[Any]:
    """Return the array that bytes are, when there are exactly as many as its shape says."""
    if isinstance(data, str):  # Python 2's bytes, read as latin-1
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or not isinstance(kind, PickledType) or not _is_shape(shape):
        raise UnsafePickleError("a damaged array")
    dtype = kind.numpy()
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise UnsafePickleError(f"an array of shape {shape} and type {dtype} in {len(data)} bytes")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)


def _new_array(*_: Any) -> PickledArray:
    return PickledArray()


def _array_of_buffer(data: Any, kind: Any, shape: Any, order: Any) -> PickledArray:
    made = PickledArray()
    made.array = _array(data, kind, shape, order)
    return made


def _scalar(kind: Any, data: Any = b"") -> Any:
    return _array(data, kind, ()).item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafePickleError("a call of encode")
    return text.encode("latin1")


def _no_bytes(*given: Any) -> bytes:
    """How protocol 2 writes empty bytes."""
    if given:
        raise UnsafePickleError("a call of bytes")
    return b""


def _no_class(*_: Any) -> None:
    raise UnsafePickleError("a call of numpy.ndarray")


NUMPY_NAMES: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "dtype"): PickledType,
    ("numpy", "ndarray"): _no_class,  # only an argument of _reconstruct
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _new_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_of_buffer for core in ("core", "_core")},
}


class AllowListUnpickler(pickle._Unpickler):
    """An unpickler that knows only the names it is given.

    It is the standard library's own reader in Python: the one in C reserves memory for whatever length or memo index a
    file claims.

    Args:
        data: The open file.
        names: Stand-in for each (module, name) that the file may use.
        encoding: How Python 2's strings are read.
        storages: What `persistent_load` does; None refuses it.
    """

    def __init__(
        self,
        data: Any,
        names: Mapping[tuple[str, str], Callable[..., Any]] = NUMPY_NAMES,
        *,
        encoding: str = "ASCII",
        storages: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(data, encoding=encoding)  # type: ignore[call-arg]
        self._names = names
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in.

        Raises:
            UnsafePickleError: There is none.
        """
        try:
            return self._names[module, name]
        except KeyError:
            raise UnsafePickleError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        """Return what stands for a persistent id."""
        if self._storages is None:
            raise UnsafePickleError("a persistent id")
        return self._storages(pid)

    def _build(self) -> None:
        # Only our stand-ins take a state: setting attributes of a function or a class would change it for everyone.
        if not isinstance(self.stack[-2], (PickledArray, PickledType)):  # type: ignore[attr-defined]
            raise UnsafePickleError(f"a state for {type(self.stack[-2]).__name__}")  # type: ignore[attr-defined]
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]

    def _bytearray(self) -> None:
        # The library's own reserves the length the file states before it reads.
        size = int.from_bytes(self.read(8), "little")  # type: ignore[attr-defined]
        data = self.read(min(size, sys.maxsize))  # type: ignore[attr-defined]
        if len(data) != size:
            raise pickle.UnpicklingError("pickle data was truncated")
        self.append(data)  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Any]] = {  # type: ignore[misc]
        **pickle._Unpickler.dispatch,  # type: ignore[attr-defined]
        pickle.BUILD[0]: _build,
        pickle.BYTEARRAY8[0]: _bytearray,
    }


def loads(data: bytes, names: Mapping[tuple[str, str], Callable[..., Any]] = NUMPY_NAMES) -> Any:
    """Read a pickle that holds plain data.

    Args:
        data: The pickle.
        names: Stand-in for each (module, name) that it may use.

    Raises:
        UnsafePickleError: It uses another name, or a shape that its data does not have.
        pickle.UnpicklingError: It is damaged.
    """
    return guarded(lambda: AllowListUnpickler(io.BytesIO(data), names).load())


def guarded(read: Callable[[], Any]) -> Any:
    """Return what `read` returns; whatever a damaged or forged pickle raises becomes an UnpicklingError."""
    try:
        return read()
    except pickle.UnpicklingError:
        raise
    except (MemoryError, RecursionError) as error:
        raise UnsafePickleError("more memory than there is") from error
    except Exception as error:  # a pickle is a program, and fails as programs do
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error
