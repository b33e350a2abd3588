"""Training checkpoints and exported models of this package, read by `load_checkpoint`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.build import build_model
from dnl_video.models.weights.find import find_checkpoint
from dnl_video.models.weights.source import Source
from dnl_video.spec import ModelSpec, Preprocessing, check_fields, from_dict, shortened, to_dict

FORMAT_VERSION = 1
NETWORK_PREFIX = "network."
# Sections of a training configuration that are read from files.
_SECTIONS = ("data", "optim", "trainer")
# Fields of ModelSpec and Preprocessing that files of earlier versions do not have.
_LATER = ("antialias", "rounding")


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and its description."""

    path: str
    sha256: str
    spec: ModelSpec
    preprocessing: Preprocessing
    class_names: tuple[str, ...]  # in the order of the outputs
    config: dict[str, Any] = field(repr=False)  # resolved configuration of the training run
    state_dict: dict[str, Tensor] = field(repr=False)  # by the network's names
    provenance: dict[str, Any] = field(default_factory=dict)  # initial weights; checkpoint of an exported model
    backbone_only: bool = False  # no trained classifier (inflated image networks): to train from, not to predict with

    def build(self) -> VideoClassifier:
        """Build the network with these weights, in evaluation mode.

        Raises:
            InputError: The weights do not fit the architecture the file names.
        """
        with torch.device("meta"):  # needs no memory, however large the network that the file names
            expected = {k: tuple(v.shape) for k, v in build_model(self.spec).state_dict().items()}
        found = {k: tuple(v.shape) for k, v in self.state_dict.items()}
        if wrong := [k for k in expected | found if expected.get(k) != found.get(k)]:
            first = f"{wrong[0]}: shape {found.get(wrong[0], 'missing')}, expected {expected.get(wrong[0], 'none')}"
            raise InputError(
                f"{self.path}: weights do not fit {self.spec.architecture} with context {self.spec.context}: "
                f"{len(wrong)} differences, first {first}; the file is damaged or was edited"
            )
        model = build_model(self.spec)
        model.load_state_dict(self.state_dict)
        return model.eval()


@dataclass(frozen=True)
class _Description:
    """What a file of this package stores beside the weights; see `payload`."""

    model: dict[str, Any]
    preprocessing: dict[str, Any]
    class_names: list[str]
    config: dict[str, Any]
    version: int = FORMAT_VERSION
    provenance: dict[str, Any] = field(default_factory=dict)
    backbone_only: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        for name in _SECTIONS:
            if not isinstance(section := self.config.get(name, {}), dict):
                raise InputError(f"config.{name} is {shortened(section)}; give a mapping")


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
    described = _described(source)
    try:
        stored = from_dict(_Description, {k: described[k] for k in _names(_Description) if k in described})
        spec, preprocessing = from_dict(ModelSpec, stored.model), from_dict(Preprocessing, stored.preprocessing)
        # A default in place of a missing value would be another network, or other clips.
        for part, kind in (("model", ModelSpec), ("preprocessing", Preprocessing)):
            if missing := [k for k in _names(kind) if k not in getattr(stored, part) and k not in _LATER]:
                raise InputError(f"{part}.{missing[0]} is missing")
        names = stored.class_names
        if not stored.backbone_only and len(names) != spec.num_classes:
            raise InputError(f"class_names has {len(names)} names, but num_classes is {spec.num_classes}")
    except InputError as error:
        raise InputError(f"{source.path}: {error}; the file is damaged or was edited") from error
    prefix = NETWORK_PREFIX if source.kind == "torch" else ""
    return Checkpoint(
        path=str(source.path),
        sha256=source.sha256,
        spec=spec,
        preprocessing=preprocessing,
        class_names=tuple(names),
        config=stored.config,
        state_dict={k.removeprefix(prefix): v for k, v in source.tensors.items() if k.startswith(prefix)},
        provenance=stored.provenance,
        backbone_only=stored.backbone_only,
    )


def _names(kind: type[Any]) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


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
            f"{source.path}: checkpoint format {shortened(version)}, this version reads {FORMAT_VERSION}; update "
            "dnl-video"
        )
    return stored


def epochs_trained(raw: Mapping[str, Any]) -> int:
    """Return the epochs whose training is finished, of a whole checkpoint (`read_raw`)."""
    progress = raw.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
    return int(raw["epoch"]) + bool(progress.get("is_last_batch", True))


def stopped_early(callbacks: Mapping[str, Any], patience: int | None) -> str:
    """Return a line if `trainer.patience` has stopped the run with these states of its callbacks, or else no text."""
    best = callbacks.get("BestCheckpoint", {})
    if patience is None or best.get("waited", 0) < patience:
        return ""
    return f"stopped early: no better validation since epoch {best['improved']}"
