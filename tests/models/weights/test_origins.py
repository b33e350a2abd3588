"""Files of every origin: recognised by content, and loaded into the networks that people train."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.build import build_model
from dnl_video.models.create import create_model
from dnl_video.models.weights import hub, imagenet, mmaction, pyslowfast
from dnl_video.models.weights.convert import convert_weights
from dnl_video.models.weights.load import load_weights
from dnl_video.models.weights.origins import _ORIGINS, translate_source
from dnl_video.models.weights.source import Source
from dnl_video.spec import ModelSpec
from tests.models.weights.foreign import shapes_of
from tests.models.weights.pyslowfast_net import NONLOCAL, draw, shapes
from tests.models.weights.test_caffe2 import blobs
from tests.models.weights.test_imagenet import NarrowResNet
from tests.models.weights.test_mmaction import FIVE, I3D, SLOW_ONLY, single
from tests.models.weights.test_mmaction import slowfast as mmaction_slowfast


def ours(arch: str) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        return build_model(ModelSpec(f"{arch}_r50", "none", stem_channels=8)).state_dict()  # type: ignore[arg-type]


def write_hub(path: Path) -> None:
    model = create_model("slow_r50", stem_channels=8, num_classes=5)
    torch.save({"model_state": model.state_dict()}, path)


def write_pyslowfast(path: Path) -> None:
    torch.save({"epoch": 3, "model_state": draw(shapes("slow", nonlocal_blocks=NONLOCAL))}, path)


def write_pyslowfast_by_pytorchvideo(path: Path) -> None:
    model = create_model("slow_r50", stem_channels=8, num_classes=5)
    torch.save({"model_state": {f"model.{k}": v for k, v in model.state_dict().items()}}, path)


def write_caffe2(path: Path) -> None:
    found = blobs(draw(shapes("slow", nonlocal_blocks=NONLOCAL)))
    path.write_bytes(pickle.dumps({"blobs": {k: np.asarray(v.float()) for k, v in found.items()}}, protocol=2))


def write_mmaction(path: Path) -> None:
    torch.save({"meta": {"epoch": 3}, "state_dict": dict(single(SLOW_ONLY, 1, nl=FIVE))}, path)


def write_imagenet(path: Path) -> None:
    torch.save(NarrowResNet().state_dict(), path)


ORIGINS: dict[str, Callable[[Path], None]] = {
    "pytorchvideo hub": write_hub,
    "PySlowFast": write_pyslowfast,
    "PySlowFast (pytorchvideo-built)": write_pyslowfast_by_pytorchvideo,
    "PySlowFast (caffe2)": write_caffe2,
    "mmaction2": write_mmaction,
    "ImageNet ResNet": write_imagenet,
}
WITH_BLOCKS = ("PySlowFast", "PySlowFast (caffe2)", "mmaction2")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("origins")
    found = {}
    for number, (origin, write) in enumerate(ORIGINS.items()):
        found[origin] = folder / f"{number}.weights"
        write(found[origin])
    return found


@pytest.mark.parametrize("origin", ORIGINS)
def test_origin_is_recognised_by_content(origin: str, files: dict[str, Path]) -> None:
    assert translate_source(Source(files[origin]), "slow_r50").origin == origin


STEM = torch.zeros(192, 3, 16, 16)
ARCHITECTURES = ("slow", "i3d", "c2d", "slowfast")
LAYOUTS: dict[str, tuple[Callable[..., bool] | None, Callable[[], Mapping[str, Any]]]] = {
    "caffe2": (pyslowfast.matches_caffe2, lambda: blobs(draw(shapes("slow")))),
    "mmaction2 SlowOnly": (mmaction.matches, lambda: single(SLOW_ONLY, 1)),
    "mmaction2 I3D": (mmaction.matches, lambda: single(I3D, 5)),
    "mmaction2 SlowFast": (mmaction.matches, mmaction_slowfast),
    "ImageNet": (imagenet.matches, lambda: NarrowResNet().state_dict()),
    "another wrapper": (None, lambda: {f"network.{k}": v for k, v in ours("slow").items()}),
    "torchvision's video networks": (None, lambda: torchvision.models.video.r3d_18().state_dict()),
    "ConvNeXt": (None, lambda: torchvision.models.convnext_tiny().state_dict()),
    "timm's ViT": (
        None,
        lambda: dict.fromkeys(["blocks.0.attn.qkv.weight", "patch_embed.proj.weight"], torch.zeros(9)),
    ),
    "nothing": (None, dict),
}
for arch in ARCHITECTURES:
    LAYOUTS |= {
        f"PySlowFast {arch}": (pyslowfast.matches, partial(lambda a: draw(shapes(a)), arch)),
        f"pytorchvideo {arch}": (hub.matches, partial(ours, arch)),
        f"PySlowFast by pytorchvideo {arch}": (
            pyslowfast.matches,
            partial(lambda a: {f"model.{k}": v for k, v in ours(a).items()}, arch),
        ),
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_origin_matches_a_layout(layout: str) -> None:
    expected, make = LAYOUTS[layout]
    found = [matches for matches, _ in _ORIGINS if matches(shapes_of(make()))]
    assert found == ([expected] if expected else [])


@torch.no_grad()
@pytest.mark.parametrize("origin", ORIGINS)
def test_every_origin_starts_a_disentangled_network(origin: str, files: dict[str, Path]) -> None:
    model = create_model("slow_r50", context="dnl", stem_channels=8, num_classes=7)
    report = load_weights(model, files[origin])
    assert report.origin == origin
    blocks = {name for name in report.new if "context_blocks" in name}
    assert {name.rpartition(".")[2] for name in report.new if name not in blocks} == {"weight", "bias"}
    if origin in WITH_BLOCKS:
        assert all(name.endswith("unary.weight") for name in blocks)
        assert len(blocks) == 5
    else:
        assert {report.new[name] for name in blocks} == {"context blocks"}
    source = translate_source(Source(files[origin]), "slow_r50")
    for name in report.matched:
        given: Tensor = source.state_dict[name].float()
        if name in report.inflated:
            given = given[:, :, None].expand_as(model.state_dict()[name]) / model.state_dict()[name].shape[2]
        assert torch.equal(model.state_dict()[name], given.reshape(model.state_dict()[name].shape))


@torch.no_grad()
@pytest.mark.parametrize("origin", [name for name in ORIGINS if name != "ImageNet ResNet"])
def test_converted_network_equals_loaded_network(origin: str, files: dict[str, Path]) -> None:
    settings = {"preprocessing.num_frames": 8, "preprocessing.frame_stride": 8}
    checkpoint, report = convert_weights(str(files[origin]), settings=settings)
    assert not report.new
    model = build_model(checkpoint.spec).eval()
    load_weights(model, files[origin])
    clip = torch.rand(1, 3, 4, 32, 32)
    assert torch.equal(checkpoint.build()(clip), model(clip))
    assert checkpoint.provenance["converted_from"]["origin"] == origin


@torch.no_grad()
@pytest.mark.parametrize(("prefix", "version"), [("model.", "2.4"), ("network.backbone.", "2.4"), ("net.", None)])
def test_a_network_inside_another_module(prefix: str, version: str | None, tmp_path: Path) -> None:
    """pytorchvideo's network in a Lightning module is not taken for a PySlowFast network."""
    model = create_model("slow_r50", stem_channels=8, num_classes=5).eval()
    content: dict[str, object] = {"state_dict": {f"{prefix}{k}": v for k, v in model.state_dict().items()}}
    torch.save(content | ({"pytorch-lightning_version": version} if version else {}), tmp_path / "a")
    source = translate_source(Source(tmp_path / "a"))
    assert source.origin == "pytorchvideo hub"
    target = create_model("slow_r50", stem_channels=8, num_classes=5).eval()
    load_weights(target, tmp_path / "a")
    clip = torch.rand(1, 3, 4, 32, 32)
    assert torch.equal(target(clip), model(clip))


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    model = create_model("slow_r50", stem_channels=8, num_classes=5)
    torch.save({"model_state": model.half().state_dict()}, tmp_path / "a")
    checkpoint, _ = convert_weights(str(tmp_path / "a"))
    for name, given in model.state_dict().items():
        found = checkpoint.state_dict[name]
        assert found.dtype == (torch.float32 if given.is_floating_point() else given.dtype)
        assert torch.equal(found, given.to(found.dtype))


