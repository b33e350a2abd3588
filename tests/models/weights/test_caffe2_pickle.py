"""The reader of caffe2's pickles against real files, hostile ones and damaged ones."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnl_video.errors import InputError
from dnl_video.models.weights import caffe2, caffe2_pickle
from dnl_video.models.weights.caffe2_pickle import read_caffe2

from .pyslowfast_net import draw, load, probabilities, shapes
from .test_caffe2 import blobs


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
    """A file of blobs, protocol 2."""
    return b"\x80\x02" + dictionary({"blobs": dictionary(entries)}) + b"."


def write(tmp_path, content):
    path = tmp_path / "weights.pkl"
    path.write_bytes(content)
    return path


def refusal(path):
    with pytest.raises(InputError) as error:
        read_caffe2(path)
    message = str(error.value)
    assert message.startswith(f"{path}: not a readable caffe2 pickle (")
    assert message.endswith("); give a whole .pkl of PySlowFast's model zoo")
    assert "\n" not in message
    return message


VALUES = np.arange(6, dtype="f4").reshape(2, 3)


def test_reads_python_2(tmp_path):
    content = pickled(
        {
            "pred_w": array(VALUES),
            "lr": array(np.array(0.25, dtype="f8")),
            "none": array(np.zeros((0, 4), dtype="i8")),
            "model_iter": b"J" + struct.pack("<i", 70000),
        }
    )
    theirs = pickle.loads(content, encoding="latin1")["blobs"]  # what the file means to numpy
    np.testing.assert_array_equal(theirs["pred_w"], VALUES)
    found = read_caffe2(write(tmp_path, content))
    assert found.keys() == theirs.keys()
    for key, value in theirs.items():
        expected = torch.as_tensor(value)
        assert found[key].dtype == expected.dtype
        assert torch.equal(found[key], expected)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("bare", [True, False])
def test_reads_python_3(tmp_path, protocol, bare):
    arrays = {
        "w": np.random.default_rng(0).normal(size=(3, 4, 1, 1, 1)).astype("f4"),
        "fortran": np.asfortranarray(np.arange(12, dtype="f8").reshape(3, 4)),
        "big_endian": np.arange(5, dtype=">f4"),
        "half": np.ones(3, dtype="f2"),
        "flags": np.array([True, False]),
    }
    arrays["same"] = arrays["w"]
    found = read_caffe2(write(tmp_path, pickle.dumps(arrays if bare else {"blobs": arrays}, protocol)))
    assert found.keys() == arrays.keys()
    for key, value in arrays.items():
        np.testing.assert_array_equal(found[key].numpy(), value)
    assert found["w"].is_contiguous()
    found["w"] += 1  # tensors own their memory


@torch.no_grad()
def test_a_file_becomes_a_network(tmp_path):
    tensors = draw(shapes("i3d"))
    content = pickled({key: array(tensor.numpy()) for key, tensor in blobs(tensors).items()})
    weights = caffe2.convert(read_caffe2(write(tmp_path, content)))
    clip = torch.randn(1, 3, 4, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(load(weights)(clip), probabilities(tensors, clip, "i3d"), rtol=1e-5, atol=1e-7)


# ---- hostile and damaged files


class Calls:
    """Unpickles by calling a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(6))
def test_no_code_runs(tmp_path, protocol):
    marker = tmp_path / "ran"
    attacks = [
        Calls(os.system, f"touch {marker}"),
        {"blobs": {"w": VALUES, "x": Calls(os.system, f"touch {marker}")}},
        {"blobs": {"w": [{"deep": (Calls(eval, f"open({str(marker)!r}, 'w')"),)}]}},
        Calls(getattr, Calls(__import__, "os"), "system"),
        Calls(exec, f"open({str(marker)!r}, 'w')"),
        Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {marker}"))),
        Calls(np.load, str(marker), None, True),
    ]
    for attack in attacks:
        content = pickle.dumps(attack, protocol)
        message = refusal(write(tmp_path, content))
        assert not marker.exists()
        if protocol == 2:
            assert "which weights never need" in message
    pickle.loads(pickle.dumps(attacks[0], protocol))
    assert marker.exists()  # Python's own reader runs it


