"""The videos of the relation task as a data set: mp4 files and lists of `path,label`.

    DIR/relation-data.json                  how it was made
    DIR/start_train.csv, DIR/start_val.csv  one square a video; the label is its colour and direction
    DIR/train.csv, DIR/val.csv              the task; the label is the candidate that moves as the sample does
    DIR/test.csv                            the same, for one look at the end
    DIR/train/000003.mp4, ...

The content of a video is a function of (seed, split, index) alone: neither the number of workers nor the number of
videos changes it. The lists are written last: a folder that has them is complete.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dnl_video.cores import default_workers
from dnl_video.errors import InputError
from dnl_video.synthetic.relations import RelationTask, draw_relation, draw_single, render_squares
from dnl_video.synthetic.video_files import write_missing, write_text

SPLITS: Final = ("start_train", "start_val", "train", "val", "test")
FPS: Final = 8
_RECORD: Final = "relation-data.json"


@dataclass(frozen=True)
class RelationCounts:
    """How many videos each list has.

    Args:
        start_train: Videos of one square to learn motion from.
        start_val: Videos of one square to validate on.
        train: Videos to train on.
        val: Videos to validate on during training.
        test: Videos that only the last checkpoint sees.
    """

    start_train: int = 1000
    start_val: int = 100
    train: int = 1000
    val: int = 200
    test: int = 600

    def __post_init__(self) -> None:
        for split in SPLITS:
            if getattr(self, split) < 1:
                raise InputError(f"videos.{split} is {getattr(self, split)}; give at least 1")


def write_relation_data(
    directory: str | os.PathLike[str],
    task: RelationTask,
    counts: RelationCounts,
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Generate the videos and lists that are missing; classes are balanced to within one video.

    Args:
        directory: Folder to fill: new, empty, or made by this function with the same task and seed.
        task: How videos look.
        counts: How many.
        seed: Seed of all videos.
        workers: Videos made at the same time; None takes the cores available, 8 at most.
        progress: Called after each video with how many are done, and of how many; first with 0 done.

    Returns:
        How many videos were missing.

    Raises:
        InputError: The folder holds something else or cannot be written.
    """
    folder = Path(directory)
    record = {"made_by": "dnl-video ablate", "format": 1, "seed": seed, **dataclasses.asdict(task)}
    _check_directory(folder, record)
    labels = {split: _labels(task, split, getattr(counts, split), seed) for split in SPLITS}
    files = [
        (folder / split / f"{index:06d}.mp4", functools.partial(_draw, task, split, index, label, seed))
        for split in SPLITS
        for index, label in enumerate(labels[split])
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / _RECORD, json.dumps(record, indent=2) + "\n")
        written = write_missing(files, FPS, default_workers(workers), progress)
        for split in SPLITS:
            names = class_names(task, split)
            lines = [f"{split}/{index:06d}.mp4,{names[label]}\n" for index, label in enumerate(labels[split])]
            write_text(folder / f"{split}.csv", "path,label\n" + "".join(lines))
    except OSError as error:
        raise InputError(f"cannot write videos to {directory}: {error.strerror or error}") from error
    return written


def class_names(task: RelationTask, split: str) -> tuple[str, ...]:
    """Return the labels of a list: colours of candidates, or colour and direction where one square moves."""
    return task.single_classes if split.startswith("start") else task.classes


def _labels(task: RelationTask, split: str, count: int, seed: int) -> list[int]:
    """Give each index its class: every run of consecutive videos holds each class once, in random order."""
    classes = len(class_names(task, split))
    blocks = [
        np.random.default_rng([seed, SPLITS.index(split), block, 1]).permutation(classes).tolist()
        for block in range(-(-count // classes))
    ]
    return [label for block in blocks for label in block][:count]


def _draw(task: RelationTask, split: str, index: int, label: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([seed, SPLITS.index(split), index, 0])
    draw = draw_single if split.startswith("start") else draw_relation
    return render_squares(task, draw(task, label, rng), rng)


def _check_directory(folder: Path, record: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but videos of the same task and seed."""
    advice = "choose another folder, or remove this one"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    try:
        found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        values = [found[key] for key in record]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder} is not empty and holds no videos of this task ({_RECORD}); {advice}") from None
    for (key, wanted), value in zip(record.items(), values, strict=True):
        if wanted != value:
            raise InputError(f"{folder} was made with {key}={value}, not {wanted}; {advice}")
