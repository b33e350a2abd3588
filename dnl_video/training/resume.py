"""Going on with a run: from which checkpoint, with which settings, and without the videos that stopped it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from dnl_video.data.crash_record import STOPPED_REASON
from dnl_video.errors import InputError
from dnl_video.models.weights.checkpoint import find_checkpoint, last_checkpoints, read_raw
from dnl_video.models.weights.source import FORMAT_KEY
from dnl_video.training.module import VideoTrainingModule

_CRASHED_NAME = "crashed_videos.jsonl"
"""Videos that stopped a loader process, one a line; a resumed run does not open them (delete a line to try again)."""
# What may not change between the parts of one run. Longer runs, other kinds of devices, workers and logs may.
_FIXED_BY_A_RUN = (
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
class StartPoint:
    """A checkpoint to go on from, known to be whole.

    Attributes:
        file: The checkpoint.
        stored: What it stores beside weights and training state.
    """

    file: Path
    stored: dict[str, Any]


def resume_from(resume: str | None, output: Path) -> StartPoint | None:
    """Return the checkpoint to go on from; None starts anew.

    Where the last one of a folder is damaged, the one before it takes its place, and a warning says so.

    Args:
        resume: A checkpoint or a run's folder; "last" is the output folder's own last one; "auto" that, where there is
            one; None for a new run.
        output: The run's folder.

    Raises:
        InputError: There is no such checkpoint, it is damaged (and so is the one before), or a new run would overwrite
            one.
    """
    begun = any((output / "checkpoints").glob("*.ckpt"))
    if resume is None and begun:
        raise InputError(
            f"output_dir {output} holds a run already; continue it with --resume, or give another --output_dir"
        )
    if resume is None or (resume == "auto" and not begun):
        return None
    place = output if resume in ("last", "auto") else Path(resume)
    # A folder without any is for find_checkpoint to refuse.
    newest, *older = (last_checkpoints(place) if place.is_dir() else []) or [find_checkpoint(place, last=True)]
    try:
        return StartPoint(newest, read_raw(newest)[FORMAT_KEY])
    except InputError as error:
        damage = error
    for file in older:
        with contextlib.suppress(InputError):
            start = StartPoint(file, read_raw(file)[FORMAT_KEY])
            warning = f"warning: {damage}; going on from {file}, which was saved before it"
            rank_zero_only(print)(warning, file=sys.stderr)
            return start
    if not older:
        raise damage
    names = " and ".join(file.name for file in (newest, *older))
    raise InputError(
        f"{damage}; {names} are all damaged: go on from another checkpoint with --resume CKPT, or start anew with "
        "another --output_dir"
    )


def refuse_another_run(start: StartPoint, module: VideoTrainingModule) -> None:
    """Refuse to go on with settings that the checkpoint's optimiser, data position or classes do not fit.

    Raises:
        InputError: A setting or the classes differ from the checkpoint's.
    """
    file, stored = start.file, start.stored
    if stored["class_names"] != list(module.class_names):
        raise InputError(f"{file}: its classes are not those of data.train_manifest; resume with the run's own videos")
    there, here = _flat(stored["config"]), _flat(module.resolved)
    for key in here:
        if key.startswith(_FIXED_BY_A_RUN) and there.get(key) != here[key]:
            raise InputError(
                f"{file}: its {key} is {there.get(key)}, the configuration's is {here[key]}; resume with the run's own "
                "config.yaml"
            )


def refuse_other_processes(start: StartPoint, world_size: int) -> None:
    """Refuse another number of processes: schedule and data position are counted in their steps.

    Raises:
        InputError: The checkpoint was written by fewer or more.
    """
    there = start.stored.get("processes", world_size)
    if there != world_size:
        raise InputError(
            f"{start.file}: its run has {there} process(es), not {world_size}, and its schedule and place in the epoch "
            f"count their steps; go on with {there}, or begin another run from it with --weights.source and "
            "--output_dir"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def read_crashed(output: Path) -> dict[str, str]:
    """Return the videos that stopped a loader process in an earlier part of the run, and how."""
    file = output / _CRASHED_NAME
    crashed = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        with contextlib.suppress(ValueError):  # half a line of a killed run
            crashed[json.loads(line)] = STOPPED_REASON
    return crashed


def note_crashed(output: Path, videos: Iterable[str]) -> None:
    """Remember videos that stopped a loader process."""
    with (output / _CRASHED_NAME).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(video) + "\n" for video in videos)
