"""Facts about a run, a model file or a predictions directory for `dnl-video show`.

Each function returns plain JSON types and leaves unknown facts out.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnl_video.cli.recipes import read_recipe
from dnl_video.cli.terminal import command
from dnl_video.errors import InputError
from dnl_video.files import walk

if TYPE_CHECKING:
    from dnl_video.models.weights.source import Source

Facts = dict[str, Any]
_KNOWN = "a run's folder, a checkpoint, an exported model or a predictions directory"
_FIGURES = {"top1": "video-level top-1", "top5": "video-level top-5", "mean_class_accuracy": "mean class accuracy"}


def facts_of(path: str, *, gmacs: bool = False) -> Facts:
    """Return the facts about a run, a model file or a predictions directory.

    Args:
        path: The folder or the file.
        gmacs: Also count multiply-accumulates, which runs the network once.

    Raises:
        InputError: The path does not exist, or this package did not write it.
    """
    from dnl_video.models.weights.find import find_checkpoint

    place = Path(path)
    if not place.exists():
        raise InputError(f"{path} does not exist; give {_KNOWN}")
    if (place / "meta.json").is_file():
        return _predictions(place)
    if (place / "config.yaml").is_file():
        return _run(place, gmacs)
    try:
        file = find_checkpoint(place)
    except InputError as error:
        raise InputError(f"{path} contains nothing that this package wrote; give {_KNOWN}") from error
    return _model_file(file, gmacs)


def _predictions(folder: Path) -> Facts:
    from dnl_video.report.build import build_report
    from dnl_video.results.predictions import read_meta
    from dnl_video.results.reader import finished_ids, read_predictions

    meta = read_meta(folder)
    finished = len(finished_ids(folder))
    facts: Facts = {
        "kind": "predictions directory with features" if meta.clip_features else "predictions directory",
        "path": str(folder),
        "model": _changed(meta.model),
        "weights": {"file": meta.weights, "sha256": meta.weights_sha256},
        "preprocessing": meta.preprocessing,
        "protocol": {"num_clips": meta.num_clips, "num_crops": meta.num_crops, "frame_order": meta.frame_order},
        "classes": {"number": len(meta.class_names), "names": meta.class_names},
        "videos": {"list": meta.manifest, "listed": meta.num_videos, "done": finished, "labelled": meta.labelled},
        "run": meta.run,
        "versions": meta.versions,
        "finished": finished == meta.num_videos,
        "next": [],
    }
    if not facts["finished"]:
        facts["next"].append(f"run the command that wrote {folder} again: it resumes")
    if not finished:
        return facts
    predictions = read_predictions(folder, clip_scores=False)
    facts["videos"]["failed"] = int((~predictions.evaluated).sum())
    if meta.clip_features:
        facts["next"].append(f"dnl_video.results.reader.read_predictions('{folder}').clip_features: [clips, channels]")
    if meta.labelled:
        figures = build_report(predictions)["accuracy"]["evaluated"]["video"]
        facts["accuracy"] = figures and {_FIGURES[name]: figure["value"] for name, figure in figures.items()}
        exists = " (exists: report.md)" if (folder / "report.json").is_file() else ""
        facts["next"] += [command("report", folder) + exists, command("compare", folder, "OTHER")]
    return facts


def _run(folder: Path, gmacs: bool) -> Facts:
    from dnl_video.models.weights.checkpoint import epochs_trained, read_raw, stopped_early
    from dnl_video.models.weights.find import find_checkpoint, has_checkpoint
    from dnl_video.models.weights.source import FORMAT_KEY, Source

    config = read_recipe(str(folder / "config.yaml"))
    train = command("train", "--config", folder / "config.yaml")
    facts: Facts = {"kind": "training run", "path": str(folder), "training": _training(config), "finished": False}
    if not has_checkpoint(folder):
        return {**facts, "next": [f"{train} (no checkpoint was written yet)"]}
    best, last = find_checkpoint(folder), find_checkpoint(folder, last=True)
    source = Source(best)
    facts |= _network(source, gmacs)
    del facts["config"]
    raw = read_raw(source if best == last else last)
    trainer = config.get("trainer", {})
    done, epochs = epochs_trained(raw), trainer.get("max_epochs")
    early = stopped_early(raw.get("callbacks", {}), trainer.get("patience"))
    # The best checkpoint may be older than a change of settings.
    if changed := raw[FORMAT_KEY].get("provenance", {}).get("changed_settings"):
        facts["provenance"]["changed settings"] = changed
    metrics, attention = _last_metrics(folder)
    facts["progress"] = {
        "last checkpoint": str(last),
        "epochs done": done,
        "max epochs": epochs,
        "steps": int(raw["global_step"]),
        "written": _when(last),
        **({"metrics": metrics} if metrics else {}),
    }
    facts |= {"attention": attention} if attention else {}
    if early:
        facts["progress"]["stopped early"] = early.partition(": ")[2]
    facts["finished"] = epochs is not None and (done >= epochs or bool(early))
    if (curves := folder / "curves.png").is_file():
        facts["curves"] = str(curves)
    evaluations = sorted(parent for parent, _, files in walk(folder) if "meta.json" in files)
    if evaluations:
        facts["evaluations"] = evaluations
    manifest = config.get("data", {}).get("val_manifest") or "LIST"
    todo = [] if facts["finished"] else [f"{train} --resume"]
    todo += [command("show", path) for path in evaluations[:3]]
    if not evaluations:
        todo.append(command("evaluate", "--checkpoint", folder, "--manifest", manifest))
    return {**facts, "next": [*todo, command("predict", "VIDEO", "--checkpoint", folder)]}


def _model_file(file: Path, gmacs: bool) -> Facts:
    from dnl_video.models.weights.checkpoint import epochs_trained, read_raw
    from dnl_video.models.weights.source import Source

    source = Source(file)
    exported = source.kind == "safetensors"
    facts: Facts = {"kind": "exported model" if exported else "checkpoint", "path": str(file)}
    facts |= _network(source, gmacs)
    config = facts.pop("config")
    if not exported:
        raw = read_raw(source)
        if "epoch" in raw:
            facts["weights"] |= {"epochs done": epochs_trained(raw), "steps": int(raw["global_step"])}
    if config:
        facts["training"] = _training(config)
    manifest = config.get("data", {}).get("val_manifest") or "LIST"
    evaluate = command("evaluate", "--checkpoint", file, "--manifest", manifest)
    return {**facts, "next": [evaluate, command("predict", "VIDEO", "--checkpoint", file)]}


def _network(source: Source, gmacs: bool) -> Facts:
    """Return the facts of a checkpoint's network; "config" is the config of its run."""
    from dnl_video.models.build import block_positions
    from dnl_video.models.inspect.flops import count
    from dnl_video.models.weights.checkpoint import epochs_trained, load_checkpoint, read_raw
    from dnl_video.models.weights.find import named_top1
    from dnl_video.spec import to_dict

    loaded, file = load_checkpoint(source), source.path
    network, clips = loaded.build(), loaded.preprocessing
    model = _changed(to_dict(loaded.spec))
    if loaded.spec.context != "none":
        model["positions"] = {stage: list(blocks) for stage, blocks in block_positions(loaded.spec).items()}
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    model["parameters"] = sum(sizes.values())
    model["parameters of context blocks"] = sum(n for name, n in sizes.items() if ".context_blocks." in name)
    if gmacs:
        model["GMACs per view"] = count(network, 1, 3, clips.num_frames, clips.crop_size, clips.crop_size).macs / 1e9
    size = file.stat().st_size
    weights: Facts = {"file": str(file), "bytes": size, "sha256": loaded.sha256, "written": _when(file)}
    if not math.isnan(top1 := named_top1(file)):
        weights |= {"best epoch": epochs_trained(read_raw(source)), "validation top-1": top1}
    return {
        "model": model,
        "weights": weights,
        "preprocessing": to_dict(clips),
        "classes": {"number": len(loaded.class_names), "names": list(loaded.class_names)},
        "provenance": _known(loaded.provenance),
        "config": loaded.config,
    }


