"""`dnl-video export`, and the commands on exported files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dnl_video.cli.main import main
from dnl_video.models import build
from dnl_video.models.runtime import program_export
from dnl_video.models.weights.checkpoint import NETWORK_PREFIX, load_checkpoint, payload
from dnl_video.results.reader import read_predictions
from tests.conftest import TinyRun
from tests.models.helpers import perturb_backbone, shallow


def export(checkpoint: Path, output: Path | str, *words: str) -> None:
    assert main(["export", "--checkpoint", str(checkpoint), "--output", str(output), *words]) == 0


@pytest.fixture(scope="module")
def exported(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's exported file, alone in a folder."""
    folder = tmp_path_factory.mktemp("exported")
    export(tiny.run, folder / "first.safetensors")
    alone = tmp_path_factory.mktemp("alone") / "a model.bin"
    shutil.copy(folder / "first.safetensors", alone)
    return alone


def test_it_prints_the_written_files(tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.safetensors"
    export(tiny.run, file)
    printed, notes = capsys.readouterr()
    assert printed.splitlines() == [f"wrote {file}", f"wrote {tmp_path / 'model.md'}"]
    assert notes == f"next: dnl-video predict VIDEO --checkpoint {file}\n"
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "model.md"}


def test_predict_needs_only_this_file(tiny: TinyRun, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = str(tiny.files()[0])
    shown = []
    for checkpoint in (str(exported), str(tiny.run)):
        assert main(["predict", video, "--checkpoint", checkpoint, "--num-clips", "2", "--num-workers", "0"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


def test_evaluate_gives_the_same_scores(tiny: TinyRun, exported: Path, tmp_path: Path) -> None:
    scores = []
    for name, checkpoint in (("a", str(exported)), ("b", str(tiny.run))):
        words = ["--manifest", str(tiny.val), "--output", str(tmp_path / name), "--num-clips", "2", "--num-crops", "1"]
        assert main(["evaluate", "--checkpoint", checkpoint, *words, "--num-workers", "0"]) == 0
        scores.append(read_predictions(tmp_path / name))
    assert np.array_equal(scores[0].scores, scores[1].scores)
    assert scores[0].meta.class_names == scores[1].meta.class_names


def test_the_card_has_the_accuracy_of_these_weights_only(tiny: TinyRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny.run, run)
    words = ["--manifest", str(tiny.val), "--num-clips", "1", "--num-crops", "1", "--num-workers", "0"]
    for order in ("natural", "reversed"):
        place = ["--output", str(run / order), "--frame-order", order]
        assert main(["evaluate", "--checkpoint", str(run), *words, *place]) == 0
        assert main(["report", str(run / order)]) == 0
    other = json.loads((run / "natural" / "report.json").read_text(encoding="utf-8"))
    other["weights"]["sha256"] = "another"
    (run / "other").mkdir()
    (run / "other" / "report.json").write_text(json.dumps(other), encoding="utf-8")
    (run / "broken").mkdir()
    (run / "broken" / "report.json").write_text("{", encoding="utf-8")
    export(run, tmp_path / "m.safetensors")
    card = (tmp_path / "m.md").read_text(encoding="utf-8")
    lines = [line for line in card.splitlines() if "top-1" in line]
    assert len(lines) == 1
    assert lines[0].startswith("- i3d_r50 + dnl: top-1 ")
    assert lines[0].endswith("1 clip x 1 crop at 64, clips of 4 frames with stride 2. Videos: val.csv.")


def test_export_to_a_hub_folder(tiny: TinyRun, tmp_path: Path) -> None:
    export(tiny.run, tmp_path / "hub")
    assert {p.name for p in (tmp_path / "hub").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert load_checkpoint(tmp_path / "hub").class_names == load_checkpoint(tiny.run).class_names


@pytest.fixture
def traced(full_size: bool, tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny run's checkpoint; at the small size, that of a shallow network with its settings, which traces fast."""
    if full_size:
        return tiny.run
    made, there = build.create_backbone, load_checkpoint(tiny.run)
    monkeypatch.setattr(build, "create_backbone", lambda *args, **options: shallow(made(*args, **options)))
    options = dataclasses.replace(there.spec.context_options, positions={"res3": [0], "res4": [0]})
    spec = dataclasses.replace(there.spec, context_options=options)
    frames, side = there.preprocessing.num_frames, there.preprocessing.crop_size
    model = perturb_backbone(build.build_model(spec), torch.randn(4, 3, frames, side, side))
    weights = {NETWORK_PREFIX + key: value for key, value in model.state_dict().items()}
    stored = payload(spec, there.preprocessing, there.class_names, {})
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "shallow.ckpt"
    torch.save({"state_dict": weights, "dnl_video": stored}, path)
    return path


@pytest.mark.full
@torch.no_grad()
def test_onnx_computes_the_same_for_any_batch(traced: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    export(traced, tmp_path / "out" / "m.safetensors", "--onnx")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "m.onnx", providers=["CPUExecutionProvider"])
    model = load_checkpoint(traced).build()
    for batch in (1, 4):
        clip = torch.rand(batch, 3, 4, 64, 64)
        logits = session.run(["logits"], {"clip": clip.numpy()})[0]
        np.testing.assert_allclose(logits, model(clip).numpy(), rtol=1e-3, atol=1e-5)
    stored = json.loads(session.get_modelmeta().custom_metadata_map["dnl_video"])
    assert stored["class_names"] == list(load_checkpoint(traced).class_names)
    assert stored["preprocessing"]["num_frames"] == 4
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"m.safetensors", "m.md", "m.onnx"}


@pytest.mark.full
@torch.no_grad()
def test_a_torch_program_computes_the_same(traced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(traced, tmp_path / "out" / "m.safetensors", "--torch-export")
    assert f"wrote {tmp_path / 'out' / 'm.pt2'} (largest difference of logits " in capsys.readouterr().out
    program, model = torch.export.load(tmp_path / "out" / "m.pt2").module(), load_checkpoint(traced).build()
    for batch in (1, 4):
        clip = torch.rand(batch, 3, 4, 64, 64)
        torch.testing.assert_close(program(clip), model(clip), rtol=1e-4, atol=1e-5)


def refused(capsys: pytest.CaptureFixture[str], checkpoint: Path | str, output: Path | str, *words: str) -> str:
    capsys.readouterr()
    assert main(["export", "--checkpoint", str(checkpoint), "--output", str(output), *words]) == 2
    return capsys.readouterr().err.removeprefix("dnl-video: error: ").rstrip("\n")


def test_without_the_onnx_libraries(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program_export, "find_spec", lambda name: None if name == "onnxscript" else object())
    message = refused(capsys, tiny.run, tmp_path / "m.safetensors", "--onnx")
    assert message == "--onnx needs onnxscript; pip install 'dnl-video[onnx]'"
    assert not list(tmp_path.iterdir())


def test_a_text_that_is_not_a_model_card_is_kept(
    tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("# My project\n")
    said = "exists and is not a model card; the card of this export would replace it; give another name"
    for output in (".", "README.safetensors"):
        assert refused(capsys, tiny.run, output) == f"README.md: {said}"
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]
    assert Path("README.md").read_text() == "# My project\n"
    for _ in range(2):  # an earlier export is replaced
        export(tiny.run, "m.safetensors")


def test_arguments_that_are_refused(tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, tiny.run, "m.onnx")
    assert message == "m.onnx: give a name that ends in .safetensors, or a folder"
    assert refused(capsys, "nowhere", "m.safetensors").startswith("nowhere: no such checkpoint")
    torch.save({"a": torch.rand(1)}, tmp_path / "a.pth")
    assert refused(capsys, tmp_path / "a.pth", "m.safetensors") == (
        f"{tmp_path / 'a.pth'}: not a checkpoint of this package; give a .ckpt that `dnl-video train` wrote, or make "
        "other projects' weights one with `dnl-video convert`"
    )
