"""The training run that predictions come from, and facts that tell networks apart."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from typing import Any

import yaml

from dnl_video.naming import run_folder, training_facts
from dnl_video.report.build import model_name, origin_of
from dnl_video.report.curves import Curves, read_curves
from dnl_video.results.predictions import Predictions


def find_run(weights: str, directory: str) -> Path | None:
    """Return the folder of the training run, if it is still there: by its weights, or above the predictions."""
    found = ([run_folder(weights)] if weights else []) + list(Path(directory).absolute().parents)
    return next((f for f in found if (f / "config.yaml").is_file() and (f / "checkpoints").is_dir()), None)


def curves_of(predictions: Predictions, directory: str) -> Curves:
    """Return the training curves of a predictions directory's run; empty if the run or its logs cannot be read."""
    run = find_run(predictions.meta.weights, directory)
    if run is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, csv.Error):  # a report needs no curve
            return read_curves(run)
    return {}


def facts_of(predictions: Predictions, directory: str) -> dict[str, Any]:
    """Return the facts of a network for `network_names`; the training's settings only if its run is found."""
    meta, run = predictions.meta, find_run(predictions.meta.weights, directory)
    config = None
    if run is not None:
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
            config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    facts = {"model": model_name(origin_of(predictions)), "weights": meta.weights, "results": directory}
    facts |= {"seed": meta.run["seed"]} if "seed" in meta.run else {}
    facts |= training_facts(config) if isinstance(config, dict) else {}
    views = {name: getattr(meta, name) for name in ("num_clips", "num_crops", "hop_s", "frame_order")}
    return {**facts, **meta.model, **meta.preprocessing, **{k: v for k, v in views.items() if v is not None}}
