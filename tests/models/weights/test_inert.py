"""Other projects' whole checkpoints, with objects beside the tensors: they load, and none of the objects is made."""

from __future__ import annotations

import argparse
import builtins
import os
import pathlib
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dnl_video.errors import InputError
from dnl_video.models.weights.convert import convert_weights
from dnl_video.models.weights.reading import load_torch, read_tensors
from tests.models.weights.test_mmaction import FIVE, SLOW_ONLY, single

WEIGHTS = {"conv.weight": torch.rand(2, 3)}


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
    """Let the classes lie where files say, while they are written only."""
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
    content = {**OBJECTS[kind](), "state_dict": WEIGHTS, "epoch": 3}
    torch.save(content, tmp_path / "a", _use_new_zipfile_serialization=zipped)
    for home in HOMES.values():
        monkeypatch.delitem(sys.modules, home)
    allowed = set(torch.serialization.get_safe_globals())
    read = read_tensors(tmp_path / "a")
    assert list(read.tensors) == list(WEIGHTS)
    assert torch.equal(read.tensors["conv.weight"], WEIGHTS["conv.weight"])
    assert read.extra["epoch"] == 3
    assert not set(HOMES.values()) & set(sys.modules)
    assert set(torch.serialization.get_safe_globals()) == allowed


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_tensors(path)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.mkdir, f"{os.name}.mkdir"), (builtins.exec, "exec"), (pathlib.os.system, "system"), (torch.load, "torch.")],
)
def test_what_no_training_records_is_refused(function: Any, name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "x": Calls(function, "open('ran', 'w')")}, tmp_path / "a")
    message = refused(tmp_path / "a")
    assert message.startswith("not a readable checkpoint: it holds ")
    assert name in message
    assert message.endswith(" beside tensors, and code from files is never run; save its state dict alone")


def test_stand_ins_run_nothing(tmp_path: Path) -> None:
    """`getattr` is what mmengine's files name, and the start of many attacks."""
    marker = tmp_path / "ran"
    system = Calls(getattr, Calls(getattr, pathlib.Path, "home"), "__globals__")
    for attack in (system, Calls(np.save, str(marker), 1)):
        torch.save({"state_dict": WEIGHTS, "x": attack}, tmp_path / "a")
        assert list(read_tensors(tmp_path / "a").tensors) == list(WEIGHTS)
        assert not marker.exists()
    torch.save({"state_dict": WEIGHTS, "x": Calls(pathlib.Path.touch, marker)}, tmp_path / "a")  # getattr(...)(marker)
    assert "(Trying to call reduce for unrecognized function" in refused(tmp_path / "a")
    assert not marker.exists()


def test_an_object_in_a_tensors_place_is_no_tensor(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv.weight": np.ones((2, 3))}}, tmp_path / "a")
    assert refused(tmp_path / "a") == "holds no weights; give a checkpoint with a state dict"


def test_our_own_checkpoints_take_no_objects(tmp_path: Path) -> None:
    torch.save({"a": np.float64(1)}, tmp_path / "a")
    with pytest.raises(InputError, match=r"it holds numpy.* beside tensors"):
        load_torch(tmp_path / "a")


@pytest.mark.usefixtures("theirs")
def test_a_training_of_mmaction_names_its_classes(tmp_path: Path) -> None:
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


def test_damage_is_still_one_line(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "x": np.float64(2)}, tmp_path / "a", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "a").read_bytes()
    for end in range(60, len(whole), 37):
        (tmp_path / "a").write_bytes(whole[:end])
        refused(tmp_path / "a")
