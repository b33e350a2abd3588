"""Facts about what a path holds for `dnl-video show`: here runs, model files and predictions directories.

Each function returns plain JSON types and leaves unknown facts out.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnl_video.cli import file_facts
from dnl_video.cli.file_facts import changed, known, training
from dnl_video.cli.recipes import read_recipe
from dnl_video.cli.terminal import command
from dnl_video.data.folders import VIDEO_EXTENSIONS, is_frame
from dnl_video.data.listings import LIST_EXTENSIONS
from dnl_video.errors import InputError
from dnl_video.files import list_folder, walk
from dnl_video.models.weights.find import find_checkpoint, has_checkpoint, named_top1

if TYPE_CHECKING:
    from dnl_video.models.weights.source import Source

Facts = dict[str, Any]
_KNOWN = (
    "a run's folder, a checkpoint, an exported model, a predictions directory, a study, a comparison, a recipe, a list "
    "of videos or classes, a video, a folder of frames or videos, or weights of another project"
)
_WEIGHTS = (".ckpt", ".pt", ".pth", ".pyth", ".pkl", ".safetensors")
_FIGURES = {"top1": "video-level top-1", "top5": "video-level top-5", "mean_class_accuracy": "mean class accuracy"}


def facts_of(path: str, *, gmacs: bool = False) -> Facts:
    """Return the facts about anything that this package writes or reads.

    Args:
        path: The folder or the file.
        gmacs: Also count multiply-accumulates, which runs the network once.

    Raises:
        InputError: The path does not exist, or holds nothing that is known.
    """
    place = Path(path)
    if not place.exists():
        raise InputError(f"{path} does not exist; give {_KNOWN}")
    facts = _folder(place, gmacs) if place.is_dir() else _file(place, gmacs)
    if not facts:
        raise InputError(f"{path} contains nothing that this package wrote or reads; give {_KNOWN}")
    return {"kind": facts.pop("kind"), "path": path, **facts}


def _folder(folder: Path, gmacs: bool) -> Facts:
    if (folder / "meta.json").is_file():
        return _predictions(folder)
    if (folder / "config.yaml").is_file():
        return _run(folder, gmacs)
    if facts := file_facts.result_facts(folder):
        return facts
    if any(is_frame(file.name) for file in list_folder(folder)):
        return file_facts.video_facts(folder)
    try:
        file = find_checkpoint(folder)
    except InputError:
        return file_facts.list_facts(folder)
    return _file(file, gmacs)


def _file(file: Path, gmacs: bool) -> Facts:
    suffix = file.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return file_facts.recipe_facts(file)
    if suffix in LIST_EXTENSIONS:
        return file_facts.result_facts(file) or file_facts.list_facts(file)
    if suffix in VIDEO_EXTENSIONS:
        return file_facts.video_facts(file)
    from dnl_video.models.weights.source import Source

    source = Source(file)
    try:
        return _model_file(source, gmacs) if source.stored else file_facts.weight_facts(source)
    except InputError:
        if suffix in _WEIGHTS:
            raise
        return {}


def _predictions(folder: Path) -> Facts:
    from dnl_video.report.build import build_report
    from dnl_video.results.predictions import read_meta
    from dnl_video.results.reader import finished_ids, read_predictions

    meta = read_meta(folder)
    finished = len(finished_ids(folder))
    facts: Facts = {
        "kind": "predictions directory with features" if meta.clip_features else "predictions directory",
        "model": changed(meta.model),
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
    from dnl_video.models.weights.source import FORMAT_KEY, Source

    config = read_recipe(str(folder / "config.yaml"))
    train = command("train", "--config", folder / "config.yaml")
    facts: Facts = {"kind": "training run", "finished": False}
    if not has_checkpoint(folder):
        return {**facts, "training": training(config), "next": [f"{train} (no checkpoint was written yet)"]}
    best, last = find_checkpoint(folder), find_checkpoint(folder, last=True)
    source = Source(best)
    facts |= _network(source, gmacs)
    raw = read_raw(source if best == last else last)
    trainer = config.get("trainer", {})
    done, epochs = epochs_trained(raw), trainer.get("max_epochs")
    early = stopped_early(raw.get("callbacks", {}), trainer.get("patience"))
    # The best checkpoint may be older than a change of settings.
    if changes := raw[FORMAT_KEY].get("provenance", {}).get("changed_settings"):
        facts["provenance"]["changed settings"] = changes
    metrics, facts["attention"] = _last_metrics(folder)
    facts["progress"] = {
        "last checkpoint": str(last),
        "epochs done": done,
        "max epochs": epochs,
        "steps": int(raw["global_step"]),
        **({"stopped early": early.partition(": ")[2]} if early else {}),
        **({"metrics": metrics} if metrics else {}),
    }
    facts["finished"] = epochs is not None and (done >= epochs or bool(early))
    if (curves := folder / "curves.png").is_file():
        facts["progress"]["curves"] = str(curves)
    evaluations = sorted(parent for parent, _, files in walk(folder) if "meta.json" in files)
    if evaluations:
        facts["evaluations"] = evaluations
    facts["training"] = training(config)
    manifest = facts["training"].get("data.val_manifest", "LIST")
    todo = [] if facts["finished"] else [f"{train} --resume"]
    todo += [command("show", path) for path in evaluations[:3]]
    if not evaluations:
        todo.append(command("evaluate", "--checkpoint", folder, "--manifest", manifest))
    return {**facts, "next": [*todo, command("predict", "VIDEO", "--checkpoint", folder)]}


def _model_file(source: Source, gmacs: bool) -> Facts:
    from dnl_video.models.weights.checkpoint import epochs_trained, read_raw

    file, exported = source.path, source.kind == "safetensors"
    facts: Facts = {"kind": "exported model" if exported else "checkpoint", **_network(source, gmacs)}
    if not facts["classes"]["number"]:
        return {**facts, "next": [command("train", "--config", "RECIPE", "--weights.source", file)]}
    if not exported:
        raw = read_raw(source)
        if "epoch" in raw:
            facts["weights"] |= {"epochs done": epochs_trained(raw), "steps": int(raw["global_step"])}
    manifest = facts["training"].get("data.val_manifest", "LIST")
    evaluate = command("evaluate", "--checkpoint", file, "--manifest", manifest)
    return {**facts, "next": [evaluate, command("predict", "VIDEO", "--checkpoint", file)]}


def _network(source: Source, gmacs: bool) -> Facts:
    """Return the facts of a checkpoint's network."""
    from dnl_video.models.build import block_positions
    from dnl_video.models.inspect.flops import count
    from dnl_video.models.weights.checkpoint import epochs_trained, read_checkpoint, read_raw
    from dnl_video.spec import to_dict

    loaded, file = read_checkpoint(source), source.path
    clips = loaded.preprocessing
    model = changed(to_dict(loaded.spec))
    if loaded.spec.context != "none":
        model["positions"] = {stage: list(blocks) for stage, blocks in block_positions(loaded.spec).items()}
    sizes = {k: v.numel() for k, v in loaded.state_dict.items() if ".running_" not in k and v.is_floating_point()}
    model["parameters"] = sum(sizes.values())
    model["parameters of context blocks"] = sum(n for name, n in sizes.items() if ".context_blocks." in name)
    if gmacs:
        shape = (1, 3, clips.num_frames, clips.crop_size, clips.crop_size)
        model["GMACs per view"] = count(loaded.build(), *shape).macs / 1e9
    weights: Facts = {"file": str(file), "bytes": file.stat().st_size, "sha256": loaded.sha256}
    if not math.isnan(top1 := named_top1(file)):
        weights |= {"best epoch": epochs_trained(read_raw(source)), "validation top-1": top1}
    return {
        "model": model,
        "weights": weights,
        "preprocessing": to_dict(clips),
        "classes": {"number": len(loaded.class_names), "names": list(loaded.class_names)},
        "provenance": known(loaded.provenance),
        "training": training(loaded.config),
    }


def _last_metrics(folder: Path) -> tuple[Facts, Facts]:
    """Return the last value of each metric in the CSV logs: of training and validation, and of attention by block."""
    from dnl_video.report.curves import read_logs

    latest: Facts = {}
    for row in read_logs(folder):
        latest |= {k: float(v) for k, v in row.items() if v and k and k.startswith(("train/", "val/", "attention/"))}
    blocks: dict[str, Facts] = {}
    for name in [name for name in latest if name.startswith("attention/")]:
        _, block, kind = name.split("/")
        blocks.setdefault(block, {})[kind] = latest.pop(name)
    return latest, blocks
