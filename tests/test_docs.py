"""README, CONTRIBUTING and docs/: commands parse, Python examples run, links lead somewhere, sizes hold."""

from __future__ import annotations

import argparse
import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from dnl_video.cli.main import COMMANDS, command_module, main, make_parser
from dnl_video.data.decoding import open_video
from tests.conftest import REPOSITORY, TinyRun

README = REPOSITORY / "README.md"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
TEXTS = {page.relative_to(REPOSITORY).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
COMMAND = re.compile(r"^(?:torchrun .*?-m dnl_video|dnl-video) (.*?)(?: \| .*)?$", flags=re.MULTILINE)
SCRIPT = re.compile(r"^python (scripts/.*)", flags=re.MULTILINE)


def blocks(language: str) -> list[tuple[str, str]]:
    """Return (page, text) of each code block in a language."""
    return [
        (name, block)
        for name, text in TEXTS.items()
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    ]


def lines(pattern: re.Pattern[str]) -> list[pytest.ParameterSet]:
    """Return the commands of all shell blocks that match, with their page as id."""
    return [
        pytest.param(command, id=f"{name}:{command}")
        for name, block in blocks("bash")
        for command in pattern.findall(block.replace("\\\n", " "))
    ]


def test_readme_is_short_and_starts_with_commands() -> None:
    text = TEXTS["README.md"]
    assert len(text.splitlines()) <= 170
    assert len(text.encode()) <= 10_000
    assert "```bash" in "\n".join(text.splitlines()[:45])


class Capture:
    """`cv2.VideoCapture`, for machines without OpenCV: frames are BGR."""

    def __init__(self, path: str) -> None:
        with open_video(path) as video:
            self.fps, self._frames = video.fps, iter(video.read(range(video.num_frames))[..., ::-1].copy())

    def get(self, _: int) -> float:
        return self.fps

    def read(self) -> tuple[bool, np.ndarray | None]:
        frame = next(self._frames, None)
        return frame is not None, frame

    def release(self) -> None:
        pass


@pytest.mark.full
@pytest.mark.parametrize(("page", "block"), blocks("python"), ids=lambda text: text.splitlines()[0])
def test_python_examples_run(
    page: str, block: str, tiny: TinyRun, tmp_path: Path, full_size: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if not full_size:
        block = block.replace("224, 224", "64, 64")
    video = tiny.files()[0]
    block = re.sub(r'"runs/[^"]*"', repr(str(tiny.run)), block)
    block = re.sub(r'"data/[^"]*\.mp4"', repr(str(video)), block)
    if "import cv2" in block and importlib.util.find_spec("cv2") is None:
        monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=Capture, CAP_PROP_FPS=5))
    if '"features/videos"' in block:
        options = ["--checkpoint", str(tiny.run), "--num-clips", "2", "--num-workers", "0", "--device", "cpu"]
        assert main(["features", str(video), *options, "--output", "features/videos"]) == 0
    exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("line", lines(COMMAND))
def test_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    name, *words = shlex.split(line, comments=True)
    assert name in COMMANDS
    make_parser(name, command_module(name)).parse_args(words)


@pytest.mark.parametrize("line", lines(SCRIPT))
def test_script_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Parsed(Exception):
        pass

    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, args: list[str] | None = None) -> None:
        parse_args(self, args)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    script, *words = shlex.split(line, comments=True)
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(Parsed):
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")


@pytest.mark.parametrize("name", TEXTS)
def test_named_files_exist(name: str) -> None:
    folder = (REPOSITORY / name).parent
    for path in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", TEXTS[name]):
        generated = name.startswith("docs/") and re.search(r"(?:^|/)(?:cli/[\w-]+|api/index|code-map)\.md$", path)
        assert generated or (folder / path).exists(), path
    for path in re.findall(r"\b(?:configs|scripts|tests|dnl_video|docs)/[\w/.-]+\.(?:py|yaml|sh|md)\b", TEXTS[name]):
        assert (REPOSITORY / path).exists(), path


def test_every_page_is_in_the_navigation() -> None:
    nav = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    for name in TEXTS:
        assert not name.startswith("docs/") or f" {name.removeprefix('docs/')}\n" in nav, name


def test_pictures_are_small() -> None:
    pictures = list((REPOSITORY / "docs" / "images").glob("*.png"))
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size <= 150_000, picture


def test_citation_file_is_valid_yaml_with_the_paper() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["authors"] == [{"name": "dnl_video contributors"}]
    assert citation["references"][0]["title"] == "Disentangled Non-Local Neural Networks"


@pytest.mark.parametrize("name", TEXTS)
def test_no_placeholder_is_left(name: str) -> None:
    assert not re.findall(r"@[A-Z_0-9]+@|TODO|TBD", TEXTS[name])
