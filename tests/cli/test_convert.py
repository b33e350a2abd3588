"""`dnl-video convert` on generated files of other projects, and commands on the converted files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dnl_video.cli.main import main
from dnl_video.models.create import create_model
from dnl_video.models.weights.checkpoint import load_checkpoint
from dnl_video.models.weights.load import load_weights
from dnl_video.spec import ContextOptions
from tests.conftest import TinyRun
from tests.models.helpers import perturb


def hub_file(path: Path, **options: Any) -> Any:
    """Write a small network in the format of pytorchvideo's hub; return the network."""
    model = perturb(create_model("slow_r50", stem_channels=8, num_classes=3, **options)).eval()
    torch.save({"model_state": model.state_dict()}, path)
    return model


def image_file(path: Path) -> dict[str, Tensor]:
    """Write a ResNet-50 an eighth as wide under torchvision's names."""
    from torchvision.models.resnet import Bottleneck, ResNet

    # Its constructor narrows the middle convolutions only, so every tensor is cut.
    state = {}
    for name, value in ResNet(Bottleneck, [3, 4, 6, 3]).state_dict().items():
        cut = [slice(None) if n in (3, 1, 7) else slice(0, max(n // 8, 1)) for n in value.shape]
        state[name] = value[tuple(cut)].clone()
    torch.save(state, path)
    return state


def convert(source: Path, output: Path, *words: str) -> None:
    assert main(["convert", str(source), "--output", str(output), *words]) == 0


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["convert", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.removeprefix("dnl-video: error: ").rstrip("\n")


@torch.no_grad()
def test_converted_hub_file_gives_the_same_logits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = hub_file(tmp_path / "no name")
    (tmp_path / "names.txt").write_text("run\njump\nsit down\n", encoding="utf-8")
    out = tmp_path / "slow.safetensors"
    words = ["--classes", str(tmp_path / "names.txt"), "--frame-stride", "4", "--set", "preprocessing.crop_size=224"]
    convert(tmp_path / "no name", out, *words)
    printed, notes = capsys.readouterr()
    assert f"weights: {tmp_path / 'no name'} (pytorchvideo hub)" in printed
    assert "slow_r50 with context none, 3 classes, head dense_logits\n" in printed
    assert "clips: 8 frames, stride 4, sampling pyslowfast, rgb, mean [0.45, 0.45, 0.45]" in printed
    assert "crop 224, rounding pyslowfast, not antialiased" in printed
    assert f"wrote {out}\nwrote {tmp_path / 'slow.md'}\n" in printed
    assert notes == f"next: dnl-video predict VIDEO --checkpoint {out}\n"
    loaded = load_checkpoint(out)
    assert loaded.class_names == ("run", "jump", "sit down")
    assert (loaded.preprocessing.frame_stride, loaded.preprocessing.crop_size) == (4, 224)
    assert loaded.provenance["converted_from"]["origin"] == "pytorchvideo hub"
    assert len(loaded.provenance["converted_from"]["sha256"]) == 64
    clip = torch.rand(1, 3, 4, 32, 32)
    assert torch.equal(loaded.build()(clip), model(clip))


def test_predict_accepts_a_converted_file(tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub_file(tmp_path / "a.pyth")
    words = ["--num-frames", "2", "--set", "preprocessing.short_side=64", "--set", "preprocessing.crop_size=64"]
    convert(tmp_path / "a.pyth", tmp_path / "a", *words)
    assert "the file names no classes; they are numbers until --classes names them" in capsys.readouterr().out
    video = str(tiny.files()[0])
    assert main(["predict", video, "--checkpoint", str(tmp_path / "a"), "--num-clips", "1", "--num-workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(rf"{re.escape(video)}\t[012]\t[01]\.\d{{4}}\n", printed)


def test_image_weights_become_a_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = image_file(tmp_path / "resnet.pth")
    out = tmp_path / "i3d.safetensors"
    message = refused(capsys, str(tmp_path / "resnet.pth"), "--output", str(out))
    assert message.startswith(f"{tmp_path / 'resnet.pth'}: ")
    assert "architecture" in message
    convert(tmp_path / "resnet.pth", out, "--architecture", "i3d_r50")
    printed, notes = capsys.readouterr()
    assert "inflated over time" in printed
    assert "i3d_r50 with context none, no classifier\n" in printed
    assert notes == f"next: dnl-video train --config RECIPE --weights.source {out}\n"
    model = create_model("i3d_r50", context="dnl", stem_channels=8, num_classes=7)
    load_weights(model, out)
    torch.testing.assert_close(model.blocks[0].conv.weight.sum(2), state["conv1.weight"])


@torch.no_grad()
def test_our_checkpoints_can_be_converted(tiny: TinyRun, tmp_path: Path) -> None:
    convert(tiny.run, tmp_path / "m.safetensors")
    here, there = load_checkpoint(tmp_path / "m.safetensors"), load_checkpoint(tiny.run)
    assert (here.spec, here.preprocessing, here.class_names) == (there.spec, there.preprocessing, there.class_names)
    assert here.config == there.config
    clip = torch.rand(1, 3, 4, 64, 64)
    assert torch.equal(here.build()(clip), there.build()(clip))


def test_set_overrides_the_file(tmp_path: Path) -> None:
    hub_file(tmp_path / "a", context="nl", context_options=ContextOptions(positions={"res3": [1]}))
    words = ["--set", "model.context_options.pool=[2, 2, 2]", "--set", "model.head=global"]
    convert(tmp_path / "a", tmp_path / "m.safetensors", *words)
    spec = load_checkpoint(tmp_path / "m.safetensors").spec
    assert (spec.context_options.pool, spec.head, spec.context) == ((2, 2, 2), "global", "nl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--architecture", "i3d_r50"], "{source}: is slow_r50, not i3d_r50; leave --architecture out"),
        (["--set", "model.had=global"], "no setting 'model.had'; did you mean 'model.head'?"),
        (["--set", "model.context_options=3"], "no setting 'model.context_options'"),
        (["--set", "model.head"], "--set model.head: give NAME=VALUE, for example --set model.head=global"),
        (["--set", "model.head=["], "--set model.head=[: '[' is not valid YAML"),
        (["--set", "model.head=globl"], "head is 'globl'; allowed: dense_logits, dense_probabilities, global"),
        (
            ["--set", "model.context=nl"],
            "{source}: has no weights for blocks.2.context_blocks.1.value.weight (context blocks); convert it as it is",
        ),
        (["--set", "model.num_classes=4"], "{source}: has no weights for blocks.5.proj.weight (classifier (3 classes"),
        (["--num-frames", "0"], "num_frames is 0; give a whole number in [1, 1024]"),
        (
            ["--classes", "nowhere.txt"],
            "class list nowhere.txt does not exist; give a text file with one class name",
        ),
        (["--classes", "kinetics400"], "400 class names for 3 outputs; give one a line, in their order"),
        (["--classes", "{folder}/two.txt"], "2 class names for 3 outputs; give one a line, in their order"),
        (["--classes", "{folder}/twice.txt"], "{folder}/twice.txt, line 3: class 'run' was already listed in line 1"),
    ],
)
def test_arguments_that_are_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.pyth"
    hub_file(source)
    (tmp_path / "two.txt").write_text("run\njump\n", encoding="utf-8")
    (tmp_path / "twice.txt").write_text("run\njump\nrun\n", encoding="utf-8")
    out = tmp_path / "m.safetensors"
    told = refused(capsys, str(source), "--output", str(out), *(word.format(folder=tmp_path) for word in words))
    assert told.startswith(message.format(source=source, folder=tmp_path))
    assert not out.exists()


def test_a_partial_file_is_refused_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = hub_file(tmp_path / "whole").state_dict()
    del state["blocks.4.res_blocks.2.branch2.norm_c.running_mean"]
    torch.save({"model_state": state}, tmp_path / "a.pyth")
    assert refused(capsys, str(tmp_path / "a.pyth"), "--output", str(tmp_path / "m.safetensors")) == (
        f"{tmp_path / 'a.pyth'}: 1 of 320 tensors of slow_r50 with context none, stem_channels 8 are not in it, first "
        "blocks.4.res_blocks.2.branch2.norm_c.running_mean (it is slow_r50 with context none, pytorchvideo hub); build "
        "the network that it belongs to, or name them in allow_missing"
    )


def test_outputs_and_sources_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "a.pyth", "--output", "m.pth") == "m.pth: give a name that ends in .safetensors, or a folder"
    assert refused(capsys, "a.pyth", "--output", "m.safetensors") == "a.pyth: no such file of weights"
    assert refused(capsys, "kinetics400", "--output", "m.safetensors") == (
        "kinetics400: no such file; a published name needs to know the architecture"
    )
    assert "kinetics40" in refused(capsys, "kinetics40", "--output", "m.safetensors", "--architecture", "slow_r50")
