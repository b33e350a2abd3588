from __future__ import annotations

import json
import math
import random
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dnl_video.errors import InputError
from dnl_video.models.build import build_model
from dnl_video.models.weights.checkpoint import Checkpoint, load_checkpoint, payload, read_checkpoint
from dnl_video.models.weights.export import export_model, model_card
from dnl_video.models.weights.load import load_weights
from dnl_video.models.weights.source import Source, write_exported
from dnl_video.spec import ContextOptions, ModelSpec, Preprocessing, to_dict
from tests.models.helpers import perturb

SPEC = ModelSpec(
    "slow_r50", "nl", 3, stem_channels=8, context_options=ContextOptions(positions={"res4": [1]}, pool=(1, 2, 2))
)
CLIPS = Preprocessing(num_frames=4, frame_stride=2, channel_order="bgr", mean=(0.1, 0.2, 0.3))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    model = perturb(build_model(SPEC))
    file = tmp_path / "checkpoints" / "last.ckpt"
    file.parent.mkdir()
    started = {"origin": "ImageNet ResNet", "source": "/home/me/resnet50.pth", "sha256": "abc"}
    config = {"output_dir": "/home/me/runs/mine", "data": {"train_manifest": "/data/train.csv"}, "trainer": {}}
    stored = payload(SPEC, CLIPS, ["a", "b", "c*"], config, {"started_from": started})
    torch.save({"state_dict": {f"network.{k}": v for k, v in model.state_dict().items()}, "dnl_video": stored}, file)
    return load_checkpoint(file)


@torch.no_grad()
def test_an_exported_file_is_the_whole_model(checkpoint: Checkpoint, tmp_path: Path) -> None:
    file, card = export_model(checkpoint, tmp_path / "out" / "m.safetensors")
    assert (file, card) == (tmp_path / "out" / "m.safetensors", tmp_path / "out" / "m.md")
    loaded = load_checkpoint(file)
    assert (loaded.spec, loaded.preprocessing, loaded.class_names) == (SPEC, CLIPS, ("a", "b", "c*"))
    assert loaded.config == checkpoint.config
    clip = torch.rand(1, 3, 4, 32, 32)
    assert torch.equal(loaded.build()(clip), checkpoint.build()(clip))
    # Exported again, it is the same model.
    again = load_checkpoint(export_model(loaded, tmp_path / "again.safetensors")[0])
    assert again.provenance == loaded.provenance
    assert torch.equal(again.build()(clip), checkpoint.build()(clip))


def test_the_metadata_is_complete(checkpoint: Checkpoint, tmp_path: Path) -> None:
    file, _ = export_model(checkpoint, tmp_path / "m.safetensors")
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert metadata["format"] == "pt"
    stored = json.loads(metadata["dnl_video"])
    assert stored["version"] == 1
    assert stored["model"] == to_dict(SPEC)
    assert stored["preprocessing"] == to_dict(CLIPS)
    assert stored["class_names"] == ["a", "b", "c*"]
    provenance = stored["provenance"]
    made = {"checkpoint": "last.ckpt", "checkpoint_sha256": checkpoint.sha256, "run": "mine"}
    assert provenance | made == provenance
    assert provenance["started_from"]["origin"] == "ImageNet ResNet"
    assert {"dnl-video", "torch", "pytorchvideo", "python"} <= provenance["exported_with"].keys()
    assert len(stored["sha256"]) == 64


