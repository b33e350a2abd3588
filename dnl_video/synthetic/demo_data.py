"""Writes a small data set of generated motion in the official Kinetics layout.

    DIR/demo-data.json                                    the settings
    DIR/train.csv, DIR/val.csv                            label,youtube_id,time_start,time_end,split
    DIR/train/moving left/demoT000003_000021_000023.mp4   {youtube_id}_{time_start:06d}_{time_end:06d}.mp4
    DIR/val/...
    DIR/val_reversed.csv                                  val.csv with the classes that reversed frames show

The content of a video is a function of (seed, split, index) only, not of the numbers of workers and videos.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dnl_video.cores import default_workers
from dnl_video.errors import InputError
from dnl_video.synthetic.motion import MOTION_CLASSES, OPPOSITE, render_motion
from dnl_video.synthetic.video_files import claim_folder, write_missing, write_text

WIDTH = 80
HEIGHT = 64
NUM_FRAMES = 32
FPS = 16

Split = Literal["train", "val"]
_SPLITS: tuple[Split, ...] = ("train", "val")
_RECORD = "demo-data.json"
_MAX_VIDEOS = 1_000_000  # ids have six digits


@dataclass(frozen=True)
class DemoData:
    """Result of `write_demo_data`.

    Args:
        directory: The folder.
        train_videos: Number of training videos.
        val_videos: Number of validation videos.
        written: Number of videos made by this call; 0 if the folder was complete.
    """

    directory: Path
    train_videos: int
    val_videos: int
    written: int

    @property
    def train_csv(self) -> Path:
        """Manifest of the training videos."""
        return self.directory / "train.csv"

    @property
    def val_csv(self) -> Path:
        """Manifest of the validation videos."""
        return self.directory / "val.csv"


@dataclass(frozen=True)
class _Video:
    split: Split
    index: int
    label: str

    @property
    def youtube_id(self) -> str:
        return f"demo{self.split[0].upper()}{self.index:06d}"  # 11 characters, like YouTube's ids

    @property
    def time_start(self) -> int:
        return 7 * self.index % 300  # Kinetics clips are cut from longer videos

    @property
    def time_end(self) -> int:
        return self.time_start + math.ceil(NUM_FRAMES / FPS)

    @property
    def path(self) -> Path:
        """Path relative to the data set's folder."""
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

    Class sizes differ by at most one video. The manifests are written last, so a folder that has them is complete.
    A second call makes only missing videos; the same seed with more videos extends the folder.

    Args:
        directory: Folder to fill: new, empty, or made by this function with the same seed.
        seed: Seed of all videos, at least 0.
        train_videos: Number of training videos, at least one per class.
        val_videos: Number of validation videos, at least 1.
        workers: Videos made at the same time; None is one per available core, at most 8.
        progress: See `write_missing`.

    Raises:
        InputError: An argument is out of range, the folder holds other files, or it cannot be written.
    """
    directory = Path(directory)
    _check_arguments(seed, train_videos, val_videos, workers)
    train, val = _list_videos(seed, "train", train_videos), _list_videos(seed, "val", val_videos)
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
    claim_folder(directory / _RECORD, record, "demo data", may_grow=("train_videos", "val_videos"))
    files = [(directory / video.path, functools.partial(_draw, seed, video)) for video in (*train, *val)]
    written = write_missing(files, FPS, default_workers(workers), progress)
    write_text(directory / "train.csv", _csv_text(train))
    write_text(directory / "val.csv", _csv_text(val))
    write_text(directory / "val_reversed.csv", _csv_text(val, reverse=True))
    return DemoData(directory, train_videos, val_videos, written)


def _check_arguments(seed: int, train_videos: int, val_videos: int, workers: int | None) -> None:
    if seed < 0:
        raise InputError(f"seed is {seed}; give 0 or more")
    classes = len(MOTION_CLASSES)
    if not classes <= train_videos <= _MAX_VIDEOS:
        raise InputError(f"train_videos is {train_videos}; give {classes} (one per class) to {_MAX_VIDEOS}")
    if not 1 <= val_videos <= _MAX_VIDEOS:
        raise InputError(f"val_videos is {val_videos}; give 1 to {_MAX_VIDEOS}")
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; give at least 1")


def _list_videos(seed: int, split: Split, count: int) -> list[_Video]:
    """Draw the class of each index: each block of eight videos holds each class once, in random order.

    With a fixed order, an evenly spaced subset (`limit_videos`) could hold one class only.
    """
    videos: list[_Video] = []
    for block in range(math.ceil(count / len(MOTION_CLASSES))):
        order = np.random.default_rng([seed, _SPLITS.index(split), block, 1]).permutation(len(MOTION_CLASSES))
        start = len(videos)
        videos += [_Video(split, start + place, MOTION_CLASSES[label]) for place, label in enumerate(order)]
    return videos[:count]


def _draw(seed: int, video: _Video) -> NDArray[np.uint8]:
    rng = np.random.default_rng([seed, _SPLITS.index(video.split), video.index, 0])
    return render_motion(video.label, rng, num_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH)


def _csv_text(videos: list[_Video], reverse: bool = False) -> str:
    labels = [OPPOSITE[video.label] if reverse else video.label for video in videos]
    rows = zip(labels, videos, strict=True)
    lines = [f"{label},{v.youtube_id},{v.time_start},{v.time_end},{v.split}\n" for label, v in rows]
    return "".join(["label,youtube_id,time_start,time_end,split\n", *lines])
