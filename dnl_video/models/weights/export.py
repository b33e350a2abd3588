"""Writing trained networks that travel: one file with a model card beside it, or a folder for the Hugging Face hub."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dnl_video.errors import InputError
from dnl_video.files import write_atomic
from dnl_video.models.weights.checkpoint import EXPORTED_NAME, Checkpoint, payload
from dnl_video.models.weights.model_card import is_model_card, model_card
from dnl_video.models.weights.source import write_exported


def export_model(checkpoint: Checkpoint, out: str | Path, *, results: str = "") -> list[Path]:
    """Write a trained network as one file, and its model card.

    Args:
        checkpoint: The network.
        out: A ``.safetensors`` file, whose card is the ``.md`` beside it; or a folder in the form of the Hugging Face
            hub: ``model.safetensors``, ``config.json``, and the card as ``README.md``. `load_checkpoint` reads either.
        results: Measured accuracy in Markdown, for the card.

    Returns:
        The files written.

    Raises:
        InputError: ``out`` is neither, or cannot be written.
    """
    folder, out = check_out(out), Path(out)
    if out.is_file() and Path(checkpoint.path).exists() and out.samefile(checkpoint.path):
        raise InputError(f"{out}: is the checkpoint itself; give another name")
    file, card = out / EXPORTED_NAME if folder else out, _card(out)
    stored = payload(
        checkpoint.spec,
        checkpoint.preprocessing,
        checkpoint.class_names,
        checkpoint.config,
        _provenance(checkpoint),
        backbone_only=checkpoint.backbone_only,
    )
    written = [write_exported(file, stored, checkpoint.state_dict)]
    if folder:
        described = {key: value for key, value in stored.items() if key != "config"}
        written.append(_write_text(out / "config.json", json.dumps(described, indent=2, ensure_ascii=False) + "\n"))
    written.append(_write_text(card, model_card(checkpoint, file.name, stored["provenance"], results)))
    return written


def check_out(out: str | Path) -> bool:
    """Tell whether ``out`` stands for a folder, before the work. An earlier export there will be replaced.

    Raises:
        InputError: It is neither a folder's name nor a ``.safetensors`` file's, or another text has the card's name.
    """
    out = Path(out)
    if not _is_folder(out) and out.suffix != ".safetensors":
        raise InputError(f"{out}: give a name that ends in .safetensors, or a folder")
    card = _card(out)
    if card.is_file() and not is_model_card(card.read_text(encoding="utf-8", errors="replace")):
        raise InputError(f"{card}: is there already and is no model card, which would replace it; give another name")
    return _is_folder(out)


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def _card(out: Path) -> Path:
    return out / "README.md" if _is_folder(out) else out.with_suffix(".md")


def versions() -> dict[str, str]:
    """Return the versions that a network's numbers may depend on."""
    packages = ("dnl-video", "torch", "pytorchvideo")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def _provenance(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return where the weights come from; an exported model that is exported again keeps its training checkpoint."""
    known = dict(checkpoint.provenance)
    if checkpoint.config and "exported_with" not in known:
        known |= {"checkpoint": Path(checkpoint.path).name, "checkpoint_sha256": checkpoint.sha256}
    if checkpoint.config:
        known["run"] = Path(str(checkpoint.config.get("output_dir", ""))).name
    return known | {"exported_with": versions()}


def _write_text(path: Path, text: str) -> Path:
    write_atomic(path, text)
    return path
