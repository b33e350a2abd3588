"""The allow-list unpickler: reads plain data unchanged; refuses hostile pickles and runs none of their code."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnl_video.safe_pickle import PickledArray, UnsafePickleError, as_array, loads

# ---- pickles as Python 2 wrote them, byte by byte


def text(value):
    """A str of Python 2: BINSTRING."""
    raw = value.encode("latin1") if isinstance(value, str) else value
    return b"T" + struct.pack("<i", len(raw)) + raw


def integers(*values):
    return b"(" + b"".join(b"J" + struct.pack("<i", v) for v in values) + b"t"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


RECONSTRUCT = (
    name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + integers(0) + text("b") + b"\x87R"
)


def dtype(code="f4", order="<", rest=b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"):
    made = name("numpy", "dtype") + text(code) + b"K\x00K\x01\x87R"
    return made + b"(K\x03" + text(order) + rest + b"tb"


def array(values, shape=None, code=None, fortran=b"\x89", content=None):
    """An array as Python 2's cPickle wrote it."""
    shape = integers(*values.shape) if shape is None else shape
    content = text(values.tobytes()) if content is None else content
    return RECONSTRUCT + b"(K\x01" + shape + (code or dtype(values.dtype.str[1:])) + fortran + content + b"tb"


def dictionary(entries):
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def pickled(entries):
    """A caffe2 file of blobs, protocol 2."""
    return b"\x80\x02" + dictionary({"blobs": dictionary(entries)}) + b"."


VALUES = np.arange(6, dtype="f4").reshape(2, 3)

# ---- plain data


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


def test_arrays_of_python_2():
    content = dictionary({"w": array(VALUES), "flags": array(np.array([True, False])), "lr": array(np.array(0.25))})
    found = loads(b"\x80\x02" + content + b".")
    expected = pickle.loads(b"\x80\x02" + content + b".", encoding="latin1")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key].array, value)


TENSORS = [
    torch.arange(6.0).reshape(2, 3),
    torch.arange(12).reshape(3, 4).T[1:, ::2],
    torch.tensor([1.5, -2.0]).bfloat16(),
    torch.tensor([True, False]),
    torch.zeros(0, 3).half(),
    torch.tensor(7, dtype=torch.uint8),
]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("tensor", TENSORS, ids=lambda t: f"{t.dtype}{list(t.shape)}")
def test_tensors(tensor: torch.Tensor, protocol: int) -> None:
    array = as_array(loads(pickle.dumps([tensor, tensor.shape], protocol))[0])
    expected = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    np.testing.assert_array_equal(array, expected.numpy())
    assert array.dtype == expected.numpy().dtype