def test_no_flipped_byte_passes(tmp_path: Path) -> None:
    stored = payload(SPEC, CLIPS, ["a", "b", "c"], {}, {"origin": "elsewhere"})
    tensors = {"weight": torch.rand(5, 3), "half": torch.rand(4).half(), "brain": torch.rand(4).bfloat16()}
    tensors["count"] = torch.tensor(7)
    file = write_exported(tmp_path / "m.safetensors", stored, tensors)
    whole = file.read_bytes()
    assert Source(file).stored == stored
    draw, refused = random.Random(0), 0
    for place in [*range(8, 40), *draw.sample(range(len(whole)), 300), len(whole) - 1]:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :])
        try:
            checkpoint = read_checkpoint(Source(file))
        except InputError:
            refused += 1
            continue
        # Only bytes without meaning may change: spaces, and the name of the framework.
        assert (checkpoint.spec, checkpoint.preprocessing, checkpoint.class_names) == (SPEC, CLIPS, ("a", "b", "c"))
        assert (checkpoint.config, checkpoint.provenance) == ({}, {"origin": "elsewhere"})
        assert all(torch.equal(checkpoint.state_dict[name], tensor) for name, tensor in tensors.items())
    assert refused > 300


def test_flipped_byte_is_a_one_line_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    file, _ = export_model(checkpoint, tmp_path / "m.safetensors")
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    message = f"{file}: damaged: its content does not match its checksum; copy or export it again"
    for read in (load_checkpoint, lambda path: load_weights(build_model(SPEC), path)):
        with pytest.raises(InputError) as error:
            read(file)
        assert str(error.value) == message