def test_a_configuration_beside_the_tensors_is_read(tmp_path: Path) -> None:
    config = "DATA: {NUM_FRAMES: 16, SAMPLING_RATE: 4}\nNONLOCAL: {INSTANTIATION: softmax}\n"
    torch.save({"model_state": draw(shapes("slow", nonlocal_blocks=NONLOCAL)), "cfg": config}, tmp_path / "a")
    source = translate_source(Source(tmp_path / "a"))
    assert (source.preprocessing["num_frames"], source.preprocessing["frame_stride"]) == (16, 4)
    assert source.spec is not None
    assert source.spec.context_options.attention == "embedded_gaussian"
    torch.save({"model_state": draw(shapes("slow")), "cfg": "DATA: ["}, tmp_path / "a")
    with pytest.raises(InputError, match=f"^{tmp_path / 'a'}: PySlowFast weights have a 'cfg' that is not"):
        translate_source(Source(tmp_path / "a"))


@torch.no_grad()
def test_a_published_name_is_a_file_in_torch_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    write_hub(tmp_path / "checkpoints" / "SLOW_8x8_R50.pyth")
    model = create_model("slow_r50", context="dnl", stem_channels=8, num_classes=5, pretrained="kinetics400").eval()
    given = torch.load(tmp_path / "checkpoints" / "SLOW_8x8_R50.pyth", weights_only=True)["model_state"]
    bare = create_model("slow_r50", stem_channels=8, num_classes=5).eval()
    bare.load_state_dict(given)
    clip = torch.rand(1, 3, 4, 32, 32)
    assert torch.equal(model(clip), bare(clip))
    with pytest.raises(InputError, match="kinetics40"):
        create_model("slow_r50", pretrained="kinetics40")


def test_slowfast_of_mmaction_has_linear_lateral_connections(tmp_path: Path) -> None:
    torch.save({"state_dict": dict(mmaction_slowfast())}, tmp_path / "a")
    settings = {"preprocessing.num_frames": 32, "preprocessing.frame_stride": 2}
    checkpoint, _ = convert_weights(str(tmp_path / "a"), settings=settings)
    assert (checkpoint.spec.architecture, checkpoint.spec.fusion) == ("slowfast_r50", "conv")
