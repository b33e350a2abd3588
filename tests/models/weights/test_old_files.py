"""Files of version 0.1 still load: a training checkpoint of one epoch and the model exported from it.

Its command line wrote both, for an I3D R50 of 8 stem channels on the demo data. Their numbers were then replaced by
short patterns, so that the fixtures compress well; LOGITS are version 0.1's for these numbers.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
import torch
import yaml

from dnl_video.cli.main import main
from dnl_video.models.weights.checkpoint import load_checkpoint, read_raw
from dnl_video.models.weights.convert import convert_weights
from dnl_video.models.weights.load import load_weights
from tests.conftest import REPOSITORY, TinyRun

FIXTURES = REPOSITORY / "tests" / "fixtures"
LOGITS = [118.50218, 52.12537, -4.81028, -47.07069, -42.14191, -106.35085, 29.74609, 118.50218]


@pytest.fixture(scope="module", params=["training.ckpt", "exported.safetensors"])
def old_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(request.param, tmp_path_factory.mktemp("old"))


def unpack(name: str, folder: Path) -> Path:
    compressed = FIXTURES / f"version_0.1_{name}.xz"
    assert compressed.stat().st_size < 60_000
    (folder / name).write_bytes(lzma.decompress(compressed.read_bytes()))
    return folder / name


@torch.no_grad()
def test_it_computes_the_same(old_file: Path) -> None:
    clip = torch.sin(torch.arange(3 * 4 * 64 * 64) / 50.0).reshape(1, 3, 4, 64, 64)
    loaded = load_checkpoint(old_file)
    model = loaded.build()
    torch.testing.assert_close(model(clip)[0], torch.tensor(LOGITS), rtol=1e-4, atol=1e-3)
    converted, _ = convert_weights(str(old_file))
    assert torch.equal(converted.build()(clip), model(clip))
    for parameter in model.parameters():
        parameter.zero_()
    report = load_weights(model, old_file)
    assert not report.new
    torch.testing.assert_close(model(clip)[0], torch.tensor(LOGITS), rtol=1e-4, atol=1e-3)


def test_it_describes_the_network(old_file: Path) -> None:
    loaded = load_checkpoint(old_file)
    assert (loaded.spec.architecture, loaded.spec.context, loaded.spec.stem_channels) == ("i3d_r50", "dnl", 8)
    assert (loaded.preprocessing.num_frames, loaded.preprocessing.crop_size) == (4, 64)
    assert loaded.class_names[:2] == ("growing", "moving down")
    assert loaded.config["trainer"]["max_epochs"] == 1


def test_training_resumes_from_it(tiny: TinyRun, tmp_path: Path) -> None:
    """One more epoch, with all that the checkpoint holds: optimiser, schedule, loops and data position."""
    file = unpack("training.ckpt", tmp_path)
    raw = read_raw(file)
    assert (raw["epoch"], raw["global_step"]) == (0, 2)
    config = raw["dnl_video"]["config"]
    config["output_dir"] = str(tmp_path / "run")
    config["data"] |= {"train_manifest": str(tiny.train), "val_manifest": str(tiny.val)}
    config["trainer"]["max_epochs"] = 2
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["train", "--config", str(tmp_path / "config.yaml"), "--resume", str(file)]) == 0
    resumed = read_raw(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert resumed["epoch"] == 1
