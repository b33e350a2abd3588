"""What the README shows runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dnl_video.cli.main import COMMANDS, command_module, make_parser
from tests.conftest import REPOSITORY, TinyRun

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL))


def test_the_first_command_stands_near_the_top() -> None:
    assert "```bash" in "\n".join(TEXT.splitlines()[:30])


@pytest.mark.full
@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.splitlines()[0])
def test_python_examples_run(
    block: str, tiny: TinyRun, tmp_path: Path, full_size: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if not full_size:
        block = block.replace("224, 224", "64, 64")
    video = next((tiny.folder / "videos" / "val").rglob("*.mp4"))
    block = re.sub(r'"runs/[^"]*"', repr(str(tiny.run)), block)
    block = re.sub(r'"data/[^"]*\.mp4"', repr(str(video)), block)
    exec(compile(block, "README.md", "exec"), {})


COMMAND = re.compile(r"^(?:torchrun .*? -m dnl_video|dnl-video) (?!.* \.\.\. )(.*)", flags=re.MULTILINE)


@pytest.mark.parametrize("line", COMMAND.findall(SHELL.replace("\\\n", " ")))
def test_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    name, *words = shlex.split(line, comments=True)
    assert name in COMMANDS
    make_parser(name, command_module(name)).parse_args(words)


def test_files_it_names_exist() -> None:
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", TEXT):
        assert (REPOSITORY / path).exists(), path
    for path in re.findall(r"(?:configs|scripts|tests|dnl_video)/[\w/]+\.(?:py|yaml|sh)", TEXT):
        assert (REPOSITORY / path).exists(), path


def test_no_placeholder_is_left() -> None:
    assert not re.findall(r"@[A-Z_0-9]+@|TODO|TBD", TEXT)
    assert Path(REPOSITORY / "CHANGELOG.md").is_file()
