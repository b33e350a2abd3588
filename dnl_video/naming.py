"""Names of networks and runs in pages and pictures: two networks that are compared never have the same name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from dnl_video.spec import flat

_COMMON = ("best", "last", "previous", "model")  # names of checkpoints that many runs have
_NOT_SETTINGS = ("model", "weights", "results", "architecture", "context")  # facts with a place of their own in a name


def training_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a training's configuration that tells how a network was trained."""
    return {key: config[key] for key in ("seed", "data", "augment", "optim", "trainer") if key in config}


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
            and settings such as "seed", nested or not. What differs is the run folder; else the checkpoint, a setting,
            the path of the results, and in the last resort a number.
    """
    weights, settings = [facts.get("weights") or "" for facts in networks], differing_settings(networks)
    columns = [
        [facts["model"] for facts in networks],
        _short_paths([run_folder(path) if path else Path() for path in weights]),
        [Path(path).stem for path in weights],
        *([f"{key} {one[key]}" if key in one else "" for one in settings] for key in dict.fromkeys(chain(*settings))),
        _short_paths([Path(facts.get("results") or "") for facts in networks]),
    ]
    names = [""] * len(networks)
    for column in columns:
        values = {name: {v for n, v in zip(names, column, strict=True) if n == name} for name in names}
        told = zip(names, column, strict=True)
        names = [", ".join(filter(None, (n, v))) if len(values[n]) > 1 else n for n, v in told]
    names = [name or model for name, model in zip(names, columns[0], strict=True)]
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
    keys = [k for k in dict.fromkeys(chain(*shown)) if len({one.get(k) for one in shown}) > 1]
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
