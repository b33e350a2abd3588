from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from dnl_video.cli.main import main
from dnl_video.data.decoding import open_video
from dnl_video.models.build import build_model
from dnl_video.models.weights.checkpoint import NETWORK_PREFIX, load_checkpoint, payload
from dnl_video.spec import ModelSpec, to_dict
from tests.conftest import TinyRun

BLOCKS = ["res3.1", "res3.3", "res4.1", "res4.3", "res4.5"]


@pytest.fixture(scope="module")
def video(tiny: TinyRun) -> str:
    return str(next((tiny.folder / "videos" / "val").rglob("*.mp4")))


def sibling(tiny: TinyRun, path: Path, context: str, **options: object) -> Path:
    """An untrained network of another context, for the same clips."""
    there = load_checkpoint(tiny.run)
    values = to_dict(there.spec) | {"context": context}
    spec = ModelSpec(**(values | {"context_options": type(there.spec.context_options)(**options)}))  # type: ignore[arg-type]
    weights = {NETWORK_PREFIX + k: v for k, v in build_model(spec).state_dict().items()}
    stored = payload(spec, there.preprocessing, there.class_names, {})
    torch.save({"state_dict": weights, "dnl_video": stored}, path)
    return path


def test_end_to_end(
    tiny: TinyRun, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["visualize", video, "--checkpoint", str(tiny.run), "--query", "3,0.5,0.25", "--device", "cpu"]
    assert main(words) == 0
    folder = Path("attention") / Path(video).stem
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted([f"{block}.png" for block in BLOCKS] + ["attention.gif", "attention.mp4"])
    lines = capsys.readouterr().out.splitlines()
    assert "DNL says" in lines[0]
    assert lines[1:] == [f"wrote {folder / name}" for name in [f"{b}.png" for b in BLOCKS] + names[:2][::-1]]
    with open_video(folder / "attention.mp4") as moving:
        assert (moving.num_frames, moving.fps) == (4, 4)
    for name in names:
        if name.endswith("png"):
            with Image.open(folder / name) as picture:
                picture.load()


def test_comparison_draws_the_decomposition(tiny: TinyRun, video: str, tmp_path: Path) -> None:
    nl = sibling(tiny, tmp_path / "nl.ckpt", "nl")
    words = ["visualize", video, "--checkpoint", str(tiny.run), "--compare-to", str(nl), "--block", "res3.1"]
    assert main([*words, "--animation", "none", "--device", "cpu", "--output", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["res3.1-decomposition-NL.png", "res3.1.png"]
    words = ["visualize", video, "--checkpoint", str(nl), "--block", "res4.5", "--animation", "gif", "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "alone")]) == 0
    names = sorted(p.name for p in (tmp_path / "alone").iterdir())
    assert names == ["attention.gif", "res4.5-decomposition.png", "res4.5.png"]


def test_messages(tiny: TinyRun, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*words: str, checkpoint: Path = tiny.run) -> str:
        base = ["visualize", video, "--checkpoint", str(checkpoint), "--device", "cpu"]
        assert main([*base, "--output", str(tmp_path / "never"), *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "query 'middle' is not t,x,y" in error("--query", "middle")
    assert "query frame 4 is outside the clip; its frames are 0 to 3" in error("--query", "4,0.5,0.5")
    assert "query place x 1.5, y 0.5 is outside the frame" in error("--query", "0,1.5,0.5")
    assert "clip start 9 s lies outside" in error("--clip-start", "9")
    assert "no block 'res9'; this network has res3.1" in error("--block", "res9")
    assert "--fps is 0; give frames per second above 0, at most 50" in error("--fps", "0")
    bare = sibling(tiny, tmp_path / "bare.ckpt", "none")
    assert "no context blocks (context: none), so there is no attention to draw" in error(checkpoint=bare)
    plain = sibling(tiny, tmp_path / "dot.ckpt", "nl", attention="dot_product")
    assert "attention dot_product has no softmax" in error(checkpoint=plain)
    assert not (tmp_path / "never").exists()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "cannot make the folder" in error("--output", str(tmp_path / "file" / "below"))


def test_a_failed_write_keeps_the_old_picture(
    tiny: TinyRun, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["visualize", video, "--checkpoint", str(tiny.run), "--block", "res3.1", "--animation", "none"]
    words += ["--device", "cpu", "--output", str(tmp_path)]
    assert main(words) == 0
    former = (tmp_path / "res3.1.png").read_bytes()

    def full(self: object, file: Path, **options: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    assert main(words) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["res3.1.png"]
    assert (tmp_path / "res3.1.png").read_bytes() == former
