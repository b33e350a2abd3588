"""Facts about results, recipes, lists, videos and weights of other projects for `dnl-video show`.

A function returns an empty dictionary for anything else.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnl_video.cli.recipes import read_recipe
from dnl_video.cli.terminal import command
from dnl_video.data.class_lists import read_class_list
from dnl_video.data.folders import VIDEO_EXTENSIONS
from dnl_video.data.manifest import missing, read_manifest, read_videos
from dnl_video.errors import InputError
from dnl_video.spec import ContextOptions, flat, to_dict

if TYPE_CHECKING:
    from dnl_video.models.weights.source import Source

Facts = dict[str, Any]
# File of a result -> what it is, and its top-1 by network.
_RESULTS: dict[str, tuple[str, Callable[[Facts], dict[str, float]]]] = {
    "study.json": ("study of contexts", lambda s: {one["context"]: one["top1"]["mean"] for one in s["summary"]}),
    "compare.json": (
        "comparison",
        lambda c: {r["short_name"]: r["accuracy"]["evaluated"]["top1"]["value"] for r in c["runs"]},
    ),
    "report.json": ("report", lambda r: {"evaluated videos": r["accuracy"]["evaluated"]["video"]["top1"]["value"]}),
}
_SETTINGS = (
    *("data.train_manifest", "data.val_manifest", "data.balance", "data.batch_size", "trainer.max_epochs"),
    *("trainer.patience", "trainer.precision", "optim.optimizer", "optim.lr", "optim.lr_batch", "optim.schedule"),
    *("optim.milestones", "optim.warmup_epochs", "optim.weight_decay", "seed"),
)
_LONGEST_NAME = 80  # characters of a class name; a text with longer lines is no class list


def result_facts(path: Path) -> Facts:
    """Return the facts about a study, a comparison, or a report without its predictions."""
    for name, (kind, top1) in _RESULTS.items():
        file = path / name if path.is_dir() else path
        if file.name == name and file.is_file():
            try:
                found = {key: f"{100 * value:.1f}%" for key, value in top1(json.loads(file.read_bytes())).items()}
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise InputError(f"{file}: damaged, or not written by this package; write it again") from error
            pages = [page for suffix in (".html", ".md") if (page := file.with_suffix(suffix)).is_file()]
            return {"kind": kind, "top-1": found, "next": [f"open {page}" for page in pages[:1]]}
    if (path / "runs.jsonl").is_file():
        again = "run the `dnl-video ablate` command that wrote it again: it resumes"
        return {"kind": "study of contexts", "finished": False, "next": [again]}
    return {}


def recipe_facts(path: Path) -> Facts:
    """Return the facts about a recipe of a training or of a study."""
    recipe = read_recipe(str(path))
    if "recipe" in recipe:
        return {"kind": "recipe of a study", "study": recipe, "next": [command("ablate", "--config", path)]}
    with contextlib.suppress(LookupError, AttributeError):  # a section is missing, or no mapping
        facts = {"kind": "recipe", "model": changed(recipe["model"]), "training": training(recipe)}
        return {**facts, "next": [command("train", "--config", path, "--dry-run"), command("train", "--config", path)]}
    return {}


def list_facts(path: Path) -> Facts:
    """Return the facts about a list of videos, a class list, or a folder of videos."""
    if path.name.endswith(".broken.csv"):
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            lost = [f"{row.get('status')}: {row.get('reason')}".rstrip(": ") for row in csv.DictReader(file)]
        again = "repair them, then run `dnl-video prepare` again: it checks only new and changed files"
        return {"kind": "videos that prepare left out", "videos": dict(Counter(lost).most_common()), "next": [again]}
    found, errors = None, []
    for read in (read_manifest, lambda path: read_videos([str(path)])):
        try:
            found = found or read(path)
        except InputError as error:
            errors.append(str(error))
    records = found.records if found else ()
    listed = any(record.path.lower().endswith(VIDEO_EXTENSIONS) or Path(record.path).is_dir() for record in records)
    if not listed and path.suffix in (".txt", ".json"):
        with contextlib.suppress(InputError):
            names = read_class_list(path)
            facts = {"kind": "class list", "classes": {"number": len(names), "names": names}}
            words = ("--annotations", "LIST", "--videos", "DIR", "--classes", path, "--output", "OUT.csv")
            return {**facts, "next": [command("prepare", *words)]} if max(map(len, names)) <= _LONGEST_NAME else {}
    if found is None:
        return {}
    videos = {"number": len(records), "missing": len(missing(records)), "notes": [*found.notes, *errors]}
    kind = f"{'folder' if path.is_dir() else 'list'} of videos"
    facts = {"kind": kind, "videos": known(videos), "next": [command("predict", path, "--checkpoint", "CHECKPOINT")]}
    if found.labels:
        counts = Counter(str(record.class_name or record.label) for record in records)
        facts["classes"] = {"number": len(counts), "names": list(counts), "fewest videos": min(counts.values())}
        train = command("train", "--config", "finetune", "--data.train_manifest", path, "--data.val_manifest", "LIST")
        facts["next"] = [train, command("evaluate", "--checkpoint", "CHECKPOINT", "--manifest", path)]
    return facts


def video_facts(path: Path) -> Facts:
    """Return the facts about a video file or a folder of frames, or raise an InputError with the reason."""
    from dnl_video.data.file_check import check_file
    from dnl_video.data.frame_folders import DEFAULT_FPS

    facts = check_file(str(path), DEFAULT_FPS, 8)
    if "error" in facts:
        raise InputError(f"{path}: {facts['error']}")
    shown = known({name: value for name, value in facts.items() if name != "head"})
    predict = command("predict", path, "--checkpoint", "CHECKPOINT")
    return {"kind": "folder of frames" if path.is_dir() else "video", "video": shown, "next": [predict]}


def weight_facts(source: Source) -> Facts:
    """Return the facts about weights of another project, or raise an InputError with the reason."""
    from dnl_video.models.weights.origins import translate_source

    path = source.path
    weights = translate_source(source, "slow_r50")
    convert = [command("convert", path, "--output", "model.safetensors")] if weights.spec else []
    return {
        "kind": f"weights of {weights.origin}",
        "model": changed(to_dict(weights.spec)) if weights.spec else {},
        "weights": {"tensors": len(source.tensors), "bytes": path.stat().st_size, "sha256": source.sha256},
        "preprocessing": dict(weights.preprocessing),
        "provenance": known({"class names": weights.class_names, "notes": weights.notes}),
        "next": [*convert, command("train", "--config", "RECIPE", "--weights.source", path)],
    }


def known(values: Facts) -> Facts:
    """Return nested facts without empty ones; in their names, spaces replace underscores."""
    plain = {key.replace("_", " "): known(v) if isinstance(v, dict) else v for key, v in values.items()}
    return {key: v for key, v in plain.items() if v not in (None, "", [], {}, ())}


def changed(model: Facts) -> Facts:
    """Return a ModelSpec without the fields its architecture ignores and without block options at their default."""
    default = to_dict(ContextOptions())
    options = {k: v for k, v in (model.get("context_options") or {}).items() if v != default.get(k)}
    unused = {"context_options"}
    if not str(model.get("architecture")).startswith("slowfast"):
        unused |= {"slow_alpha", "slow_frames", "fusion_kernel", "fusion"}
    rest = {k: v for k, v in model.items() if k not in unused and v is not None}
    return {**rest, "context_options": options} if options else rest


def training(config: Facts) -> Facts:
    """Return the most important settings of a run, by their names in a recipe."""
    values = flat(config)
    return {name: values[name] for name in _SETTINGS if values.get(name) is not None}
