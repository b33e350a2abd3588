"""Finds files of weights and checks the path of an export, without torch: a wrong path is an error at once."""

from __future__ import annotations

import math
import re
from pathlib import Path

from dnl_video.errors import InputError
from dnl_video.files import check_output, list_folder

LAST_NAME = "last"
PREVIOUS_NAME = "previous"  # the checkpoint before the last one
EXPORTED_NAME = "model.safetensors"
CARD_MARK = "- exported with: "  # begins a line of every model card
# Written by the training run: best-epoch-013-top1_0.8312.ckpt, or best-epoch012-... (from 0) by earlier versions
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


def find_weights(source: str) -> Path | None:
    """Return the file of a path or of a run's folder; None for the name of published weights.

    Raises:
        InputError: There is no such file.
    """
    if Path(source).exists():
        return find_checkpoint(source)
    if Path(source).suffix or len(Path(source).parts) != 1:
        raise InputError(f"{source}: no such file of weights")
    return None


def check_out(out: str | Path) -> bool:
    """Check an output path before long work; return whether it is a folder. An earlier export may be replaced.

    Raises:
        InputError: It is neither a folder nor a ``.safetensors`` file, cannot be written, or a text that is no model
            card has the card's name.
    """
    out = Path(out)
    if not _is_folder(out) and out.suffix != ".safetensors":
        raise InputError(f"{out}: give a name that ends in .safetensors, or a folder")
    check_output(out, is_file=not _is_folder(out))
    card = card_of(out)
    if card.is_file() and f"\n{CARD_MARK}dnl-video " not in card.read_text(encoding="utf-8", errors="replace"):
        raise InputError(
            f"{card}: exists and is not a model card; the card of this export would replace it; give another name"
        )
    return _is_folder(out)


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def card_of(out: Path) -> Path:
    """Return the path of an export's model card."""
    return out / "README.md" if _is_folder(out) else out.with_suffix(".md")
