from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from dnl_video.cli.main import main
from dnl_video.data.decoding import open_video
from dnl_video.models.build import build_model
from dnl_video.models.weights.checkpoint import NETWORK_PREFIX, load_checkpoint, payload
from dnl_video.models.weights.find import find_checkpoint
from dnl_video.spec import ModelSpec, to_dict
from tests.conftest import TinyRun

BLOCKS = ["res3.1", "res3.3", "res4.1", "res4.3", "res4.5"]


@pytest.fixture(scope="module")
def video(tiny: TinyRun) -> str:
    return str(tiny.files()[0])


def sibling(tiny: TinyRun, path: Path, context: str, **options: object) -> Path:
    """An untrained network of another context, for the same clips."""
    there = load_checkpoint(tiny.run)
    values = to_dict(there.spec) | {"context": context}
    spec = ModelSpec(**(values | {"context_options": type(there.spec.context_options)(**options)}))
    weights = {NETWORK_PREFIX + k: v for k, v in build_model(spec).state_dict().items()}
    stored = payload(spec, there.preprocessing, there.class_names, {})
    torch.save({"state_dict": weights, "dnl_video": stored}, path)
    return path


def test_end_to_end(tiny, video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["visualize", video, "--checkpoint", str(tiny.run), "--query", "3,0.5,0.25", "--device", "cpu"]
    assert main(words) == 0
    model = f"run-{find_checkpoint(tiny.run).stem}"
    folder = Path("attention", model, Path(video).parent.name, Path(video).stem)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted([f"{block}.png" for block in BLOCKS] + ["attention.gif", "attention.mp4"])
    lines = capsys.readouterr().out.splitlines()
    assert "DNL predicts" in lines[0]
    assert lines[1:] == [f"wrote {folder / name}" for name in [f"{b}.png" for b in BLOCKS] + names[:2][::-1]]
    with open_video(folder / "attention.mp4") as moving:
        assert (moving.num_frames, moving.fps) == (4, 4)
    for name in names:
        if name.endswith("png"):
            with Image.open(folder / name) as picture:
                picture.load()


def test_comparison_draws_the_decomposition(tiny, video, tmp_path):
    nl = sibling(tiny, tmp_path / "nl.ckpt", "nl")
    words = ["visualize", video, "--checkpoint", str(tiny.run), "--compare-to", str(nl), "--block", "res3.1"]
    assert main([*words, "--animation", "none", "--device", "cpu", "--output", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["res3.1-decomposition-NL.png", "res3.1.png"]
    words = ["visualize", video, "--checkpoint", str(nl), "--block", "res4.5", "--animation", "gif", "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "alone")]) == 0
    names = sorted(p.name for p in (tmp_path / "alone").iterdir())
    assert names == ["attention.gif", "res4.5-decomposition.png", "res4.5.png"]


def test_the_explorer_is_one_page(tiny, video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    nl = sibling(tiny, tmp_path / "nl.ckpt", "nl")
    words = ["visualize", video, "--checkpoint", str(tiny.run), "--compare-to", str(nl), "--device", "cpu"]
    words += ["--block", "res4.5", "--query", "3,0.5,0.25", "--fps", "8", "--html", "pages/explorer.html"]
    assert main(words) == 0
    assert [path.name for path in Path("pages").iterdir()] == ["explorer.html"]
    assert sorted(path.name for path in Path().iterdir()) == ["nl.ckpt", "pages"]
    assert capsys.readouterr().out.splitlines()[-1] == "wrote pages/explorer.html"
    page = Path("pages/explorer.html").read_text(encoding="utf-8")
    assert re.findall(r'class="maps" id="(.*?)"', page) == ["res4.5"]
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', page)[1])
    assert (facts["numbers"], facts["query"], facts["fps"]) == ([0, 1, 2, 3], [3, 0.5, 0.25], 8)
    assert "DNL predicts" in page
    assert "NL predicts" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--html", "page.html", "--animation", "gif", "--query", "0,0,0", "--query", "1,0,0"],
            "--html writes one page and no pictures; leave out --animation and --output and the second --query",
        ),
        (["--query", "middle"], "query 'middle' is not t,x,y"),
        (["--query", "4,0.5,0.5"], "query frame 4 is outside the clip; its frames are 0 to 3"),
        (["--query", "0,1.5,0.5"], "query place x 1.5, y 0.5 is outside the frame"),
        (["--clip-start", "9"], "clip start 9 s lies outside"),
        (["--block", "res9"], "no block 'res9'; this network has res3.1"),
        (["--fps", "0"], "--fps is 0; give frames per second above 0, at most 50"),
        (["--checkpoint", "none.ckpt"], "no context blocks (context: none), so there is no attention to draw"),
        (["--checkpoint", "dot.ckpt"], "attention dot_product has no softmax"),
        (["--output", "file/below"], "below: cannot be written (Not a directory)"),
    ],
)
def test_bad_options(words, message, tiny, video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    networks = {"none.ckpt": {"context": "none"}, "dot.ckpt": {"context": "nl", "attention": "dot_product"}}
    if words[1] in networks:
        sibling(tiny, Path(words[1]), **networks[words[1]])
    base = ["visualize", video, "--checkpoint", str(tiny.run), "--device", "cpu", "--output", "never"]
    assert main([*base, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("never").exists()


def test_the_explorer_needs_a_file(tiny, video, tmp_path, capsys):
    assert main(["visualize", video, "--checkpoint", str(tiny.run), "--html", str(tmp_path)]) == 2
    assert f"{tmp_path}: cannot be written (Is a directory)" in capsys.readouterr().err


def test_a_failed_write_keeps_the_old_picture(tiny, video, tmp_path, monkeypatch, capsys):
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
