"""Command-line options derived from config dataclasses, and the options that several commands share."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dnl_video.config import EvaluationConfig
from dnl_video.files import encode
from dnl_video.models.weights.find import EXPORTED_NAME, find_checkpoint

if TYPE_CHECKING:
    from dnl_video.data.manifest import Manifest
    from dnl_video.models.weights.checkpoint import Checkpoint
    from dnl_video.results.predictions import PredictionsMeta

_Config = TypeVar("_Config")


def add_config_options(parser: Any, config: Any, *names: str, metavars: Mapping[str, str] = {}) -> None:
    """Add one option per named field of a config dataclass, for example ``--num-clips`` for ``num_clips``.

    Type and choices come from the field's annotation, the help from its line in the class docstring, where "null:"
    describes the default None.

    Args:
        parser: The parser or argument group.
        config: An instance, whose values are the defaults, or the class; fields without a default are then required.
        names: Fields, in the order of the help.
        metavars: Placeholder of the value by field. Default: N for numbers, otherwise the field's name.
    """
    kind = config if isinstance(config, type) else type(config)
    hints, lines = get_type_hints(kind), field_help(kind)
    for name in names:
        hint, text = hints[name], lines[name].replace("null:", "Default:").replace("%", "%%")
        if NoneType in get_args(hint):
            hint = get_args(hint)[0]
        default = getattr(config, name, dataclasses.MISSING)
        options: dict[str, Any] = {"required": True} if default is dataclasses.MISSING else {"default": default}
        if hint is bool:
            options["action"] = argparse.BooleanOptionalAction if default else "store_true"
        else:
            if default is not None and default is not dataclasses.MISSING:
                text += f" Default: {default:g}." if isinstance(default, float) else f" Default: {default}."
            choices = get_args(hint) if get_origin(hint) is Literal else None
            options |= {"choices": choices, "type": type(choices[0]) if choices else hint}
            options["metavar"] = metavars.get(name, "N" if hint in (int, float) else None)
        parser.add_argument(f"--{name.replace('_', '-')}", help=text, **options)


def field_help(kind: type) -> dict[str, str]:
    """Return the description of each field from the docstrings of a dataclass and its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        arguments = inspect.cleandoc(base.__doc__ or "").partition("Args:\n")[2]
        for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


def config_from(arguments: argparse.Namespace, kind: type[_Config]) -> _Config:
    """Build a config from the options that `add_config_options` added; other fields keep their defaults."""
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(arguments, name) for name in names if hasattr(arguments, name)})


def add_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="A checkpoint, an exported model, or the folder of a training run (its best checkpoint).",
    )


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the videos, --checkpoint and --root."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO|DIR|LIST", help="Video files, folders or lists.")
    add_checkpoint_argument(parser)
    parser.add_argument("--root", help="Folder of the relative paths in lists. Default: the folder of the list.")


def load(path: str) -> Checkpoint:
    """Load a checkpoint; a wrong path is an error before torch is imported."""
    file = find_checkpoint(path)
    from dnl_video.models.weights.checkpoint import load_checkpoint

    return load_checkpoint(file)


def add_output_file_argument(parser: argparse.ArgumentParser) -> None:
    """Add --output for a model file."""
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE|DIR",
        help="A .safetensors file (the model card is the .md beside it), or a folder for the Hugging Face hub.",
    )


def default_output(kind: str, checkpoint: Checkpoint, manifest: Manifest, source: str) -> Path:
    """Return the folder <kind>/<model>/<list> for one model and one list of videos.

    If another model or list has taken the name, eight digits of the checksum are added, so that two never share one.
    """
    listed, folder = Path(source).resolve(), Path(kind, model_name(checkpoint.path))
    folder = _free(folder, "*/meta.json", checkpoint.sha256, lambda meta: meta.weights_sha256)
    name, digest = listed.name if listed.is_dir() else listed.stem, _list_digest(manifest.source, manifest.sha256)
    return _free(folder / name, "meta.json", digest, lambda meta: _list_digest(meta.manifest, meta.manifest_sha256))


def model_name(path: str | Path) -> str:
    """Return the run and the file's stem for a run's checkpoint, the folder of an exported one, or the file's stem."""
    file = Path(path).resolve()
    run = f"{file.parent.parent.name}-" if file.parent.name == "checkpoints" else ""
    return file.parent.name if file.name == EXPORTED_NAME else run + file.stem


def _list_digest(source: str, sha256: str) -> str:
    """Return the checksum of a list and its place: videos of two folders may have the same names."""
    return hashlib.sha256(encode(f"{sha256} {Path(source).absolute()}")).hexdigest()


def _free(folder: Path, metas: str, digest: str, digest_of: Callable[[PredictionsMeta], str]) -> Path:
    from dnl_video.results.predictions import read_meta

    distinct = folder.with_name(f"{folder.name}-{digest[:8]}")
    taken = any(digest_of(read_meta(meta.parent)) != digest for meta in folder.glob(metas))
    return distinct if taken or distinct.exists() else folder


def add_view_options(parser: argparse.ArgumentParser, *more: str, kind: str = "predictions", when: str = "") -> None:
    """Add the options of scoring many videos: --output, views and device, and those of the fields ``more``."""
    output = f"Predictions directory, new or to continue. Default: {kind}/MODEL/LIST{when}."
    parser.add_argument("--output", metavar="DIR", help=output)
    views = parser.add_argument_group("views and device")
    common = ("num_clips", "num_crops", "views_per_forward", "device", "precision", "num_workers", "decoder")
    add_config_options(views, EvaluationConfig(), *common, *more)
    views.add_argument("--retry-failed", action="store_true", help="Retry videos that failed in an earlier run.")
