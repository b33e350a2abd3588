"""Finds the checkpoint in a folder. Loads no torch, so that a wrong path is an error at once."""

from __future__ import annotations

import math
import re
from pathlib import Path

from dnl_video.errors import InputError
from dnl_video.files import list_folder

LAST_NAME = "last"
PREVIOUS_NAME = "previous"  # the checkpoint before the last one
EXPORTED_NAME = "model.safetensors"
# Written by the training run: best-epoch012-top1_0.8312.ckpt
_BEST = re.compile(r"^best-.*top1_([\d.]+)\.ckpt$")


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


def has_checkpoint(run: Path) -> bool:
    """Return whether a run's folder holds a checkpoint."""
    return bool(list_folder(run / "checkpoints", "[!.]*.ckpt"))


def named_top1(path: Path) -> float:
    """Return the validation top-1 (a share) in the name of a best checkpoint; NaN for other files."""
    found = _BEST.match(path.name)
    return float(found[1]) if found else math.nan


def last_checkpoints(path: Path) -> list[Path]:
    """Return the checkpoints of a run's folder to resume from: the newest first, then the previous one."""
    folder = _checkpoint_folder(path)
    newest = sorted(list_folder(folder, f"{LAST_NAME}*.ckpt"), key=lambda p: p.stat().st_mtime, reverse=True)
    before = folder / f"{PREVIOUS_NAME}.ckpt"
    return [*newest, before] if before.is_file() else newest


def _checkpoint_folder(path: Path) -> Path:
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path