NOT_A_COUNT = (None, math.nan, math.inf, -1, 0, 10**9, 1e30, "8", [8], {"a": 8}, True)
NO_MAPPING = (None, 3, "x", [1])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, NOT_A_COUNT) for name in ("preprocessing.num_frames", "preprocessing.frame_stride")),
        *((name, NOT_A_COUNT) for name in ("preprocessing.crop_size", "model.num_classes", "model.stem_channels")),
        ("preprocessing.mean", (None, 0.45, [0.45] * 2, [math.nan] * 3, ["a"] * 3, [1e30] * 3)),
        ("preprocessing.std", ([0.0] * 3, [-1.0] * 3)),
        ("preprocessing.target_fps", (0, -1.0, math.nan, math.inf, "25")),
        ("model.dropout", (None, 1.0, -0.1, math.nan, "0")),
        ("model.architecture", (None, "slow_r5", 3, ["slow_r50"])),
        ("model.context_options.positions", ({"res4": 1}, {"res4": [10**9]}, [1], "res4")),
        ("model.context_options.inner_ratio", (0, 2.0, math.nan, None)),
        ("class_names", (None, "abc", {"a": 1}, ["a", "b"], ["a", "b", "c", "d"], ["a", "b", 3], [])),
        *((name, NO_MAPPING) for name in ("model", "preprocessing", "config", "provenance", "config.data")),
        ("backbone_only", (None, 1, "no")),
    ],
)
def test_wrong_metadata_are_refused_by_name(
    name: str, values: tuple[Any, ...], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The checksum is right. A network of the size that the file names is never allocated."""
    parts = name.split(".")
    kinds = {"model": "ModelSpec", "preprocessing": "Preprocessing"}
    for value in values + (() if name in ("provenance", "backbone_only", "config.data") else ("missing",)):
        stored = payload(SPEC, CLIPS, ["a", "b", "c"], {"data": {}})
        section = stored
        for part in parts[:-1]:
            section = section[part]
        section[parts[-1]] = value
        if value == "missing":
            del section[parts[-1]]
            if parts[1:2] == ["context_options"]:
                continue  # the default of a block's option is no other network
        with pytest.raises(InputError) as error:
            load_checkpoint(write_exported(tmp_path / "m.safetensors", stored, checkpoint.state_dict))
        message = str(error.value)
        assert message.startswith(f"{tmp_path}/m.safetensors: ")
        assert message.endswith("; the file is damaged or was edited")
        assert parts[-1] in message or kinds.get(name, name) in message
        assert "\n" not in message


def test_weights_of_another_size_are_refused_before_the_network_is_built(checkpoint: Checkpoint) -> None:
    """A classifier of 8,192 x 100,000 numbers takes 3 GB."""
    large = replace(checkpoint, spec=replace(SPEC, num_classes=100_000, stem_channels=256))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="weights do not fit slow_r50 with context nl"):
        large.build()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.rand(2)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="not an exported model of this package; `dnl-video convert` makes one"):
        load_checkpoint(tmp_path / "a.safetensors")
    save_file({"a": torch.rand(2)}, tmp_path / "a.safetensors", metadata={"dnl_video": "{"})
    with pytest.raises(InputError, match="damaged: its metadata cannot be read"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_export_to_a_hub_folder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "mine"
    names = {path.name for path in export_model(checkpoint, folder)}
    assert names == {"model.safetensors", "config.json", "README.md"} == {path.name for path in folder.iterdir()}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["model"] == to_dict(SPEC)
    assert "config" not in config
    assert load_checkpoint(folder).spec == SPEC


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("model.bin", "model.bin: give a name that ends in .safetensors, or a folder"),
        ("taken/m.safetensors", "m.safetensors: cannot be written"),
    ],
)
def test_output_paths_that_are_refused(checkpoint: Checkpoint, tmp_path: Path, out: str, message: str) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        export_model(checkpoint, tmp_path / out)
    exported, _ = export_model(checkpoint, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="is the checkpoint itself; give another name"):
        export_model(load_checkpoint(exported), exported)


def test_failed_export_leaves_no_file(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="cannot be written \\(No space left on device\\); choose another path"):
        export_model(checkpoint, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_backbone_without_classifier_loads_only_for_training(checkpoint: Checkpoint, tmp_path: Path) -> None:
    kept = {k: v for k, v in checkpoint.state_dict.items() if ".proj." not in k}
    bare = replace(checkpoint, state_dict=kept, class_names=(), backbone_only=True)
    file, card = export_model(bare, tmp_path / "m.safetensors")
    with pytest.raises(InputError) as error:
        load_checkpoint(file)
    assert str(error.value) == (
        f"{file}: a backbone without a classifier, to train from: dnl-video train --weights.source {file}"
    )
    report = load_weights(build_model(SPEC), file)
    assert set(report.new.values()) == {"classifier (the source has none)"}
    assert "no classifier (a backbone to train from)" in card.read_text(encoding="utf-8")


def test_contents_of_the_model_card(checkpoint: Checkpoint, tmp_path: Path) -> None:
    text = export_model(checkpoint, tmp_path / "m.safetensors")[1].read_text(encoding="utf-8")
    for line in (
        "# slow_r50 + nl",
        "- blocks after: res4 [1]",
        "- stem_channels: 8 (published networks: 64)",
        "- training videos: train.csv",
        "- started from: resnet50.pth (ImageNet ResNet), sha256 `abc`",
        "No report of this model's accuracy came with its export.",
        "2. c\\*",
        "State here the licence of these weights, and of the videos they were trained on.",
        "dnl-video predict video.mp4 --checkpoint m.safetensors",
    ):
        assert f"\n{line}\n" in f"\n{text}"
    assert "BGR in [0, 1], minus mean [0.1, 0.2, 0.3]" in text
    parameters = sum(p.numel() for p in build_model(SPEC).parameters())
    assert f"3 classes, {parameters / 1e6:.2f}M parameters." in text
    assert "/home/me" not in text
    assert "top-1 50%" in model_card(checkpoint, "m", {}, results="top-1 50%")
    assert "0. &lt;img src=x\\>" in model_card(replace(checkpoint, class_names=("<img src=x>",)), "m", {})


@pytest.mark.parametrize("context", ["none", "dnl", "pairwise", "unary", "snl", "gc"])
def test_every_context_has_a_card(context: Any, checkpoint: Checkpoint) -> None:
    assert f"# slow_r50{'' if context == 'none' else ' + ' + context}\n" in model_card(
        replace(checkpoint, spec=replace(SPEC, context=context)), "m", {}
    )
