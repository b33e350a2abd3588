"""Training checkpoints and exported models of this package, read by `load_checkpoint`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.files import list_folder
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.build import build_model
from dnl_video.models.weights.source import Source
from dnl_video.spec import ModelSpec, Preprocessing, from_dict, to_dict

FORMAT_VERSION = 1
NETWORK_PREFIX = "network."
LAST_NAME = "last"
PREVIOUS_NAME = "previous"  # the checkpoint before the last one
EXPORTED_NAME = "model.safetensors"
# Written by the training run: best-epoch012-top1_0.8312.ckpt
_BEST = re.compile(r"^best-.*top1_([\d.]+)\.ckpt$")


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and its description."""

    path: str
    sha256: str
    spec: ModelSpec
    preprocessing: Preprocessing
    class_names: tuple[str, ...]  # in the order of the outputs
    config: dict[str, Any]  # resolved configuration of the training run
    state_dict: dict[str, Tensor]  # by the network's names
    provenance: dict[str, Any] = field(default_factory=dict)  # initial weights; checkpoint of an exported model
    backbone_only: bool = False  # no trained classifier (inflated image networks): to train from, not to predict with

    def build(self) -> VideoClassifier:
        """Build the network with these weights, in evaluation mode.

        Raises:
            InputError: The weights do not fit the architecture the file names.
        """
        model = build_model(self.spec)
        expected, found = ({k: tuple(v.shape) for k, v in s.items()} for s in (model.state_dict(), self.state_dict))
        if wrong := [k for k in expected | found if expected.get(k) != found.get(k)]:
            first = f"{wrong[0]}: shape {found.get(wrong[0], 'missing')}, expected {expected.get(wrong[0], 'none')}"
            raise InputError(
                f"{self.path}: weights do not fit {self.spec.architecture} with context {self.spec.context}: "
                f"{len(wrong)} differences, first {first}; the file is damaged or was edited"
            )
        model.load_state_dict(self.state_dict)
        return model.eval()


def payload(
    spec: ModelSpec,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any] | None = None,
    *,
    backbone_only: bool = False,
) -> dict[str, Any]:
    """Return the description that a checkpoint stores beside the weights, as plain JSON types."""
    return {
        "version": FORMAT_VERSION,
        "model": to_dict(spec),
        "preprocessing": to_dict(preprocessing),
        "class_names": list(class_names),
        "config": dict(config),
        "provenance": dict(provenance or {}),
        "backbone_only": backbone_only,
    }


def load_checkpoint(path: str | Path | Source) -> Checkpoint:
    """Read a trained network; no code from its file is executed.

    Args:
        path: A training checkpoint, an exported model, the folder of a training run (its best checkpoint), or a folder
            with a ``model.safetensors``. Or a `Source`, which keeps its content for other readers.

    Raises:
        InputError: There is no such file, it is damaged, no checkpoint of this package, or has no classifier.
    """
    loaded = read_checkpoint(path if isinstance(path, Source) else Source(find_checkpoint(path)))
    if loaded.backbone_only:
        raise InputError(
            f"{loaded.path}: a backbone without a classifier, to train from: dnl-video train --weights.source "
            f"{loaded.path}"
        )
    return loaded


def read_checkpoint(source: Source) -> Checkpoint:
    """Return the network in a training checkpoint or an exported model, with or without a classifier.

    Raises:
        InputError: The file is damaged, or neither.
    """
    stored = _described(source)
    prefix = NETWORK_PREFIX if source.kind == "torch" else ""
    return Checkpoint(
        path=str(source.path),
        sha256=source.sha256,
        spec=from_dict(ModelSpec, stored["model"]),
        preprocessing=from_dict(Preprocessing, stored["preprocessing"]),
        class_names=tuple(stored["class_names"]),
        config=stored["config"],
        state_dict={k.removeprefix(prefix): v for k, v in source.tensors.items() if k.startswith(prefix)},
        provenance=stored.get("provenance", {}),
        backbone_only=stored.get("backbone_only", False),
    )


def read_raw(source: Source | Path) -> dict[str, Any]:
    """Return the whole dictionary of a training checkpoint: weights, training state and description.

    Raises:
        InputError: The file is damaged, or no training checkpoint of this package.
    """
    source = Source(source) if isinstance(source, Path) else source
    _described(source, exported=False)
    return dict(source.content)


def _described(source: Source, *, exported: bool = True) -> dict[str, Any]:
    """Return the description in a file of this package; refuse other files, and exported models if not wanted."""
    stored = source.stored
    if stored is None and source.kind == "safetensors":
        raise InputError(
            f"{source.path}: not an exported model of this package; `dnl-video convert` makes one from a foreign file"
        )
    if stored is None or not (exported if source.kind == "safetensors" else "state_dict" in source.content):
        raise InputError(
            f"{source.path}: not a checkpoint of this package; give a .ckpt that `dnl-video train` wrote, or make "
            "other projects' weights one with `dnl-video convert`"
        )
    if (version := stored.get("version")) != FORMAT_VERSION:
        raise InputError(
            f"{source.path}: checkpoint format {version}, this version reads {FORMAT_VERSION}; update dnl-video"
        )
    return stored


def find_checkpoint(path: str | Path, *, last: bool = False) -> Path:
    """Return a path's file: itself, the best (or last) checkpoint of a run's folder, or a folder's model.safetensors.

    Raises:
        InputError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such checkpoint; give a .ckpt file or the folder of a training run")
    folder = _checkpoint_folder(path)
    scored = [(float(found[1]), p) for p in list_folder(folder) if (found := _BEST.match(p.name))]
    wanted = [] if last else [p for _, p in sorted(scored)]
    wanted = wanted or last_checkpoints(path)[::-1]
    if not wanted and (path / EXPORTED_NAME).is_file() and not last:
        return path / EXPORTED_NAME
    if not wanted:
        raise InputError(f"{path}: no {'last' if last else 'best or last'} checkpoint in this folder; train first")
    return wanted[-1]


def last_checkpoints(path: Path) -> list[Path]:
    """Return the checkpoints of a run's folder to resume from: the newest first, then the previous one."""
    folder = _checkpoint_folder(path)
    newest = sorted(list_folder(folder, f"{LAST_NAME}*.ckpt"), key=lambda p: p.stat().st_mtime, reverse=True)
    before = folder / f"{PREVIOUS_NAME}.ckpt"
    return [*newest, before] if before.is_file() else newest


def _checkpoint_folder(path: Path) -> Path:
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path