HOSTILE = {
    "os.system": (b"cposix\nsystem\n(S'true'\ntR.", "it names posix.system, which weights never need"),
    "stack_global": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "it names posix.system"),
    "getattr": (b"\x80\x02cbuiltins\ngetattr\n" + name("numpy", "dtype") + b"U\x03mro\x86R.", "names builtins.getattr"),
    "numpy's scalar": (b"\x80\x02" + name("numpy.core.multiarray", "scalar") + b".", "numpy.core.multiarray.scalar"),
    "instance": (b"\x80\x02(iposix\nsystem\n.", "it uses the opcode INST"),
    "object": (b"\x80\x02(" + name("numpy", "ndarray") + integers(10**9) + b"o.", "it uses the opcode OBJ"),
    "new object": (b"\x80\x02" + name("numpy", "ndarray") + integers(10**9) + b"\x81.", "it uses the opcode NEWOBJ"),
    "call of ndarray": (b"\x80\x02" + name("numpy", "ndarray") + integers(10**9) + b"\x85R.", "calls what is no array"),
    "call of a string": (b"\x80\x02" + text("w") + b")R.", "it calls what is no array"),
    "persistent": (b"\x80\x02Pfile\n.", "it uses the opcode PERSID"),
    "extension": (b"\x80\x02\x82\x01.", "it uses the opcode EXT1"),
    "set attributes": (
        b"\x80\x02" + name("numpy", "dtype") + b"N}" + text("__call__") + b"Ns\x86b.",
        "it sets attributes of what is no array",
    ),
    "state that is no tuple": (b"\x80\x02" + RECONSTRUCT + b"}b.", "it has dict where tuple belongs"),
    "forged shape": (
        pickled({"w": array(VALUES, shape=integers(2**31 - 1, 2**31 - 1))}),
        "an array [2147483647, 2147483647] of float32 has 24 bytes",
    ),
    "negative shape": (pickled({"w": array(VALUES, shape=integers(-2, -3))}), "an array without a plain shape"),
    "shape of floats": (
        pickled({"w": array(VALUES, shape=b"G" + struct.pack(">d", 6.0) + b"\x85")}),
        "an array without a plain shape",
    ),
    "many dimensions": (pickled({"w": array(VALUES, shape=integers(*[1] * 40, 6))}), "an array without a plain shape"),
    "objects": (pickled({"w": array(VALUES, code=dtype("O8", "|"))}), "an array of dtype 'O8'"),
    "objects in a list": (
        pickled({"w": array(VALUES, shape=integers(1), content=b"](" + name("os", "system") + b"e")}),
        "it names os.system",
    ),
    "list for bytes": (pickled({"w": array(VALUES, content=b"]")}), "it has list where bytes belongs"),
    "structures": (
        pickled({"w": array(VALUES, code=dtype("f4", "<", b"N" + text("a") + b"NJ\x00\x00\x00\x00K\x01K\x00"))}),
        "an array of structures",
    ),
    "dtype by name": (pickled({"w": array(VALUES, code=dtype("f4, O"))}), "an array of dtype 'f4, O'"),
    "dates": (pickled({"w": array(VALUES, code=dtype("M8"))}), "an array of dtype 'M8'"),
    "more bytes than the file": (
        pickled(
            {"a": array(np.zeros(4096, "f4"), content=text(bytes(16384)) + b"q\x01")}
            | {f"b{i}": array(np.zeros(4096, "f4"), content=b"h\x01") for i in range(9)}
        ),
        "its arrays have more bytes than the file",
    ),
    "endless text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"w.", "expected 1099511627776 bytes"),
    "endless bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"w.", "bytes"),
    "no blobs": (b"\x80\x02}.", "it holds no dictionary of blobs"),
    "a list": (b"\x80\x02].", "it holds no dictionary of blobs"),
    "text for an array": (pickled({"w": text("w")}), "blob 'w' is no array"),
    "empty array": (pickled({"w": RECONSTRUCT}), "blob 'w' is no array"),
    "number for a name": (b"\x80\x02}K\x01K\x01s.", "it has int where str belongs"),
    "empty stack": (b"\x80\x02R.", "damaged"),
    "no such memo": (b"\x80\x02h\x07.", "damaged"),
    "no mark": (b"\x80\x02t.", "damaged"),
    "html": (b"<html>404</html>", "at position 0, opcode b'<' unknown"),
    "empty": (b"", "cannot mmap an empty file"),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(tmp_path, content, reason):
    assert reason in refusal(write(tmp_path, content))


def nested(levels):
    """A tuple whose hash or text takes 2 ** levels steps: each level holds the one before twice."""
    return b")" + b"q\x01h\x01\x86" * levels


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x02}" + nested(200) + b"K\x01s.", "it has tuple where str belongs"),
        (pickled({"w": array(VALUES, shape=nested(200))}), "an array without a plain shape"),
        (pickled({"w": nested(200)}), "blob 'w' is no array"),
    ],
    ids=["key", "shape", "value"],
)
def test_exponential_files(tmp_path, content, reason):
    assert reason in refusal(write(tmp_path, content))


def test_steps_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(caffe2_pickle, "_MAX_OPCODES", 100)
    assert "more than 100 steps" in refusal(write(tmp_path, b"\x80\x02" + b"N" * 200 + b"."))


def test_memo_numbers_allocate_nothing(tmp_path):
    """Python's own reader makes room for 2 ** 32 objects here."""
    content = b"\x80\x02}r\xff\xff\xff\xff" + text("w") + array(VALUES) + b"s."
    assert torch.equal(read_caffe2(write(tmp_path, content))["w"], torch.from_numpy(VALUES))


def test_truncated_files(tmp_path):
    content = pickled({"pred_w": array(VALUES), "pred_b": array(VALUES)})
    for end in range(1, len(content)):
        refusal(write(tmp_path, content[:end]))


def test_missing_file(tmp_path):
    path = tmp_path / "none.pkl"
    with pytest.raises(InputError) as error:
        read_caffe2(path)
    assert str(error.value) == f"{path}: cannot be read (No such file or directory); give a file of weights"


VALID = pickled({"pred_w": array(VALUES), "pred_b": array(np.zeros(2, "f8"), fortran=b"\x88")})


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_gives_tensors_or_one_line(tmp_path_factory, changes):
    content = bytearray(VALID)
    for position, value in changes:
        content[position] = value
    path = write(tmp_path_factory.mktemp("damaged"), bytes(content))
    try:
        found = read_caffe2(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all(isinstance(tensor, torch.Tensor) and tensor.numel() <= 6 for tensor in found.values())
