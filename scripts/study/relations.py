"""Write the videos and lists of the relation task (see relation_task.py): mp4 files and CSV lists of `path,label`.

    python scripts/study/relations.py --output data/relations

    DIR/relation-data.json                  the settings
    DIR/start_train.csv, DIR/start_val.csv  videos of one square; the label is its colour and direction
    DIR/train.csv, DIR/val.csv              videos of the task; the label is the candidate that moves like the sample
    DIR/test.csv                            the same; used once, after training
    DIR/train/000003.mp4, ...

The content of a video is a function of (seed, split, index) only, not of the number of workers or videos. The lists
are written last, so a folder with lists is complete.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from relation_task import RelationTask, draw_relation, draw_single, render_squares

from dnl_video.cli.screen import file_progress
from dnl_video.cores import default_workers
from dnl_video.errors import InputError
from dnl_video.spec import check_fields
from dnl_video.synthetic.video_files import claim_folder, write_missing, write_text

SPLITS: Final = ("start_train", "start_val", "train", "val", "test")
FPS: Final = 8
_RECORD: Final = "relation-data.json"


@dataclass(frozen=True)
class RelationCounts:
    """Number of videos in each list. The defaults are those of relations.yaml.

    Args:
        start_train: Training videos of one square.
        start_val: Validation videos of one square.
        train: Training videos of the task.
        val: Validation videos of the task.
        test: Test videos of the task.
    """

    start_train: int = 1600
    start_val: int = 100
    train: int = 1600
    val: int = 120
    test: int = 1000

    RANGES: ClassVar[dict[str, str]] = {"[1, 1000000]": " ".join(SPLITS)}

    def __post_init__(self) -> None:
        check_fields(self)


def write_relation_data(
    directory: str | os.PathLike[str],
    task: RelationTask,
    counts: RelationCounts,
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the videos and lists that are missing. The class sizes of a list differ by at most one video.

    Args:
        directory: A new or empty folder, or one that this function wrote with the same task and seed.
        task: The look of the videos.
        counts: Number of videos in each list.
        seed: Seed of all videos.
        workers: Videos encoded at the same time; None: the available cores, at most 8.
        progress: Called with (videos done, videos to write), first with 0 done, then after each video.

    Returns:
        The number of videos that were missing.

    Raises:
        InputError: The folder holds other files or cannot be written, or the seed is negative.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}; give 0 or more")
    folder = Path(directory)
    record = {"format": 1, "seed": seed, **dataclasses.asdict(task)}
    claim_folder(folder / _RECORD, record, "videos of this task")
    labels = {split: _labels(task, split, getattr(counts, split), seed) for split in SPLITS}
    files = [
        (folder / split / f"{index:06d}.mp4", functools.partial(_draw, task, split, index, label, seed))
        for split in SPLITS
        for index, label in enumerate(labels[split])
    ]
    written = write_missing(files, FPS, default_workers(workers), progress)
    for split in SPLITS:
        names = class_names(task, split)
        lines = [f"{split}/{index:06d}.mp4,{names[label]}\n" for index, label in enumerate(labels[split])]
        write_text(folder / f"{split}.csv", "path,label\n" + "".join(lines))
    return written


def class_names(task: RelationTask, split: str) -> tuple[str, ...]:
    """Return the classes of a list: the candidates' colours, or look and direction for the videos of one square."""
    return task.single_classes if split.startswith("start") else task.classes


def _labels(task: RelationTask, split: str, count: int, seed: int) -> list[int]:
    """Return a class for each index; each block of consecutive videos has every class once, in random order."""
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


def parse(argv: list[str] | None) -> tuple[str, int, RelationTask, RelationCounts]:
    """Parse the command line to the folder, the seed, the task and the counts.

    Raises:
        InputError: A value is out of range.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR", help="Folder of the videos and lists.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of all videos.")
    for kind in (RelationTask, RelationCounts):
        # Each field has one line of the docstring, "name: help".
        lines = (kind.__doc__ or "").partition("Args:\n")[2].strip().splitlines()
        texts = dict(line.strip().split(": ", 1) for line in lines)
        for field in dataclasses.fields(kind):
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=type(field.default),
                default=field.default,
                metavar="N",
                help=f"{texts[field.name]} Default: %(default)s.",
            )
    options = vars(parser.parse_args(argv))
    out, seed = options.pop("output"), options.pop("seed")
    counts = RelationCounts(**{split: options.pop(split) for split in SPLITS})
    return out, seed, RelationTask(**options), counts


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 2 for wrong input."""
    try:
        out, seed, task, counts = parse(argv)
        with file_progress() as bar:
            written = write_relation_data(
                out, task, counts, seed=seed, progress=lambda done, total: bar("generating videos", done, total, 0)
            )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{out}: {f'wrote {written} videos' if written else 'all videos are there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
