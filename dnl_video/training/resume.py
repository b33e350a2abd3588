"""Going on with a run: from which checkpoint, with which settings, and without the videos that stopped it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dnl_video.data.journal import STOPPED_REASON
from dnl_video.errors import InputError
from dnl_video.models.weights.checkpoint import FORMAT_KEY, find_checkpoint, read_raw
from dnl_video.training.module import VideoTrainingModule

_CRASHED_NAME = "crashed_videos.jsonl"
"""Videos that stopped a loader process, one a line; a resumed run does not open them (delete a line to try again)."""
# What may not change between the parts of one run. Longer runs, other devices, workers and logs may.
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


def resume_from(resume: str | None, output: Path) -> Path | None:
    """Return the checkpoint to go on from; None starts anew.

    Args:
        resume: A checkpoint or a run's folder; "last" is the output folder's own last one; None for a new run.
        output: The run's folder.

    Raises:
        InputError: There is no such checkpoint, or a new run would overwrite one.
    """
    if resume is not None:
        return find_checkpoint(output if resume == "last" else resume, last=True)
    if any((output / "checkpoints").glob("*.ckpt")):
        raise InputError(
            f"output_dir {output} holds a run already; continue it with --resume, or give another --output_dir"
        )
    return None


def refuse_another_run(file: Path, module: VideoTrainingModule) -> None:
    """Refuse to go on with settings that the checkpoint's optimiser, data position or classes do not fit.

    Raises:
        InputError: A setting or the classes differ from the checkpoint's.
    """
    stored = read_raw(file)[FORMAT_KEY]
    if stored["class_names"] != list(module.class_names):
        raise InputError(f"{file}: its classes are not those of data.train_manifest; resume with the run's own videos")
    there, here = _flat(stored["config"]), _flat(module.resolved)
    for key in here:
        if key.startswith(_FIXED_BY_A_RUN) and there.get(key) != here[key]:
            raise InputError(
                f"{file}: its {key} is {there.get(key)}, the configuration's is {here[key]}; resume with the run's own "
                "config.yaml"
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def read_crashed(output: Path) -> dict[str, str]:
    """Return the videos that stopped a loader process in an earlier part of the run, and how."""
    file = output / _CRASHED_NAME
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {json.loads(line): STOPPED_REASON for line in lines}


def note_crashed(output: Path, videos: Iterable[str]) -> None:
    """Remember videos that stopped a loader process."""
    with (output / _CRASHED_NAME).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(video) + "\n" for video in videos)
