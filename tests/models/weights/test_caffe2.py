"""Caffe2 pickles: names against a forward pass and a hand-written table, the reader against hostile files."""

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
from dnl_video.models.build import build_model
from dnl_video.models.weights import caffe2, pyslowfast

from .pyslowfast_net import NONLOCAL, draw, fill, load, probabilities, shapes

LEAVES = {"weight": "_w", "bias": "_b"}
NORM_LEAVES = {"weight": "_bn_s", "bias": "_bn_b", "running_mean": "_bn_rm", "running_var": "_bn_riv"}


def blob(name, last_blocks=(2, 3, 5)):
    """The caffe2 name of a PySlowFast tensor; `last_blocks` are the last of s2, s3, s4, behind which the paths fuse."""
    module, _, leaf = name.rpartition(".")
    t = "t_" if "pathway1" in module else ""
    norm = module.endswith("bn")
    suffix = (NORM_LEAVES if norm else LEAVES)[leaf]
    stage = module[1]
    if module == "head.projection":
        return f"pred{suffix}"
    if "_stem" in module:
        return f"{t}{'res_' if norm else ''}conv1{suffix}"
    if "_fuse" in module:
        before = "pool1" if stage == "1" else f"res{stage}_{last_blocks[int(stage) - 2]}_branch2c_bn"
        return f"t_{before}_subsample{suffix}"
    block, _, layer = module.partition(".")[2].partition(".")
    if "nonlocal" in block:
        index = block.removeprefix("pathway0_nonlocal")
        return f"nonlocal_conv{stage}_{index}{'' if norm else layer.replace('conv', '')}{suffix}"
    branch = layer.removesuffix("_bn").replace(".", "")  # branch1, branch2a
    return f"{t}res{stage}_{block[len('pathway0_res') :]}_{branch}{suffix}"


def blobs(tensors, last_blocks=(2, 3, 5)):
    return {blob(name, last_blocks): t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}


# ---- names


@pytest.mark.parametrize("arch", ["slow", "i3d", "c2d_nopool", "slowfast"])
@pytest.mark.parametrize("blocks", [None, NONLOCAL], ids=["bare", "nonlocal"])
@torch.no_grad()
def test_probabilities_are_pyslowfasts(arch, blocks):
    tensors = draw(shapes(arch, nonlocal_blocks=blocks))
    weights = caffe2.convert(blobs(tensors))
    # The zoo's C2D does not pool over time, and neither does Slow.
    assert weights.spec.architecture == ("slow_r50" if arch == "c2d_nopool" else f"{arch}_r50")
    clip = torch.randn(1, 3, 12 if arch == "slowfast" else 4, 64, 64, dtype=torch.float64)
    attention = "dot_product" if arch.startswith("slow") else "softmax"
    expected = probabilities(tensors, clip, arch, attention=attention)
    torch.testing.assert_close(load(weights)(clip), expected, rtol=1e-5, atol=1e-7)


def test_names_by_hand():
    tensors = blobs(draw(shapes("slowfast", nonlocal_blocks=NONLOCAL)))
    source = caffe2.convert(tensors).source_names
    slow, fast = "multipathway_blocks.0", "multipathway_blocks.1"
    block = f"blocks.2.{slow}.context_blocks.1"
    table = {
        f"blocks.0.{slow}.conv.weight": "conv1_w",
        f"blocks.0.{slow}.norm.weight": "res_conv1_bn_s",
        f"blocks.0.{fast}.conv.weight": "t_conv1_w",
        f"blocks.0.{fast}.norm.running_mean": "t_res_conv1_bn_rm",
        f"blocks.2.{slow}.res_blocks.1.branch2.conv_a.weight": "res3_1_branch2a_w",
        f"blocks.2.{slow}.res_blocks.1.branch2.norm_a.running_var": "res3_1_branch2a_bn_riv",
        f"blocks.2.{slow}.res_blocks.0.branch1_conv.weight": "res3_0_branch1_w",
        f"blocks.2.{slow}.res_blocks.0.branch1_norm.bias": "res3_0_branch1_bn_b",
        f"blocks.3.{fast}.res_blocks.4.branch2.conv_c.weight": "t_res4_4_branch2c_w",
        f"blocks.3.{fast}.res_blocks.4.branch2.norm_c.weight": "t_res4_4_branch2c_bn_s",
        "blocks.0.multipathway_fusion.conv_fast_to_slow.weight": "t_pool1_subsample_w",
        "blocks.0.multipathway_fusion.norm.bias": "t_pool1_subsample_bn_b",
        "blocks.1.multipathway_fusion.conv_fast_to_slow.weight": "t_res2_2_branch2c_bn_subsample_w",
        "blocks.3.multipathway_fusion.norm.running_var": "t_res4_5_branch2c_bn_subsample_bn_riv",
        f"{block}.query.weight": "nonlocal_conv3_1_theta_w",
        f"{block}.query.bias": "nonlocal_conv3_1_theta_b",
        f"{block}.key.weight": "nonlocal_conv3_1_phi_w",
        f"{block}.value.weight": "nonlocal_conv3_1_g_w",
        f"{block}.out.weight": "nonlocal_conv3_1_out_w",
        f"{block}.norm.weight": "nonlocal_conv3_1_bn_s",
        "blocks.6.proj.weight": "pred_w",
        "blocks.6.proj.bias": "pred_b",
    }
    assert {name: source[name] for name in table} == table
    assert set(table.values()) <= set(tensors)


