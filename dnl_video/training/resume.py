"""Resume a run: choose the checkpoint, compare the settings, and skip videos that crashed a loader process."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dnl_video.config import TrainConfig
from dnl_video.data.crash_record import STOPPED_REASON
from dnl_video.errors import InputError
from dnl_video.files import append_json_lines, read_json_lines
from dnl_video.models.weights.checkpoint import epochs_trained, read_raw, stopped_early
from dnl_video.models.weights.find import find_checkpoint, has_checkpoint, last_checkpoints
from dnl_video.models.weights.source import FORMAT_KEY
from dnl_video.spec import differences, flat, to_dict
from dnl_video.training.module import VideoTrainingModule

_CRASHED_NAME = "crashed_videos.jsonl"
"""Videos that crashed a loader process, one a line; a resumed run skips them (delete a line to try again)."""
# Settings that may not change in a run. Its length, devices, workers and logs may.
_FIXED_SETTINGS = (
    *("model.", "preprocessing.", "augment.", "optim.", "seed", "weights.source", "trainer.accumulate_grad_batches"),
    *("data.batch_size", "data.limit_videos", "data.balance"),
)
# Settings that may change; every checkpoint records the changes.
_RECORDED_SETTINGS = (
    *("optim.lr", "optim.warmup_start_lr", "optim.ema_decay", "trainer.gradient_clip_val", "trainer.precision"),
    *(f"optim.{kind}weight_decay" for kind in ("", "norm_", "bias_", "query_key_")),
)


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to resume from, known to be undamaged."""

    file: Path
    stored: dict[str, Any]  # its metadata: all but the weights and the training state
    epochs: int = 0  # finished, validation included
    trained: int = 0  # epochs whose training is finished
    steps: int = 0  # optimiser steps that are done
    callbacks: dict[str, Any] = field(default_factory=dict)  # their states