# ---- hostile pickles


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_calls_are_refused_and_nothing_runs(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    touch = Runs(os.system, f"touch {mark}")
    attacks = {
        "system": touch,
        "eval": {"blobs": {"w": [{"deep": (Runs(eval, f"open({str(mark)!r}, 'w')"),)}]}},
        "Popen": [1, Runs(subprocess.Popen, ["touch", str(mark)])],
        "getattr": Runs(getattr, Runs(__import__, "os"), "system"),
        "exec": Runs(exec, f"open({str(mark)!r}, 'w')"),
        "loads": Runs(pickle.loads, pickle.dumps(touch)),
        "numpy.load": Runs(np.load, str(mark), None, True),
        "empty": Runs(np.empty, (10**15,)),
        "bytes|TypeError": Runs(bytes, 10**15),
    }
    for name, attack in attacks.items():
        with pytest.raises(pickle.UnpicklingError, match=name if protocol > 1 else None):
            loads(pickle.dumps(attack, protocol))
        assert not mark.exists()
    pickle.loads(pickle.dumps(touch, protocol))
    assert mark.exists()  # Python's own unpickler runs it


# A tuple of 200 levels, each holding the previous one twice: its hash or text takes 2 ** 200 steps.
NESTED = b")" + b"q\x01h\x01\x86" * 200
HOSTILE = {
    "os.system": (b"cposix\nsystem\n(S'true'\ntR.", "posix.system"),
    "stack_global": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "posix.system"),
    "getattr": (b"\x80\x02cbuiltins\ngetattr\n" + name("numpy", "dtype") + b"U\x03mro\x86R.", "builtins.getattr"),
    "instance": (b"\x80\x02(iposix\nsystem\n.", "the opcode INST"),
    "object": (b"\x80\x02(" + name("numpy", "ndarray") + integers(10**9) + b"o.", "the opcode OBJ"),
    "new object": (b"\x80\x02" + name("numpy", "ndarray") + integers(10**9) + b"\x81.", "the opcode NEWOBJ"),
    "call of ndarray": (b"\x80\x02" + name("numpy", "ndarray") + integers(10**9) + b"\x85R.", "a call of a type"),
    "call of a storage": (b"\x80\x02" + name("torch", "FloatStorage") + integers(10**9) + b"R.", "a call of a type"),
    "call of a string": (b"\x80\x02" + text("w") + b")R.", "str in the place of Function"),
    "persistent": (b"\x80\x02Pfile\n.", "the opcode PERSID"),
    "persistent id": (b"\x80\x02" + text("file") + b"Q.", "the opcode BINPERSID"),
    "extension": (b"\x80\x02\x82\x01.", "the opcode EXT1"),
    "set attributes of a function": (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00aK\x01s\x85b.",
        "a state for Function",
    ),
    "set attributes of a type": (
        b"\x80\x02" + name("numpy", "dtype") + b"N}" + text("__call__") + b"Ns\x86b.",
        "a state for Function",
    ),
    "state that is no tuple": (b"\x80\x02" + RECONSTRUCT + b"}b.", "dict in the place of tuple"),
    "forged shape": (
        pickled({"w": array(VALUES, shape=integers(2**31 - 1, 2**31 - 1))}),
        "an array of shape [2147483647, 2147483647] and type float32 in 24 bytes",
    ),
    "negative shape": (pickled({"w": array(VALUES, shape=integers(-2, -3))}), "an array without a plain shape"),
    "shape of floats": (
        pickled({"w": array(VALUES, shape=b"G" + struct.pack(">d", 6.0) + b"\x85")}),
        "an array without a plain shape",
    ),
    "many dimensions": (pickled({"w": array(VALUES, shape=integers(*[1] * 40, 6))}), "an array without a plain shape"),
    "few bytes": (pickled({"w": array(VALUES, content=text("abc"))}), "in 3 bytes"),
    "objects": (pickled({"w": array(VALUES, code=dtype("O8", "|"))}), "an array of type 'O8'"),
    "objects in a list": (
        pickled({"w": array(VALUES, shape=integers(1), content=b"](" + name("os", "system") + b"e")}),
        "os.system",
    ),
    "list for bytes": (pickled({"w": array(VALUES, content=b"]")}), "list in the place of bytes"),
    "structures": (
        pickled({"w": array(VALUES, code=dtype("f4", "<", b"N" + text("a") + b"NJ\x00\x00\x00\x00K\x01K\x00"))}),
        "an array of structures",
    ),
    "dtype by name": (pickled({"w": array(VALUES, code=dtype("f4, O"))}), "an array of type 'f4, O'"),
    "text": (pickled({"w": array(VALUES, code=dtype("S4"))}), "an array of type 'S4'"),
    "dates": (pickled({"w": array(VALUES, code=dtype("M8"))}), "an array of type 'M8'"),
    "more bytes than the file": (
        pickled(
            {"a": array(np.zeros(4096, "f4"), content=text(bytes(16384)) + b"q\x01")}
            | {f"b{i}": array(np.zeros(4096, "f4"), content=b"h\x01") for i in range(9)}
        ),
        "arrays with more bytes than the file",
    ),
    "endless text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"w.", "expected 1099511627776 bytes"),
    "endless bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"w.", "bytes"),
    "key that is no text": (b"\x80\x02})K\x01s.", "tuple in the place of str or int"),
    "nested key": (b"\x80\x02}" + NESTED + b"K\x01s.", "tuple in the place of str or int"),
    "nested shape": (pickled({"w": array(VALUES, shape=NESTED)}), "an array without a plain shape"),
    "nested storage": (b"\x80\x02" + name("torch.storage", "_load_from_bytes") + NESTED + b"R.", ""),
    "empty stack": (b"\x80\x02R.", "IndexError"),
    "no such memo": (b"\x80\x02h\x07.", "KeyError"),
    "no mark": (b"\x80\x02t.", "IndexError"),
    "future protocol": (b"\x80\x02\xff.", "unknown"),
    "html": (b"<html>404</html>", "at position 0, opcode b'<' unknown"),
    "empty": (b"", "pickle exhausted before seeing STOP"),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles(content: bytes, reason: str) -> None:
    with pytest.raises(pickle.UnpicklingError) as error:
        loads(content)
    assert reason in str(error.value)


def test_steps_are_limited() -> None:
    with pytest.raises(UnsafePickleError, match="more than 100 steps"):
        loads(b"\x80\x02" + b"N" * 200 + b".", max_steps=100)


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


VALID = b"\x80\x04" + dictionary({"w": array(VALUES), "b": array(np.zeros(2, "f8"), fortran=b"\x88")})[:-1] + b"u."


def test_every_cut_is_one_kind_of_error() -> None:
    for whole in (VALID, pickle.dumps({"a": np.arange(3.0), "b": [np.int32(2), torch.ones(2)]}, protocol=4)):
        loads(whole)
        for end in range(len(whole)):
            with pytest.raises(pickle.UnpicklingError):
                loads(whole[:end])


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=4), modern=...)
def test_any_damage_gives_small_arrays_or_one_kind_of_error(changes: list[tuple[int, int]], modern: bool) -> None:
    content = bytearray(pickle.dumps({"a": np.arange(3.0), "b": torch.ones(2)}, protocol=4) if modern else VALID)
    for position, value in changes:
        content[position % len(content)] = value
    with contextlib.suppress(pickle.UnpicklingError):
        found = loads(bytes(content))
        for value in found.values() if isinstance(found, dict) else []:
            assert not isinstance(value, PickledArray) or value.array.size <= 6
