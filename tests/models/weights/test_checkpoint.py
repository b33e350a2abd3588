from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dnl_video.errors import InputError
from dnl_video.models.build import build_model
from dnl_video.models.weights.checkpoint import NETWORK_PREFIX, load_checkpoint, payload
from dnl_video.models.weights.find import find_checkpoint, named_top1
from dnl_video.spec import ModelSpec, Preprocessing

SPEC = ModelSpec(architecture="slow_r50", context="dnl", num_classes=3, stem_channels=8)


def write_checkpoint(path: Path, **changes: Any) -> Path:
    weights = {NETWORK_PREFIX + k: v for k, v in build_model(SPEC).state_dict().items()}
    stored = payload(SPEC, Preprocessing(), ["a", "b", "c"], {"seed": 0})
    torch.save({"state_dict": weights, "dnl_video": stored} | changes, path)
    return path


def test_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = write_checkpoint(tmp_path / "a.ckpt")
    loaded = load_checkpoint(file)
    assert (loaded.spec, loaded.preprocessing, loaded.class_names) == (SPEC, Preprocessing(), ("a", "b", "c"))
    torch.manual_seed(0)
    expected = build_model(SPEC).eval()
    clip = torch.rand(1, 3, 4, 32, 32)
    assert torch.equal(loaded.build()(clip), expected(clip))


# Version 0.1 counted epochs from 0 and wrote the first name.
@pytest.mark.parametrize("name", ["best-epoch002-top1_0.5000.ckpt", "best-epoch-003-top1_0.5000.ckpt"])
def test_best_and_last_checkpoint_of_a_run_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    best = write_checkpoint(tmp_path / "checkpoints" / name)
    assert named_top1(best) == 0.5
    last = write_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert find_checkpoint(tmp_path) == best
    assert find_checkpoint(tmp_path, last=True) == last
    best.unlink()
    assert find_checkpoint(tmp_path) == last
    last.unlink()
    with pytest.raises(InputError, match="no best or last checkpoint in this folder; train first"):
        find_checkpoint(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    bare = {
        NETWORK_PREFIX + k: v for k, v in build_model(ModelSpec(context="none", stem_channels=8)).state_dict().items()
    }
    file = write_checkpoint(tmp_path / "a.ckpt", state_dict=bare)
    with pytest.raises(
        InputError,
        match=r"weights do not fit slow_r50 with context dnl: \d+ differences, first .*: shape missing, expected \(",
    ):
        load_checkpoint(file).build()


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save({"model_state": {}}, tmp_path / "hub.pyth")
    with pytest.raises(InputError, match=r"hub\.pyth: not a checkpoint of this package; give a \.ckpt"):
        load_checkpoint(tmp_path / "hub.pyth")
    for version, shown in ((99, "99"), ("1", "'1'")):
        file = write_checkpoint(tmp_path / "new.ckpt", dnl_video={"version": version})
        with pytest.raises(InputError, match=f"checkpoint format {shown}, this version reads 1; update dnl-video"):
            load_checkpoint(file)