def find_resume_point(resume: str | None, output: Path) -> ResumePoint | None:
    """Return the checkpoint to resume from; None starts a new run.

    If the last checkpoint of a folder is damaged, use the previous one and print a warning.

    Args:
        resume: A checkpoint or a run's folder; "last": the last checkpoint of the output folder; "auto": the same, or
            a new run if there is none; None: a new run.
        output: The run's folder.

    Raises:
        InputError: There is no such checkpoint, it is damaged (and so is the one before), or a new run would overwrite
            an existing one.
    """
    begun = has_checkpoint(output)
    if resume is None and begun:
        raise InputError(
            f"output_dir {output} holds a run already; continue it with --resume, or give another --output"
        )
    if resume is None or (resume == "auto" and not begun):
        return None
    place = output if resume in ("last", "auto") else Path(resume)
    # find_checkpoint has the error message for a folder without checkpoints.
    files = (last_checkpoints(place) if place.is_dir() else []) or [find_checkpoint(place, last=True)]
    damage: list[InputError] = []
    for file in files:
        try:
            raw = read_raw(file)
            done = raw["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            point = ResumePoint(file, raw[FORMAT_KEY], done, epochs_trained(raw), raw["global_step"], raw["callbacks"])
        except InputError as error:
            damage.append(error)
            continue
        if damage:
            warning = f"warning: {damage[0]}; resuming from {file}, the checkpoint before it"
            rank_zero_only(print)(warning, file=sys.stderr)
        return point
    if len(files) == 1:
        raise damage[0]
    names = " and ".join(file.name for file in files)
    raise InputError(
        f"{damage[0]}; {names} are all damaged: resume from another checkpoint with --resume CKPT, or start a new run "
        "with another --output"
    )


def check_settings(point: ResumePoint, config: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Compare the settings with those of the checkpoint.

    Returns:
        (old, new) of each changed setting that may change, by its name.

    Raises:
        InputError: A setting differs that does not fit the checkpoint's optimiser state or data position, or the run
            has done more epochs than `trainer.max_epochs`.
    """
    given = to_dict(config)
    # An older version may have had other settings; those it did not have had their defaults.
    known, before, defaults = flat(given), flat(point.stored["config"]), flat(to_dict(TrainConfig()))
    changes = {}
    for key, (old, new) in differences(point.stored["config"], given).items():
        old = old if key in before else defaults.get(key)
        switched = key in ("optim.ema_decay", "data.val_manifest") and None in (old, new)
        if old == new or key not in known:
            continue
        if key in _RECORDED_SETTINGS and not switched:
            changes[key] = (old, new)
        elif switched or key.startswith(_FIXED_SETTINGS):
            raise InputError(
                f"{point.file}: its {key} is {_shown(old)}, the configuration's is {_shown(new)}; resume with the "
                "run's own config.yaml"
            )
    if point.epochs > config.trainer.max_epochs:
        raise InputError(
            f"{point.file}: its run has done {point.epochs} epochs, trainer.max_epochs is {config.trainer.max_epochs}; "
            "raise it, or start a new run with another --output"
        )
    return changes


def is_finished(point: ResumePoint, config: TrainConfig) -> bool:
    """Return whether the run has done all epochs or was stopped early; say so.

    Raises:
        InputError: It has, and the checkpoint lies outside its run's folder, so the best one is unknown.
    """
    epochs, run = config.trainer.max_epochs, point.file.parent.parent
    line, limit = stopped_early(point.callbacks, config.trainer.patience), "patience"
    if point.epochs == epochs:
        line, limit = "finished", "max_epochs"
    if line:
        line += f" ({point.epochs}/{epochs} epochs); raise trainer.{limit} to continue"
        if not has_checkpoint(run):
            raise InputError(f"{point.file}: {line}")
        rank_zero_only(print)(f"{run}: {line}")
    return bool(line)


def check_same_run(point: ResumePoint, class_names: Sequence[str], world_size: int) -> None:
    """Refuse a run that does not fit the checkpoint's classifier or data position.

    Raises:
        InputError: The classes or the number of processes differ from the checkpoint's.
    """
    file, stored = point.file, point.stored
    if stored["class_names"] != list(class_names):
        raise InputError(f"{file}: its classes are not those of data.train_manifest; resume with the run's own videos")
    processes = stored.get("processes", world_size)
    if processes != world_size:
        raise InputError(
            f"{file}: its run has {processes} process(es), not {world_size}, and its schedule and data position count "
            f"their steps; resume with {processes}, or start a new run from it with --weights.source and --output"
        )


def record_changes(point: ResumePoint, module: VideoTrainingModule, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """Take the checkpoint's provenance, add the changed settings to it, and print them."""
    module.provenance = dict(point.stored.get("provenance", {}))
    old = {key.removeprefix("optim."): old for key, (old, _) in changes.items() if key.startswith("optim.")}
    module.restored_optim = dataclasses.replace(module.config.optim, **old)
    if changes:
        pairs = {key: list(pair) for key, pair in changes.items()}
        change = {"epoch": point.trained + 1, "step": point.steps + 1, **pairs}
        module.provenance["changed_settings"] = [*module.provenance.get("changed_settings", []), change]
        rank_zero_only(print)(describe(change), flush=True)


def describe(change: Mapping[str, Any]) -> str:
    """Return the line of a change of settings."""
    words = (f"{key} {_shown(pair[0])} -> {_shown(pair[1])}" for key, pair in change.items() if isinstance(pair, list))
    return f"changed from epoch {change['epoch']}, step {change['step']}: {', '.join(words)}"


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def read_crashed(output: Path) -> dict[str, str]:
    """Return the videos that crashed a loader process in an earlier part of the run, each with the reason."""
    return dict.fromkeys(read_json_lines(output / _CRASHED_NAME), STOPPED_REASON)


def record_crashed(output: Path, videos: Iterable[str]) -> None:
    """Record videos that crashed a loader process."""
    append_json_lines(output / _CRASHED_NAME, *videos)
