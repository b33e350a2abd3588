from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dnl_video.errors import InputError
from dnl_video.models.weights.origins import convert_tensors
from dnl_video.models.weights.reading import read_tensors

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
def test_wrappers_and_prefixes_come_off(content: dict[str, Any], zipped: bool, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.of.any.name", _use_new_zipfile_serialization=zipped)
    assert same(read_tensors(tmp_path / "weights.of.any.name").tensors)


def test_what_lies_beside_the_tensors_is_kept(tmp_path: Path) -> None:
    torch.save({"model_state": STATE, "epoch": 3, "cfg": "A: 1\n"}, tmp_path / "a")
    assert read_tensors(tmp_path / "a").extra == {"epoch": 3, "cfg": "A: 1\n"}


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    torch.save({"module.a": torch.rand(1), "b": torch.rand(1)}, tmp_path / "a")
    assert set(read_tensors(tmp_path / "a").tensors) == {"module.a", "b"}


def test_kinds_are_told_by_content(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.pth", metadata={"made": "today"})
    read = read_tensors(tmp_path / "a.pth")
    assert (read.kind, read.extra) == ("safetensors", {"made": "today"})
    assert read.tensors.keys() == STATE.keys()
    blobs = {"blobs": {"conv1_w": np.ones((2, 3), dtype=np.float32)}}
    (tmp_path / "b.safetensors").write_bytes(pickle.dumps(blobs, 2))
    read = read_tensors(tmp_path / "b.safetensors")
    assert read.kind == "pickle"
    assert torch.equal(read.tensors["conv1_w"], torch.ones(2, 3))


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_tensors(path)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{path}: ")


def test_files_that_are_no_weights(tmp_path: Path) -> None:
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
def test_a_truncated_file_is_one_clear_line(kind: str, tmp_path: Path) -> None:
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


class Malicious:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("malicious-code-ran",))


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_runs_from_a_torch_file(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state": STATE, "extra": Malicious()}, "evil.pth", _use_new_zipfile_serialization=zipped)
    message = refused(Path("evil.pth"))
    assert message == (
        f"not a readable checkpoint: it holds {os.name}.mkdir beside tensors, and code from files is never run; save "
        "its state dict alone"
    )
    assert not Path("malicious-code-ran").exists()


def test_no_code_runs_from_a_bare_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.pkl").write_bytes(pickle.dumps({"blobs": Malicious()}, 2))
    refused(Path("evil.pkl"))
    assert not Path("malicious-code-ran").exists()


def test_an_unknown_layout_shows_a_name() -> None:
    with pytest.raises(InputError) as error:
        convert_tensors(STATE, name="my.pth")
    assert str(error.value) == (
        "my.pth: 2 tensors of an unknown layout, such as conv.weight; known: pytorchvideo, PySlowFast, caffe2 "
        "(video-nonlocal-net), mmaction2, ImageNet ResNets, dnl_video"
    )