@settings(max_examples=8, deadline=None)
@given(
    arch=st.sampled_from(["slow", "i3d", "c2d", "slowfast"]),
    depth=st.sampled_from([50, 101]),
    nonlocal_blocks=st.sampled_from([{}, NONLOCAL, {2: (0,), 4: (2, 5), 5: (2,)}]),
)
def test_no_blob_is_left_or_doubled(arch, depth, nonlocal_blocks):
    """Each blob, filled with a number of its own, arrives in one tensor of the network, and none is free."""
    tensors = draw(shapes(arch, depth, classes=3, nonlocal_blocks=nonlocal_blocks))
    named = blobs(tensors, (2, 3, 5 if depth == 50 else 22))
    named = {name: torch.full(tensor.shape, float(i)) for i, (name, tensor) in enumerate(named.items())}
    optimiser = {f"{name}_momentum": tensor for name, tensor in named.items()} | {"lr": torch.tensor(0.1)}
    weights = caffe2.convert(named | optimiser | {"model_iter": torch.tensor(9), "shift": torch.tensor(1)})
    left = dict.fromkeys([*optimiser, "model_iter"], "state of the optimiser")
    assert weights.left == left | {"shift": "no place in networks of this package"}
    assert sorted(weights.source_names.values()) == sorted(named)
    model = build_model(weights.spec)
    fill(model, weights)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    # The largest number: padding puts zeros around kernels.
    assert sorted(tensor.max().item() for tensor in state.values()) == list(range(len(named)))


def test_c2d_with_pooling_when_asked_for():
    tensors = blobs(draw(shapes("c2d")))
    assert caffe2.convert(tensors, architecture="c2d_r50").spec.architecture == "c2d_r50"
    assert any("c2d_nopool" in note for note in caffe2.convert(tensors).notes)


def test_classifier_as_convolution():
    tensors = blobs(draw(shapes("slow")))
    tensors["pred_w"] = tensors["pred_w"][:, :, None, None, None]
    weights = caffe2.convert(tensors)
    assert weights.state_dict["blocks.5.proj.weight"].shape == (5, 256)
    assert weights.spec.num_classes == 5


def test_preprocessing_is_recorded():
    weights = caffe2.convert(blobs(draw(shapes("slow"))))
    assert (weights.preprocessing["channel_order"], weights.preprocessing["sampling"]) == ("rgb", "pyslowfast")


def test_frozen_norms_are_refused():
    tensors = {n: t for n, t in blobs(draw(shapes("slow"))).items() if not n.endswith(("_rm", "_riv"))}
    with pytest.raises(InputError, match=r"scales in place of batch norms \(no 'res_conv1_bn_rm'\); give a file of"):
        caffe2.convert(tensors)


def test_matches_its_own_only():
    named = blobs(draw(shapes("slow")))
    assert caffe2.matches({name: tuple(tensor.shape) for name, tensor in named.items()})
    assert not pyslowfast.matches({name: tuple(tensor.shape) for name, tensor in named.items()})
    assert not caffe2.matches({"conv1.weight": (64, 3, 7, 7), "layer1.0.conv1.weight": (64, 64, 1, 1)})
    assert not caffe2.matches({})


# ---- files


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
        caffe2.read_caffe2(path)
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
    found = caffe2.read_caffe2(write(tmp_path, content))
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
    found = caffe2.read_caffe2(write(tmp_path, pickle.dumps(arrays if bare else {"blobs": arrays}, protocol)))
    assert found.keys() == arrays.keys()
    for key, value in arrays.items():
        np.testing.assert_array_equal(found[key].numpy(), value)
    assert found["w"].is_contiguous()
    found["w"] += 1  # tensors own their memory


@torch.no_grad()
def test_a_file_becomes_a_network(tmp_path):
    tensors = draw(shapes("i3d"))
    content = pickled({key: array(tensor.numpy()) for key, tensor in blobs(tensors).items()})
    weights = caffe2.convert(caffe2.read_caffe2(write(tmp_path, content)))
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
    monkeypatch.setattr(caffe2, "_MAX_OPCODES", 100)
    assert "more than 100 steps" in refusal(write(tmp_path, b"\x80\x02" + b"N" * 200 + b"."))


def test_memo_numbers_allocate_nothing(tmp_path):
    """Python's own reader makes room for 2 ** 32 objects here."""
    content = b"\x80\x02}r\xff\xff\xff\xff" + text("w") + array(VALUES) + b"s."
    assert torch.equal(caffe2.read_caffe2(write(tmp_path, content))["w"], torch.from_numpy(VALUES))


def test_truncated_files(tmp_path):
    content = pickled({"pred_w": array(VALUES), "pred_b": array(VALUES)})
    for end in range(1, len(content)):
        refusal(write(tmp_path, content[:end]))


def test_missing_file(tmp_path):
    path = tmp_path / "none.pkl"
    with pytest.raises(InputError) as error:
        caffe2.read_caffe2(path)
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
        found = caffe2.read_caffe2(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all(isinstance(tensor, torch.Tensor) and tensor.numel() <= 6 for tensor in found.values())
