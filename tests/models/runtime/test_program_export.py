from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from dnl_video.errors import InputError
from dnl_video.models import build
from dnl_video.models.create import create_model
from dnl_video.models.runtime import program_export
from dnl_video.models.weights.checkpoint import Checkpoint
from dnl_video.spec import ContextOptions, Preprocessing
from tests.models.helpers import perturb_backbone, shallow

pytestmark = pytest.mark.full


@pytest.fixture(autouse=True)
def _shallow_networks(full_size: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build shallow networks, except at full size."""
    if not full_size:
        made = build.create_backbone
        monkeypatch.setattr(build, "create_backbone", lambda *args, **options: shallow(made(*args, **options)))


def checkpoint(architecture: Any, context: Any, **options: Any) -> Checkpoint:
    """A small network of two blocks with signals of ordinary size."""
    frames = 8 if architecture.startswith("slowfast") else 4
    options |= {"context_options": ContextOptions(positions={"res3": [0], "res4": [0]}, **options.pop("block", {}))}
    model = create_model(architecture, context=context, stem_channels=8, num_classes=3, dropout=0.0, **options)
    perturb_backbone(model, torch.randn(4, 3, frames, 32, 32))
    assert model.spec is not None
    clips = Preprocessing(num_frames=frames, short_side=32, crop_size=32)
    return Checkpoint("here", "", model.spec, clips, ("a", "b", "c"), {}, model.state_dict())


@pytest.mark.parametrize(
    ("architecture", "context", "options"),
    [
        ("slowfast_r50", "nl", {"head": "global"}),
        ("i3d_r50", "pairwise", {"head": "dense_probabilities"}),
    ],
)
def test_onnx_agrees(architecture: Any, context: Any, options: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert program_export.export_onnx(checkpoint(architecture, context, **options), tmp_path / "m.onnx") < 1e-3
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("context", ["none", "nl", "gc"])
def test_programs_agree(context: Any, tmp_path: Path) -> None:
    assert program_export.export_program(checkpoint("slow_r50", context), tmp_path / "m.pt2") < 1e-4


def test_concatenation_exports_to_torch_but_not_to_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    network = checkpoint("slow_r50", "nl", block={"attention": "concatenation"})
    with pytest.raises(InputError, match=r"the ONNX exporter fails for slow_r50 with context nl \(.+\); use --tor"):
        program_export.export_onnx(network, tmp_path / "m.onnx")
    assert program_export.export_program(network, tmp_path / "m.pt2") < 1e-4
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt2"]


def test_a_program_with_other_logits_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = checkpoint("slow_r50", "none")
    made = torch.export.export

    def altered(model: torch.nn.Module, *args: Any, **options: Any) -> Any:
        another = copy.deepcopy(model)
        torch.nn.init.ones_(another.blocks[-1].proj.weight)
        return made(another, *args, **options)

    monkeypatch.setattr(torch.export, "export", altered)
    with pytest.raises(InputError, match=r"m\.pt2: not written: its logits differ from those of slow_r50 with"):
        program_export.export_program(network, tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())
