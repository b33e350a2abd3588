"""Names of networks and runs in pages and pictures: two networks that are compared never have the same name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from dnl_video.spec import flat

# Names of checkpoints that many runs have.
_COMMON = ("best", "last", "previous", "model")
# Facts that have a place of their own in a name.
_NOT_SETTINGS = ("model", "weights", "results", "architecture", "context")
# Sections of a training's configuration that tell how it was trained.
_TRAINING = ("seed", "data", "augment", "optim", "trainer")


def training_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a training's configuration that two runs of one network may differ in."""
    return {key: config[key] for key in _TRAINING if key in config}


def run_folder(weights: str) -> Path:
    """Return the folder of the training run that a file of weights belongs to; for an exported model, its path."""
    path = Path(weights)
    if path.parent.name == "checkpoints":
        return path.parent.parent
    return path.parent if path.stem.partition("-")[0] in _COMMON else path.with_suffix("")


def network_names(networks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a short name of each network: its model, and where several have one model, what differs.

    Args:
        networks: Facts about each network: "model" (a short text), "weights" (path of their file), "results" (path),
            and settings such as "seed", nested or not. The run folder is preferred, then the checkpoint, then the
            settings in their order, then the path of the results. A number is the last resort.
    """
    weights = [str(facts.get("weights") or "") for facts in networks]
    texts = {"model": [str(facts.get("model") or "") for facts in networks]}
    texts["run"] = _short_paths([run_folder(path) if path else Path() for path in weights])
    texts["checkpoint"] = [PurePath(path).stem for path in weights]
    settings = differing_settings(networks)
    for key in dict.fromkeys(key for one in settings for key in one):
        texts[key] = [f"{key} {one[key]}" if key in one else "" for one in settings]
    texts["results"] = _short_paths([Path(str(facts.get("results") or "")) for facts in networks])
    parts: list[list[str]] = [[] for _ in networks]
    for values in texts.values():
        groups: dict[str, set[str]] = {}
        for part, value in zip(parts, values, strict=True):
            groups.setdefault(", ".join(part), set()).add(value)
        for part, value in zip(parts, values, strict=True):
            if len(groups[", ".join(part)]) > 1 and value:
                part.append(value)
    names = [", ".join(part) or model for part, model in zip(parts, texts["model"], strict=True)]
    return [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]


def settings_text(settings: Mapping[str, str], most: int = 6) -> str:
    """Return settings such as "seed 1, optim.lr 0.1"; at most ``most``, and the number of the others."""
    shown = [f"{key} {value}" for key, value in settings.items()]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def differing_settings(networks: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the settings of each network, by dotted name, that are not the same in all networks."""
    shown = [
        {k: v if isinstance(v, str) else json.dumps(v) for k, v in flat(facts).items() if not isinstance(v, Mapping)}
        for facts in networks
    ]
    keys = [k for k in dict.fromkeys(k for one in shown for k in one) if len({one.get(k) for one in shown}) > 1]
    return [{k: one[k] for k in keys if k in one and k not in _NOT_SETTINGS} for one in shown]


def _short_paths(paths: Sequence[Path]) -> list[str]:
    """Return the parts of paths that tell them apart: runs/a/dnl and runs/b/dnl become a and b."""
    parts = [path.parts for path in paths]
    tails = []
    for one in parts:
        others = {p for p in parts if p != one}
        length = next((n for n in range(1, len(one)) if all(p[-n:] != one[-n:] for p in others)), len(one))
        tails.append(one[-length:] if one else ())
    while len(set(tails)) > 1 and all(len(tail) > 1 for tail in tails) and len({tail[-1] for tail in tails}) == 1:
        tails = [tail[:-1] for tail in tails]
    return ["/".join(tail) for tail in tails]
