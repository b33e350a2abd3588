"""Resume a run: choose the checkpoint, compare the settings, and skip videos that crashed a loader process."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dnl_video.data.crash_record import STOPPED_REASON
from dnl_video.errors import InputError
from dnl_video.files import append_json_lines, list_folder, read_json_lines
from dnl_video.models.weights.checkpoint import read_raw
from dnl_video.models.weights.find import find_checkpoint, last_checkpoints
from dnl_video.models.weights.source import FORMAT_KEY
from dnl_video.spec import differences, flat, to_dict
from dnl_video.training.module import VideoTrainingModule

_CRASHED_NAME = "crashed_videos.jsonl"
"""Videos that crashed a loader process, one a line; a resumed run skips them (delete a line to try again)."""
# Settings that may not change in a run. Its length, devices, workers and logs may.
_FIXED_SETTINGS = (
    "model.",
    "preprocessing.",
    "augment.",
    "optim.",
    "seed",
    "data.batch_size",
    "weights.source",
    "trainer.accumulate_grad_batches",
)


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to resume from, known to be undamaged.

    Args:
        file: The checkpoint.
        stored: Its metadata: all but the weights and the training state.
    """

    file: Path
    stored: dict[str, Any]


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
    begun = bool(list_folder(output / "checkpoints", "[!.]*.ckpt"))
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
            point = ResumePoint(file, read_raw(file)[FORMAT_KEY])
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


def check_same_run(point: ResumePoint, module: VideoTrainingModule, world_size: int) -> None:
    """Refuse settings that do not fit the checkpoint's optimiser state, data position or classes.

    Raises:
        InputError: A setting, the classes or the number of processes differ from the checkpoint's.
    """
    file, stored = point.file, point.stored
    if stored["class_names"] != list(module.class_names):
        raise InputError(f"{file}: its classes are not those of data.train_manifest; resume with the run's own videos")
    config = to_dict(module.config)
    # An older version may have had other settings; those it did not have had their defaults.
    known, before, defaults = flat(config), flat(stored["config"]), flat(to_dict(type(module.config)()))
    for key, (old, new) in differences(stored["config"], config).items():
        same = key not in before and new == defaults.get(key)
        if key.startswith(_FIXED_SETTINGS) and key in known and not same:
            raise InputError(
                f"{file}: its {key} is {old}, the configuration's is {new}; resume with the run's own config.yaml"
            )
    processes = stored.get("processes", world_size)
    if processes != world_size:
        raise InputError(
            f"{file}: its run has {processes} process(es), not {world_size}, and its schedule and data position count "
            f"their steps; resume with {processes}, or start a new run from it with --weights.source and --output"
        )


def read_crashed(output: Path) -> dict[str, str]:
    """Return the videos that crashed a loader process in an earlier part of the run, each with the reason."""
    return dict.fromkeys(read_json_lines(output / _CRASHED_NAME), STOPPED_REASON)


def record_crashed(output: Path, videos: Iterable[str]) -> None:
    """Record videos that crashed a loader process."""
    append_json_lines(output / _CRASHED_NAME, *videos)
