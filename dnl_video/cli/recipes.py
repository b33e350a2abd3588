"""`dnl-video recipes`: list the recipes of the package; find a recipe by its name."""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

import dnl_video
from dnl_video.cli.terminal import say, suggest
from dnl_video.errors import InputError, nearest

DESCRIPTION = """List the training recipes of the package.

A recipe is a complete YAML file. `train --config` takes its name or a path:

  dnl-video train --config slow_r50_8x8_dnl
  dnl-video train --config kinetics400/slow_r50_8x8_dnl
  dnl-video train --config my_recipe.yaml

Every value can be overridden by its dotted name, and one file serves all contexts of a backbone:

  dnl-video train --config slow_r50_8x8_dnl --model.context nl --output runs/slow_r50_8x8_nl

To write your own recipe, start from a copy:

  dnl-video train --config slow_r50_8x8_dnl --print_config > my_recipe.yaml
"""


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that occurs twice in a mapping; YAML would take the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping."""
        names = [str(key.value) for key, _ in node.value]
        for (key, _), name in zip(node.value, names, strict=True):
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name} occurs twice", key.start_mark)
        return super().construct_mapping(node, deep)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no options."""


def run(arguments: argparse.Namespace) -> int:
    """Print the name and the first comment line of each recipe."""
    found = recipe_files()
    width = max(len(path.stem) for path in found.values())
    for folder, group in groupby(found, key=lambda name: name.partition("/")[0]):
        say(f"{folder}:")
        for path in (found[name] for name in group):
            line = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            say(f"  {path.stem:<{width}}  {line}")
    suggest("train", "--config", "NAME")
    return 0


def recipe_files() -> dict[str, Path]:
    """Return the recipes of the package: "demo/i3d_dnl" -> path of the YAML file."""
    package = Path(dnl_video.__file__).parent
    # Installed, they lie in the package; in a source checkout, beside it.
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("*/*.yaml"))}


def find_recipe(name: str) -> Path:
    """Return the path of a recipe.

    Args:
        name: A path, or the name of a recipe of the package with or without its folder.

    Raises:
        InputError: There is no such file or recipe.
    """
    if Path(name).is_file():
        return Path(name)
    recipes = recipe_files()
    key = name.removeprefix("configs/").removesuffix(".yaml")
    found = [path for known, path in recipes.items() if key in (known, path.stem)]
    if len(found) != 1:
        short = [path.stem for path in recipes.values()]
        raise InputError(
            f"{name}: no such file or recipe; recipes: {', '.join(short)}{nearest(key, [*short, *recipes])}"
        )
    return found[0]


def read_recipe(name: str) -> dict[str, Any]:
    """Read the YAML of a recipe that `find_recipe` finds.

    Raises:
        InputError: There is no such file or recipe, it cannot be read, or it has no settings.
    """
    path = find_recipe(name)
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise InputError(f"{path}: cannot be read ({reason}); give a recipe such as i3d_dnl") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
        raise InputError(f"{path}: not valid YAML: {reason}") from error
    if not isinstance(recipe, dict):
        raise InputError(f"{path}: contains no settings; start from a recipe such as i3d_dnl")
    return recipe


def parse_setting(word: str) -> tuple[str, Any]:
    """Parse NAME=VALUE of ``--set``; the value is YAML.

    Raises:
        InputError: It has another form.
    """
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise InputError(f"--set {word}: give NAME=VALUE, for example --set model.head=global")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {word}: {value!r} is not valid YAML") from error
