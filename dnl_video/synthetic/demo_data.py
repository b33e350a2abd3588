"""A small data set of generated motion in the official Kinetics layout.

    DIR/demo-data.json                                    how it was made
    DIR/train.csv, DIR/val.csv                            label,youtube_id,time_start,time_end,split
    DIR/train/moving left/demoT000003_000021_000023.mp4   {youtube_id}_{time_start:06d}_{time_end:06d}.mp4
    DIR/val/...
    DIR/val_reversed.csv                                  val.csv with the classes that reversed frames show

The content of a video is a function of (seed, split, index) alone: neither the number of workers nor the number of
videos changes it.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from dnl_video.cores import default_workers
from dnl_video.errors import InputError
from dnl_video.synthetic.motion import MOTION_CLASSES, OPPOSITE, render_motion
from dnl_video.synthetic.video_files import write_missing, write_text

WIDTH: Final = 80
HEIGHT: Final = 64
NUM_FRAMES: Final = 32
FPS: Final = 16
CSV_COLUMNS: Final = ("label", "youtube_id", "time_start", "time_end", "split")

Split = Literal["train", "val"]
_SPLITS: Final[tuple[Split, ...]] = ("train", "val")
_RECORD: Final = "demo-data.json"
_MOST: Final = 1_000_000  # six digits in the id


@dataclass(frozen=True)
class DemoData:
    """What `write_demo_data` made.

    Args:
        directory: The folder.
        train_csv: Manifest of the training videos.
        val_csv: Manifest of the validation videos.
        train_videos: Videos in train_csv.
        val_videos: Videos in val_csv.
        written: Videos made by this call; 0 when the folder was complete already.
    """

    directory: Path
    train_csv: Path
    val_csv: Path
    train_videos: int
    val_videos: int
    written: int


@dataclass(frozen=True)
class _Video:
    split: Split
    index: int
    label: str

    @property
    def youtube_id(self) -> str:
        return f"demo{self.split[0].upper()}{self.index:06d}"  # 11 characters, as YouTube's are

    @property
    def time_start(self) -> int:
        return 7 * self.index % 300  # as if cut from a longer video, like those of Kinetics

    @property
    def time_end(self) -> int:
        return self.time_start + math.ceil(NUM_FRAMES / FPS)

    @property
    def path(self) -> Path:
        """Path below the data set's folder."""
        return Path(self.split, self.label, f"{self.youtube_id}_{self.time_start:06d}_{self.time_end:06d}.mp4")


def write_demo_data(
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    train_videos: int = 400,
    val_videos: int = 160,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DemoData:
    """Generate videos of eight motions, with train and val manifests in the official Kinetics layout.

    Classes are balanced to within one video. The manifests are written last: a folder that has them is complete.
    Called again, it makes only what is missing; the same seed with more videos adds to a folder.

    Args:
        directory: Folder to fill: new, empty, or made by this function with the same seed.
        seed: Seed of all videos, 0 or more.
        train_videos: Training videos, at least one per class.
        val_videos: Validation videos, at least 1.
        workers: Videos made at the same time; None takes the cores available, 8 at most.
        progress: Called after each video with how many are done, and of how many; first with 0 done.

    Returns:
        Paths and counts.

    Raises:
        InputError: An argument is out of range, or the folder holds something else or cannot be written.
    """
    directory = Path(directory)
    _check_arguments(seed, train_videos, val_videos, workers)
    counts: dict[Split, int] = {"train": train_videos, "val": val_videos}
    videos = {split: _list_videos(seed, split, counts[split]) for split in _SPLITS}
    record = {
        "made_by": "dnl-video demo-data",
        "format": 2,
        "seed": seed,
        "train_videos": train_videos,
        "val_videos": val_videos,
        "width": WIDTH,
        "height": HEIGHT,
        "num_frames": NUM_FRAMES,
        "fps": FPS,
    }
    _check_directory(directory, record)
    try:
        written = _fill(directory, record, videos, default_workers(workers), progress)
    except OSError as error:
        raise InputError(f"cannot write demo data to {directory}: {error.strerror or error}") from error
    return DemoData(
        directory=directory,
        train_csv=directory / "train.csv",
        val_csv=directory / "val.csv",
        train_videos=train_videos,
        val_videos=val_videos,
        written=written,
    )


def _check_arguments(seed: int, train_videos: int, val_videos: int, workers: int | None) -> None:
    if seed < 0:
        raise InputError(f"seed is {seed}; give 0 or more")
    classes = len(MOTION_CLASSES)
    if not classes <= train_videos <= _MOST:
        raise InputError(f"train_videos is {train_videos}; give {classes} (one per class) to {_MOST}")
    if not 1 <= val_videos <= _MOST:
        raise InputError(f"val_videos is {val_videos}; give 1 to {_MOST}")
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; give at least 1")


def _check_directory(directory: Path, record: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but an earlier, equal or smaller, data set of the same seed."""
    advice = "choose another folder, or remove this one"
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; give a folder")
    if not directory.exists() or not any(directory.iterdir()):
        return
    try:
        found = json.loads((directory / _RECORD).read_text(encoding="utf-8"))
        values = [found[key] for key in record]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{directory} is not empty and holds no demo data ({_RECORD}); {advice}") from None
    for (key, wanted), value in zip(record.items(), values, strict=True):
        if key in ("train_videos", "val_videos"):
            if wanted < value:
                raise InputError(f"{directory} was made with {key}={value}, more than the {wanted} asked for; {advice}")
        elif wanted != value:
            raise InputError(f"{directory} was made with {key}={value}, not {wanted}; {advice}")


def _list_videos(seed: int, split: Split, count: int) -> list[_Video]:
    """Give each index its class: every eight consecutive videos hold each class once, in random order.

    Counts are balanced to within one, and no even spacing (of a dry run's subset, say) picks one class only.
    """
    videos: list[_Video] = []
    for block in range(math.ceil(count / len(MOTION_CLASSES))):
        order = np.random.default_rng([seed, _SPLITS.index(split), block, 1]).permutation(len(MOTION_CLASSES))
        start = len(videos)
        videos += [_Video(split, start + place, MOTION_CLASSES[label]) for place, label in enumerate(order)]
    return videos[:count]


def _fill(
    directory: Path,
    record: dict[str, Any],
    videos: dict[Split, list[_Video]],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Write the missing videos, then the manifests; return how many videos were missing."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / _RECORD, json.dumps(record, indent=2) + "\n")
    written = write_missing(
        [
            (directory / video.path, functools.partial(_draw, record["seed"], video))
            for split in _SPLITS
            for video in videos[split]
        ],
        FPS,
        workers,
        progress,
    )
    for split in _SPLITS:
        write_text(directory / f"{split}.csv", _csv_text([(video, video.label) for video in videos[split]]))
    reversed_labels = [(video, OPPOSITE[video.label]) for video in videos["val"]]
    write_text(directory / "val_reversed.csv", _csv_text(reversed_labels))
    return written


def _draw(seed: int, video: _Video) -> NDArray[np.uint8]:
    rng = np.random.default_rng([seed, _SPLITS.index(video.split), video.index, 0])
    return render_motion(video.label, rng, num_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH)


def _csv_text(videos: list[tuple[_Video, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows((label, v.youtube_id, v.time_start, v.time_end, v.split) for v, label in videos)
    return text.getvalue()
