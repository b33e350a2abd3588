"""Reading this package's checkpoints: weights together with what is needed to use them."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnl_video.errors import InputError
from dnl_video.models.backbones import VideoClassifier
from dnl_video.models.build import build_model
from dnl_video.spec import ModelSpec, Preprocessing, from_dict, to_dict

FORMAT_KEY = "dnl_video"
FORMAT_VERSION = 1
NETWORK_PREFIX = "network."
LAST_NAME = "last"
# Written by the training run: best-epoch012-top1_0.8312.ckpt
_BEST = re.compile(r"^best-.*top1_([\d.]+)\.ckpt$")


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what travels with it.

    Attributes:
        path: The file.
        sha256: Its checksum.
        spec: The architecture.
        preprocessing: How clips are prepared.
        class_names: Names of the outputs, in order.
        config: The resolved configuration of the run that made it.
        state_dict: Weights by the network's own names.
    """

    path: str
    sha256: str
    spec: ModelSpec
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    config: dict[str, Any]
    state_dict: dict[str, Tensor]

    def build(self) -> VideoClassifier:
        """Build the network with these weights, in evaluation mode.

        Raises:
            InputError: The weights do not fit the architecture the file names.
        """
        model = build_model(self.spec)
        expected = model.state_dict()
        problems = [f"missing {k}" for k in expected if k not in self.state_dict]
        problems += [f"unexpected {k}" for k in self.state_dict if k not in expected]
        problems += [
            f"{k} is {tuple(v.shape)}, expected {tuple(expected[k].shape)}"
            for k, v in self.state_dict.items()
            if k in expected and v.shape != expected[k].shape
        ]
        if problems:
            raise InputError(
                f"{self.path}: weights do not fit {self.spec.architecture} with context {self.spec.context}: "
                f"{len(problems)} differences, first {problems[0]}; the file is damaged or was edited"
            )
        model.load_state_dict(self.state_dict)
        return model.eval()


def payload(
    spec: ModelSpec, preprocessing: Preprocessing, class_names: Sequence[str], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a checkpoint stores beside the weights, as plain JSON types (safe loading takes no others)."""
    return {
        "version": FORMAT_VERSION,
        "model": to_dict(spec),
        "preprocessing": to_dict(preprocessing),
        "class_names": list(class_names),
        "config": dict(config),
    }


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, without ever executing code from it.

    Args:
        path: A checkpoint, or the folder of a training run, which stands for its best checkpoint.

    Raises:
        InputError: There is no such file, or it is no checkpoint of this package.
    """
    file = find_checkpoint(path)
    raw = read_raw(file)
    stored = raw[FORMAT_KEY]
    state = {k[len(NETWORK_PREFIX) :]: v for k, v in raw["state_dict"].items() if k.startswith(NETWORK_PREFIX)}
    return Checkpoint(
        path=str(file),
        sha256=_sha256(file),
        spec=from_dict(ModelSpec, stored["model"]),
        preprocessing=from_dict(Preprocessing, stored["preprocessing"]),
        class_names=tuple(stored["class_names"]),
        config=stored["config"],
        state_dict=state,
    )


def read_raw(file: Path) -> dict[str, Any]:
    """Read a checkpoint file's dictionary and check that this package wrote it."""
    try:
        raw = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{file}: not a readable checkpoint ({reason}); give a .ckpt that `dnl-video train` wrote"
        ) from error
    if not isinstance(raw, dict) or FORMAT_KEY not in raw or "state_dict" not in raw:
        raise InputError(f"{file}: not a checkpoint of this package; give a .ckpt that `dnl-video train` wrote")
    version = raw[FORMAT_KEY].get("version")
    if version != FORMAT_VERSION:
        raise InputError(f"{file}: checkpoint format {version}, this version reads {FORMAT_VERSION}; update dnl-video")
    return raw


def find_checkpoint(path: str | Path, *, last: bool = False) -> Path:
    """Return the checkpoint that a path stands for: itself, or a run folder's best (or last) one.

    Raises:
        InputError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such checkpoint; give a .ckpt file or the folder of a training run")
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    scored = [(float(found[1]), p) for p in folder.iterdir() if (found := _BEST.match(p.name))]
    wanted = [] if last else [p for _, p in sorted(scored)]
    wanted = wanted or sorted(folder.glob(f"{LAST_NAME}*.ckpt"), key=lambda p: p.stat().st_mtime)
    if not wanted:
        raise InputError(f"{path}: no {'last' if last else 'best or last'} checkpoint in this folder; train first")
    return wanted[-1]


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
