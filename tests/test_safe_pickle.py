"""Plain data comes out of pickles as it went in; nothing else is read, and nothing is ever run."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnl_video.safe_pickle import PickledArray, UnsafePickleError, loads

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(10, dtype=np.int64)[::-2],
    np.arange(4, dtype=">i4"),
    np.array([True, False]),
    np.float16([0.5, 2]),
    np.zeros((0, 5)),
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays(array: np.ndarray, protocol: int) -> None:
    read = loads(pickle.dumps({"a": [array]}, protocol=protocol))["a"][0]
    assert isinstance(read, PickledArray)
    np.testing.assert_array_equal(read.array, array)
    assert read.array.dtype == array.dtype


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values(protocol: int) -> None:
    value = {"a": [1, 2.5, None, True, "ä", b"\x00\xff", 2**70], "b": ((), {"c": -1})}
    assert loads(pickle.dumps(value, protocol=protocol)) == value
    assert loads(pickle.dumps([np.int64(3), np.float32(0.5)], protocol=protocol)) == [3, 0.5]


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch {}",), "system"),
        (eval, ("open('{}', 'w')",), "eval"),
        (subprocess.Popen, (["touch", "{}"],), "Popen"),
        (getattr, ("x", "__class__"), "getattr"),
        (np.load, ("{}",), "numpy.load"),
        (np.empty, ((10**15,),), "empty"),
        (bytes, (10**15,), "bytes"),
    ],
)
def test_calls_are_refused_and_nothing_runs(
    function: Any, args: tuple[Any, ...], name: str, protocol: int, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    filled = tuple(a.format(mark) if isinstance(a, str) else a for a in args)
    with pytest.raises(UnsafePickleError, match=name):
        loads(pickle.dumps([1, Runs(function, *filled)], protocol=protocol))
    assert not mark.exists()


def test_objects_with_a_state_are_refused() -> None:
    # Sets an attribute of the stand-in of numpy._core.multiarray._reconstruct, if it may.
    forged = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00aK\x01sb."
    with pytest.raises(UnsafePickleError, match="a state for function"):
        loads(forged)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04" + pickle.BINBYTES8 + (2**40).to_bytes(8, "little") + b"abc.",
        b"\x80\x05" + pickle.BYTEARRAY8 + (2**40).to_bytes(8, "little") + b"abc.",
        b"\x80\x02K\x01" + pickle.LONG_BINPUT + (2**32 - 1).to_bytes(4, "little") + b".",
        b"\x80\x02" + pickle.BINUNICODE + (2**31).to_bytes(4, "little") + b"abc.",
        b"\x80\x04" + pickle.FRAME + (2**50).to_bytes(8, "little") + b"K\x01.",
    ],
    ids=["bytes", "bytearray", "memo", "text", "frame"],
)
def test_stated_lengths_reserve_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(pickle.UnpicklingError):
            loads(data)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def forge(**changes: Any) -> bytes:
    """Return a pickled array whose state says something else than its data."""

    class Forged:
        def __reduce__(self) -> Any:
            function, args, state = np.arange(4, dtype=np.float32).__reduce__()
            version, shape, dtype, fortran, data = state
            shape, dtype, data = (changes.get(k, v) for k, v in (("shape", shape), ("dtype", dtype), ("data", data)))
            return function, args, (version, shape, dtype, fortran, data)

    return pickle.dumps(Forged(), protocol=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (10**6, 10**6)}, r"an array of shape \(1000000, 1000000\) and type float32 in 16 bytes"),
        ({"shape": (-1, -4)}, "a damaged array"),
        ({"shape": (2.0, 2)}, "a damaged array"),
        ({"dtype": np.dtype(object), "data": [1, 2, 3, 4]}, "a damaged array"),
        ({"dtype": np.dtype(object)}, "an array of type 'O8'"),
        ({"dtype": np.dtype([("a", "f4")])}, "an array of"),
        ({"dtype": np.dtype("S4")}, "an array of type 'S4'"),
        ({"data": b"abc"}, "in 3 bytes"),
    ],
)
def test_forged_arrays(changes: dict[str, Any], message: str) -> None:
    assert loads(forge()).array.tolist() == [0, 1, 2, 3]
    with pytest.raises(UnsafePickleError, match=message):
        loads(forge(**changes))


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x02", b"\x80\x02]q\x00(K\x01", b"\x80\x09.", b"\x80\x02\xff.", b"\x80\x02R."]
)
def test_damaged_pickles(data: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        loads(data)


def test_every_cut_and_every_changed_byte_ends_in_one_kind_of_error() -> None:
    whole = pickle.dumps({"a": np.arange(3.0), "b": [np.int32(2), "x"]}, protocol=4)
    for end in range(len(whole)):
        with pytest.raises(pickle.UnpicklingError):
            loads(whole[:end])
    rng = np.random.default_rng(0)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] = rng.integers(256)
        try:
            loads(bytes(changed))
        except pickle.UnpicklingError:
            continue
