"""`export_model`: writes a trained network as one file with a model card, or a folder for the Hugging Face hub.

The card holds only numbers that were measured.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dnl_video.errors import InputError
from dnl_video.files import write_atomic
from dnl_video.models.build import block_positions
from dnl_video.models.weights.checkpoint import Checkpoint, payload
from dnl_video.models.weights.find import CARD_MARK, EXPORTED_NAME, card_of, check_out
from dnl_video.models.weights.source import write_exported
from dnl_video.spec import ContextOptions, to_dict

_CONTEXTS = {
    "none": "no context blocks",
    "nl": "non-local blocks (Wang et al., CVPR 2018)",
    "dnl": "disentangled non-local blocks (Yin et al., ECCV 2020)",
    "pairwise": "the whitened pairwise term of disentangled non-local blocks (Yin et al., ECCV 2020)",
    "unary": "the unary term of disentangled non-local blocks (Yin et al., ECCV 2020)",
    "snl": "simplified non-local blocks (Cao et al., 2019)",
    "gc": "global context blocks (Cao et al., 2019)",
}
_HUB_HEADER = "---\npipeline_tag: video-classification\ntags: [action-recognition]\n---\n\n"  # read by the hub
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def export_model(checkpoint: Checkpoint, out: str | Path, *, results: str = "", repository: str = "") -> list[Path]:
    """Write a trained network as one file, and its model card.

    Args:
        checkpoint: The network.
        out: A ``.safetensors`` file, whose card is the ``.md`` beside it; or a folder in the form of the Hugging Face
            hub: ``model.safetensors``, ``config.json``, and the card as ``README.md``. `load_checkpoint` reads either.
        results: Measured accuracy in Markdown, for the card.
        repository: Name on the Hugging Face hub, for the card.

    Returns:
        The files written.

    Raises:
        InputError: ``out`` is neither, or cannot be written.
    """
    folder, out = check_out(out), Path(out)
    if out.is_file() and Path(checkpoint.path).exists() and out.samefile(checkpoint.path):
        raise InputError(f"{out}: is the checkpoint itself; give another name")
    file, card = out / EXPORTED_NAME if folder else out, card_of(out)
    stored = payload(
        checkpoint.spec,
        checkpoint.preprocessing,
        checkpoint.class_names,
        checkpoint.config,
        _provenance(checkpoint),
        backbone_only=checkpoint.backbone_only,
    )
    write_exported(file, stored, checkpoint.state_dict)
    texts = {card: _HUB_HEADER * folder + model_card(checkpoint, file.name, stored["provenance"], results, repository)}
    if folder:
        described = {key: value for key, value in stored.items() if key != "config"}
        texts = {out / "config.json": json.dumps(described, indent=2, ensure_ascii=False) + "\n", **texts}
    for path, text in texts.items():
        write_atomic(path, text)
    return [file, *texts]


def _provenance(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the origin of the weights; a second export keeps the training checkpoint of the first."""
    known = dict(checkpoint.provenance)
    if checkpoint.config and "exported_with" not in known:
        known |= {"checkpoint": Path(checkpoint.path).name, "checkpoint_sha256": checkpoint.sha256}
    if checkpoint.config:
        known["run"] = Path(str(checkpoint.config.get("output_dir", ""))).name
    versions = {name: version(name) for name in ("dnl-video", "torch", "pytorchvideo")}
    return known | {"exported_with": versions | {"python": platform.python_version()}}


