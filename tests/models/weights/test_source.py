"""Weights files: recognised by content, read once, refused if damaged; foreign objects in them stay inert."""

from __future__ import annotations

import argparse
import builtins
import os
import pathlib
import pickle
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dnl_video.errors import InputError
from dnl_video.models.build import build_model
from dnl_video.models.weights import source as source_module
from dnl_video.models.weights.checkpoint import load_checkpoint, payload, read_raw
from dnl_video.models.weights.convert import convert_weights
from dnl_video.models.weights.load import load_weights
from dnl_video.models.weights.origins import translate
from dnl_video.models.weights.source import Source, write_exported
from dnl_video.spec import Preprocessing
from tests.models.weights.foreign import probabilities_of
from tests.models.weights.pyslowfast_net import draw, probabilities, shapes
from tests.models.weights.test_caffe2 import blobs
from tests.models.weights.test_checkpoint import SPEC, write_checkpoint
from tests.models.weights.test_mmaction import FIVE, SLOW_ONLY, single
from tests.test_safe_pickle import VALUES, array, pickled, text

STATE = {"conv.weight": torch.rand(2, 3), "conv.bias": torch.rand(2)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(STATE) and all(torch.equal(found[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        {"model_state": STATE, "epoch": 3, "cfg": "A: 1\n"},
        {"state_dict": STATE, "meta": {"epoch": 3}, "optimizer": {"state": {}}},
        {"model": STATE, "args": None},
        {"state_dict": {f"module.{k}": v for k, v in STATE.items()}},
        {f"module._orig_mod.{k}": v for k, v in STATE.items()},
        {k: nn.Parameter(v) for k, v in STATE.items()} | {"n_averaged": 3},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers_and_prefixes_are_removed(content: dict[str, Any], zipped: bool, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.of.any.name", _use_new_zipfile_serialization=zipped)
    assert same(Source(tmp_path / "weights.of.any.name").tensors)


def test_entries_beside_the_tensors_are_kept(tmp_path: Path) -> None:
    torch.save({"model_state": STATE, "epoch": 3, "cfg": "A: 1\n"}, tmp_path / "a")
    assert Source(tmp_path / "a").beside == {"epoch": 3, "cfg": "A: 1\n"}


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    torch.save({"module.a": torch.rand(1), "b": torch.rand(1)}, tmp_path / "a")
    assert set(Source(tmp_path / "a").tensors) == {"module.a", "b"}


def test_kind_is_recognised_by_content(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.pth", metadata={"made": "today"})
    read = Source(tmp_path / "a.pth")
    assert (read.kind, read.beside) == ("safetensors", {"made": "today"})
    assert read.tensors.keys() == STATE.keys()
    blobs = {"blobs": {"conv1_w": np.ones((2, 3), dtype=np.float32)}}
    (tmp_path / "b.safetensors").write_bytes(pickle.dumps(blobs, 2))
    read = Source(tmp_path / "b.safetensors")
    assert read.kind == "pickle"
    assert torch.equal(read.tensors["conv1_w"], torch.ones(2, 3))


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        _ = Source(path).tensors
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{path}: ")


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    assert refused(file) == "cannot be read (No such file or directory); give a file of weights"
    file.write_bytes(b"")
    assert refused(file) == "empty file; download or copy it again"
    file.write_bytes(b"<!DOCTYPE html><html>404</html>")
    assert refused(file) == (
        "not a file of weights (it starts with b'<!DOCTYP'); give a torch, safetensors or caffe2 file"
    )
    torch.save({"epoch": 3}, file)
    assert refused(file) == "holds no weights; give a checkpoint with a state dict"
    torch.save([1, 2], file)
    assert refused(file) == "holds no weights; give a checkpoint with a state dict"


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_file_is_a_one_line_error(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    if kind == "safetensors":
        save_file(STATE, file)
    else:
        torch.save(STATE, file, _use_new_zipfile_serialization=kind == "zip")
    whole = file.read_bytes()
    for keep in (12, 40, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:keep])
        message = refused(file)
        assert message.startswith(("not a readable", "not a file of weights"))
        assert len(message) < 250


class Calls:
    """Unpickles by calling a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_runs_from_a_torch_file(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"model_state": STATE, "extra": Calls(os.mkdir, "malicious-code-ran")}
    torch.save(content, "evil.pth", _use_new_zipfile_serialization=zipped)
    message = refused(Path("evil.pth"))
    assert message == (
        f"not a readable checkpoint: it holds {os.name}.mkdir beside tensors, and code from files is never run; save "
        "its state dict alone"
    )
    assert not Path("malicious-code-ran").exists()


def test_an_unknown_layout_shows_a_name() -> None:
    with pytest.raises(InputError) as error:
        translate(STATE, name="my.pth")
    assert str(error.value) == (
        "my.pth: 2 tensors of an unknown layout, such as conv.weight; known: pytorchvideo, PySlowFast, caffe2 "
        "(video-nonlocal-net), mmaction2, ImageNet ResNets, dnl_video"
    )


# ---- each file is read and hashed once


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the calls that read a file."""
    counts = {"torch.load": 0, "sha256": 0, "open": 0}

    def counting(key: str, function: Any) -> Any:
        def count(*args: Any, **options: Any) -> Any:
            counts[key] += 1
            return function(*args, **options)

        return count

    monkeypatch.setattr(torch, "load", counting("torch.load", torch.load))
    monkeypatch.setattr(source_module, "file_sha256", counting("sha256", source_module.file_sha256))
    monkeypatch.setattr(Path, "open", counting("open", Path.open))
    return counts


@pytest.mark.parametrize("origin", ["ours", "hub", "exported"])
def test_a_file_is_read_and_hashed_once(origin: str, calls: dict[str, int], tmp_path: Path) -> None:
    file = tmp_path / "a"
    if origin == "ours":
        write_checkpoint(file)
    elif origin == "hub":
        torch.save({"model_state": build_model(SPEC).state_dict()}, file)
    else:
        stored = payload(SPEC, Preprocessing(), ["a", "b", "c"], {})
        write_exported(file, stored, build_model(SPEC).state_dict())
    readers: list[Any] = [lambda: load_weights(build_model(SPEC), file), lambda: convert_weights(str(file))]
    readers += [lambda: load_checkpoint(file)] if origin != "hub" else []
    for read in readers:
        calls.update(dict.fromkeys(calls, 0))
        read()
        assert calls == {"torch.load": origin != "exported", "sha256": 1, "open": 2}


def test_resuming_reads_once_and_does_not_hash(calls: dict[str, int], tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "a")
    calls.update(dict.fromkeys(calls, 0))
    assert read_raw(file)["dnl_video"]["version"] == 1
    assert calls == {"torch.load": 1, "sha256": 0, "open": 1}


def test_flipped_bits_of_a_checkpoint_are_refused(tmp_path: Path) -> None:
    """torch.load accepts them."""
    file = write_checkpoint(tmp_path / "a")
    content = bytearray(file.read_bytes())
    place = content.index(build_model(SPEC).state_dict()["blocks.0.norm.running_var"].numpy().tobytes())
    content[place] ^= 1
    file.write_bytes(content)
    torch.load(file, weights_only=True)
    for read in (load_checkpoint, read_raw, lambda path: load_weights(build_model(SPEC), path)):
        with pytest.raises(InputError, match=r"damaged \(.* does not match its checksum\); copy it again, or take an"):
            read(file)


# ---- caffe2


def test_a_caffe2_file_becomes_tensors(tmp_path: Path) -> None:
    found = {"w": VALUES, "half": VALUES.astype("f2"), "none": np.zeros((0, 4))}
    (tmp_path / "a").write_bytes(pickled({k: array(v) for k, v in found.items()} | {"iter": b"K\x07"}))
    theirs = found | {"big": VALUES.astype(">f4"), "fortran": np.asfortranarray(VALUES), "iter": 7}
    (tmp_path / "b").write_bytes(pickle.dumps(theirs, 2))
    for file in (tmp_path / "a", tmp_path / "b"):
        tensors = Source(file).tensors
        assert tensors.pop("iter") == 7
        assert tensors.keys() == (found if file.name == "a" else theirs).keys() - {"iter"}
        for key, tensor in tensors.items():
            np.testing.assert_array_equal(tensor.numpy(), theirs[key])
            assert tensor.is_contiguous()
        tensors["w"] += 1  # tensors own their memory


@torch.no_grad()
def test_a_caffe2_file_becomes_a_network(tmp_path: Path) -> None:
    tensors = draw(shapes("i3d"))
    (tmp_path / "a").write_bytes(pickled({key: array(tensor.numpy()) for key, tensor in blobs(tensors).items()}))
    weights = translate(Source(tmp_path / "a").tensors)
    clip = torch.randn(1, 3, 4, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(
        probabilities_of(weights, clip), probabilities(tensors, clip, "i3d"), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"blobs": Calls(os.mkdir, "ran")}, 2), f"it holds {os.name}.mkdir"),
        (pickle.dumps({"blobs": Calls(os.mkdir, "ran")}, 5), f"it holds {os.name}.mkdir"),
        (pickled({"w": array(VALUES)})[:-30], "damaged"),
        (pickled({"w": text("w")}), "it holds a blob 'w' that is no array"),
        (pickled({"w": b")" + b"q\x01h\x01\x86" * 200}), "it holds a blob 'w' that is no array"),
        (b"\x80\x02}.", "it holds no dictionary of blobs"),
        (b"\x80\x02].", "it holds no dictionary of blobs"),
        (b"\x80\x02}K\x01K\x01s.", "it holds a blob '1' that is no array"),
        (b"\x80\x02" + b"N" * 2_000_001 + b".", "it holds more than 2000000 steps"),
    ],
)
def test_other_pickles_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert refused(tmp_path / "a") == (
        f"not a readable caffe2 pickle ({reason}); give a whole .pkl of PySlowFast's model zoo"
    )


# ---- foreign objects beside the tensors


class HistoryBuffer:
    """As mmengine/logging/history_buffer.py: arrays and functions in its attributes."""

    def __init__(self) -> None:
        self._log_history = np.array([1.5, 2.5])
        self._statistics_methods = {"mean": HistoryBuffer.mean}

    def mean(self) -> float:
        return float(self._log_history.mean())


class ConfigDict(dict[str, Any]):
    """As mmengine's and Lightning's: a dictionary with attributes."""


class Plain:
    """A user's own class."""

    def __init__(self) -> None:
        self.rate = 0.1

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("the file's class was used")


HOMES = {HistoryBuffer: "mmengine.logging.history_buffer", ConfigDict: "mmengine.config.config", Plain: "their.config"}


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the classes into the modules that files name; only for writing."""
    for kind, home in HOMES.items():
        monkeypatch.setattr(kind, "__module__", home)
        parts = home.split(".")
        for i in range(1, len(parts) + 1):
            name = ".".join(parts[:i])
            monkeypatch.setitem(sys.modules, name, sys.modules.get(name) or types.ModuleType(name))
        setattr(sys.modules[home], kind.__name__, kind)


OBJECTS: dict[str, Any] = {
    "mmengine": lambda: {
        "message_hub": {"log_scalars": OrderedDict(loss=HistoryBuffer()), "runtime_info": {"best": np.float64(0.7)}},
        "meta": {"seed": np.int64(3), "cfg": "model = dict()", "config": ConfigDict(lr=0.1)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2, 3)}}, "param_groups": [{"lr": 0.1}]},
    },
    "Lightning": lambda: {
        "hyper_parameters": ConfigDict(model=Plain(), root=pathlib.PurePosixPath("data")),
        "callbacks": {"stop": {"wait": np.array(3), "counts": defaultdict(int, a=1)}},
    },
    "scripts": lambda: {"args": argparse.Namespace(lr=0.1, kind=int), "rng": np.random.default_rng(0).random(4)},
}


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_tensors(kind: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {**OBJECTS[kind](), "state_dict": STATE, "epoch": 3}
    torch.save(content, tmp_path / "a", _use_new_zipfile_serialization=zipped)
    for home in HOMES.values():
        monkeypatch.delitem(sys.modules, home)
    allowed = set(torch.serialization.get_safe_globals())
    read = Source(tmp_path / "a")
    assert same(read.tensors)
    assert read.beside["epoch"] == 3
    assert not set(HOMES.values()) & set(sys.modules)
    assert set(torch.serialization.get_safe_globals()) == allowed


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.mkdir, f"{os.name}.mkdir"), (builtins.exec, "exec"), (os.system, "system"), (torch.load, "torch.")],
)
def test_functions_of_the_standard_library_are_refused(function: Any, name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "x": Calls(function, "open('ran', 'w')")}, tmp_path / "a")
    message = refused(tmp_path / "a")
    assert message.startswith("not a readable checkpoint: it holds ")
    assert name in message
    assert message.endswith(" beside tensors, and code from files is never run; save its state dict alone")


def test_inert_objects_run_nothing(tmp_path: Path) -> None:
    """mmengine's files name `getattr`, and so do many attacks."""
    marker = tmp_path / "ran"
    system = Calls(getattr, Calls(getattr, pathlib.Path, "home"), "__globals__")
    for attack in (system, Calls(np.save, str(marker), 1)):
        torch.save({"state_dict": STATE, "x": attack}, tmp_path / "a")
        assert list(Source(tmp_path / "a").tensors) == list(STATE)
        assert not marker.exists()
    torch.save({"state_dict": STATE, "x": Calls(pathlib.Path.touch, marker)}, tmp_path / "a")  # getattr(...)(marker)
    assert "(Trying to call reduce for unrecognized function" in refused(tmp_path / "a")
    assert not marker.exists()


def test_objects_in_a_state_dict_are_not_tensors(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv.weight": np.ones((2, 3))}}, tmp_path / "a")
    assert refused(tmp_path / "a") == "holds no weights; give a checkpoint with a state dict"


def test_our_checkpoints_take_no_objects(tmp_path: Path) -> None:
    stored = payload(SPEC, Preprocessing(), ["a", "b", "c"], {})
    torch.save({"state_dict": STATE, "dnl_video": stored, "best": np.float64(1)}, tmp_path / "a")
    with pytest.raises(InputError, match=r"it holds numpy.* beside tensors"):
        load_checkpoint(tmp_path / "a")


@pytest.mark.usefixtures("theirs")
def test_class_names_of_mmaction_checkpoints(tmp_path: Path) -> None:
    tensors = dict(single(SLOW_ONLY, 1, nl=FIVE))
    count = len(tensors["cls_head.fc_cls.weight"])
    names = [f"class {i}" for i in range(count)]
    settings = {"preprocessing.num_frames": 8, "preprocessing.frame_stride": 8}
    found = {}
    for key, meta in {
        "mmengine": {"dataset_meta": {"classes": names}},
        "mmcv": {"CLASSES": tuple(names)},
        "others": {"dataset_meta": {"classes": names[1:]}},
        "none": {"dataset_meta": {"classes": HistoryBuffer()}},
    }.items():
        torch.save({"meta": meta, "state_dict": tensors, "message_hub": HistoryBuffer()}, tmp_path / "a")
        found[key] = convert_weights(str(tmp_path / "a"), settings=settings)[0].class_names
    numbers = tuple(map(str, range(count)))
    assert found == {"mmengine": tuple(names), "mmcv": tuple(names), "others": numbers, "none": numbers}


def test_damage_beside_objects_is_a_one_line_error(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "x": np.float64(2)}, tmp_path / "a", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "a").read_bytes()
    for end in range(60, len(whole), 37):
        (tmp_path / "a").write_bytes(whole[:end])
        refused(tmp_path / "a")
