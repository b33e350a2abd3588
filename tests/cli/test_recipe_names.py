"""`dnl-video recipes`, finding recipes by name, and the recipes in the wheel."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dnl_video
from dnl_video.cli.main import main
from dnl_video.cli.recipes import find_recipe
from dnl_video.errors import InputError
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "configs"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("i3d_dnl", "demo/i3d_dnl.yaml"),
        ("demo/i3d_dnl", "demo/i3d_dnl.yaml"),
        ("slow_r50_8x8_dnl", "kinetics400/slow_r50_8x8_dnl.yaml"),
        ("kinetics400/slow_r50_8x8_dnl", "kinetics400/slow_r50_8x8_dnl.yaml"),
        ("configs/kinetics400/slow_r50_8x8_dnl.yaml", "kinetics400/slow_r50_8x8_dnl.yaml"),
    ],
)
def test_recipes_are_found_by_name_from_any_folder(name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(name) == CONFIGS / path


def test_a_path_has_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("i3d_dnl").write_text("seed: 1", encoding="utf-8")
    assert find_recipe("i3d_dnl") == Path("i3d_dnl")


def test_unknown_names_list_the_recipes_and_the_nearest():
    message = r"^slow_r50_8x8_dln: no such file or recipe; recipes: i3d_dnl, .*; did you mean 'slow_r50_8x8_dnl'\?$"
    with pytest.raises(InputError, match=message):
        find_recipe("slow_r50_8x8_dln")


def test_every_recipe_has_one_line(capsys):
    assert main(["recipes"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    paths = sorted(CONFIGS.glob("*/*.yaml"))
    assert [line[0] for line in lines] == [path.stem for path in paths]
    assert lines[0][1] == "Narrow I3D R50 with DNL blocks on the eight motions of the demo videos; trains on a CPU."


def test_a_printed_recipe_is_a_recipe(tmp_path, capsys):
    """--print_config gives a file that --config takes and that prints the same again."""
    printed = []
    for recipe in ("slow_dnl", str(tmp_path / "mine.yaml")):
        with pytest.raises(SystemExit):
            main(["train", "--config", recipe, "--optim.lr", "0.25", "--print_config"])
        printed.append(capsys.readouterr().out)
        (tmp_path / "mine.yaml").write_text(printed[-1], encoding="utf-8")
    assert printed[0] == printed[1]
    assert printed[0].startswith("output_dir: runs/demo/slow_dnl\nseed: 0\nmodel:\n")
    assert "  lr: 0.25\n" in printed[0]


def test_pyproject_lists_every_package():
    listed = re.findall(r'^    "(dnl_video[\w.]*)",$', (REPOSITORY / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    package = Path(dnl_video.__file__).parent
    folders = {file.parent.relative_to(package.parent) for file in package.rglob("*.py")}
    assert sorted(listed) == sorted(["dnl_video.configs", *(".".join(folder.parts) for folder in folders)])


@pytest.mark.skipif(importlib.util.find_spec("build") is None, reason="the extra dev is not installed")
def test_the_wheel_contains_every_module_and_recipe(tmp_path):
    for name in ("dnl_video", "configs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tmp_path)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check"]
    subprocess.run([*command, "--outdir", "dist", "."], cwd=tmp_path, check=True, capture_output=True)
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(tmp_path / "installed")
    package = Path(dnl_video.__file__).parent
    files = [path for path in package.rglob("*") if path.suffix in (".py", ".txt", ".typed", ".html", ".css", ".js")]
    recipes = {f"dnl_video/configs/{path.relative_to(CONFIGS)}" for path in CONFIGS.rglob("*.yaml")}
    assert names >= {str(path.relative_to(package.parent)) for path in files} | recipes
    code = "from dnl_video.cli.recipes import find_recipe; print(find_recipe('i3d_dnl'))"
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path / "installed", text=True, env={})
    assert printed.strip() == str(tmp_path / "installed" / "dnl_video" / "configs" / "demo" / "i3d_dnl.yaml")