def model_card(
    checkpoint: Checkpoint, file: str, provenance: Mapping[str, Any], results: str = "", repo: str = ""
) -> str:
    """Return the model card of an exported file, in Markdown; without results it states that there are none."""
    spec = checkpoint.spec
    title = spec.architecture + (f" + {spec.context}" if spec.context != "none" else "")
    sections = {
        "Model": _model(checkpoint),
        "Input": _input(checkpoint),
        "Use": _use(file, checkpoint.backbone_only, repo),
        "Training and provenance": _training(checkpoint, provenance),
        "Accuracy": results or "No report of this model's accuracy came with its export.",
        "Classes": _classes(checkpoint.class_names),
        "License": "State here the licence of these weights, and of the videos they were trained on.",
    }
    return "\n\n".join([f"# {title}", *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def _model(checkpoint: Checkpoint) -> str:
    spec = checkpoint.spec
    parameters = sum(v.numel() for k, v in checkpoint.state_dict.items() if not k.endswith(_BUFFERS))
    outputs = "no classifier (a backbone to train from)" if checkpoint.backbone_only else f"{spec.num_classes} classes"
    lines = [
        f"Video classifier: pytorchvideo's {spec.architecture} with {_CONTEXTS[spec.context]}, {outputs}, "
        f"{parameters / 1e6:.2f}M parameters.",
        "",
        f"- head: {spec.head}",
    ]
    if spec.stem_channels != 64:
        lines.append(f"- stem_channels: {spec.stem_channels} (published networks: 64)")
    if spec.context != "none":
        lines.append(f"- blocks after: {', '.join(f'{s} {list(i)}' for s, i in block_positions(spec).items())}")
        default, chosen = to_dict(ContextOptions()), to_dict(spec.context_options)
        lines += [f"- {k}: {v}" for k, v in chosen.items() if v != default[k] and k != "positions"]
    return "\n".join(lines)


def _input(checkpoint: Checkpoint) -> str:
    p = checkpoint.preprocessing
    rate = f" of {p.target_fps:g} frames per second" if p.target_fps else ""
    return (
        f"Clips of {p.num_frames} frames at stride {p.frame_stride}{rate} (`sampling: {p.sampling}`), short side "
        f"{p.short_side} pixels{'' if p.antialias else ' (not antialiased)'}, crops of {p.crop_size} (`rounding: "
        f"{p.rounding}`); {p.channel_order.upper()} in [0, 1], minus mean {list(p.mean)}, divided by {list(p.std)}."
    )


def _use(file: str, backbone_only: bool, repository: str) -> str:
    if backbone_only:
        return f"```bash\ndnl-video train --config RECIPE --weights.source {file}\n```"
    load = f'from_pretrained("{repository}")' if repository else f'from_checkpoint("{file}")'
    return (
        f"```bash\ndnl-video predict video.mp4 --checkpoint {file}\n```\n\n"
        "```python\nimport dnl_video\n\n"
        f"predictor = dnl_video.Predictor.{load}\n"
        'print(predictor.predict("video.mp4").top(5))\n```'
    )


def _training(checkpoint: Checkpoint, provenance: Mapping[str, Any]) -> str:
    lines = []
    if checkpoint.config:
        data, trainer = checkpoint.config.get("data", {}), checkpoint.config.get("trainer", {})
        manifest = Path(str(data.get("train_manifest", ""))).name
        lines += [
            f"- run: {_escape(provenance.get('run', ''))}",
            f"- training videos: {_escape(manifest)}",
            f"- epochs of the run: {trainer.get('max_epochs')}",
        ]
    changes = provenance.get("changed_settings")
    for change in changes if isinstance(changes, list) else []:
        if isinstance(change, Mapping):
            words = ", ".join(f"{key} {value}" for key, value in change.items())
            lines.append(f"- settings changed during training: {_escape(words)}")
    started = provenance.get("started_from")
    if isinstance(started, Mapping):
        lines.append(f"- started from: {_source_line(started)}")
    elif checkpoint.config:
        lines.append("- started from: random weights")
    if isinstance(converted := provenance.get("converted_from"), Mapping):
        lines.append(f"- converted from: {_source_line(converted)}")
        lines += [f"- note: {_escape(note)}" for note in converted.get("notes") or ()]
    if "checkpoint" in provenance:
        digest = provenance.get("checkpoint_sha256")
        lines.append(f"- checkpoint: {_escape(provenance['checkpoint'])}, sha256 `{digest}`")
    made = ", ".join(f"{k} {v}" for k, v in provenance.get("exported_with", {}).items())
    return "\n".join([*lines, f"{CARD_MARK}{made}"])


def _classes(names: Sequence[str]) -> str:
    if list(names) == [str(i) for i in range(len(names))]:
        return f"{len(names)}, without names." if names else "None."
    return "\n".join(f"{i}. {_escape(name)}" for i, name in enumerate(names))


def _source_line(source: Mapping[str, Any]) -> str:
    digest = f", sha256 `{source['sha256']}`" if source.get("sha256") else ""
    return f"{_escape(Path(str(source.get('source') or 'given weights')).name)} ({source.get('origin')}){digest}"


def _escape(text: object) -> str:
    """Escape the characters that Markdown would interpret."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]>|#" else c for c in " ".join(str(text).split()))
    return escaped.replace("<", "&lt;")  # not every renderer knows a backslash before it