def _known(values: Facts) -> Facts:
    """Return nested facts without empty ones; in their names, spaces replace underscores."""
    plain = {key.replace("_", " "): _known(v) if isinstance(v, dict) else v for key, v in values.items()}
    return {key: v for key, v in plain.items() if v not in (None, "", [], {})}


def _changed(model: Facts) -> Facts:
    """Return a ModelSpec without the fields its architecture ignores and without block options at their default."""
    from dnl_video.spec import ContextOptions, to_dict

    default = to_dict(ContextOptions())
    options = {k: v for k, v in (model.get("context_options") or {}).items() if v != default.get(k)}
    unused = {"context_options"}
    if not str(model.get("architecture")).startswith("slowfast"):
        unused |= {"slow_alpha", "slow_frames", "fusion_kernel"}
    rest = {k: v for k, v in model.items() if k not in unused and v is not None}
    return {**rest, "context_options": options} if options else rest


def _training(config: Facts) -> Facts:
    """Return the most important settings of a run."""
    optim, trainer, data = (config.get(key) or {} for key in ("optim", "trainer", "data"))
    settings = {
        "train list": data.get("train_manifest"),
        "validation list": data.get("val_manifest"),
        "class balance": data.get("balance"),
        "epochs": trainer.get("max_epochs"),
        "patience": trainer.get("patience"),
        "clips per step and process": data.get("batch_size"),
        "optimizer": optim.get("optimizer"),
        "learning rate": optim.get("lr"),
        "learning rate refers to clips": optim.get("lr_batch"),
        "schedule": optim.get("schedule"),
        "milestones": optim.get("milestones") if optim.get("schedule") == "step" else None,
        "warm-up epochs": optim.get("warmup_epochs"),
        "weight decay": optim.get("weight_decay"),
        "precision": trainer.get("precision"),
        "seed": config.get("seed"),
    }
    return _known(settings)


def _last_metrics(folder: Path) -> tuple[Facts, Facts]:
    """Return the last value of each metric in the CSV logs: of training and validation, and of attention by block."""
    from dnl_video.models.inspect.attention_health import is_collapsed
    from dnl_video.report.curves import read_logs

    latest: Facts = {}
    for row in read_logs(folder):
        latest |= {k: float(v) for k, v in row.items() if v and k and k.startswith(("train/", "val/", "attention/"))}
    blocks: dict[str, Facts] = {}
    for name in [name for name in latest if name.startswith("attention/")]:
        _, block, kind = name.split("/")
        blocks.setdefault(block, {})[kind] = latest.pop(name)
    return latest, {block: {**health, "collapsed": is_collapsed(health)} for block, health in blocks.items()}


def _when(file: Path) -> str:
    return datetime.datetime.fromtimestamp(file.stat().st_mtime).astimezone().isoformat(" ", "seconds")
