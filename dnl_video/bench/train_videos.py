"""Endless training batches from videos, through the loader that training has."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnl_video.bench.data_videos import KINDS, generate
from dnl_video.config import AugmentConfig, DataConfig, ViewsConfig
from dnl_video.cores import default_workers
from dnl_video.data.loaders import VideoDataModule
from dnl_video.spec import Preprocessing

# Under so many names does a generated video appear, for each clip of a batch: an epoch is not over in a moment.
_NAMES = 64


@dataclass(frozen=True)
class VideoBatches:
    """A training loader's batches.

    Attributes:
        batches: Endless.
        stock: Batches that the loader's processes keep ready.
        workers: Its processes.
        num_classes: Classes of the videos.
    """

    batches: Iterator[dict[str, Any]]
    stock: int
    workers: int
    num_classes: int


def video_batches(
    manifest: str, *, batch: int, frames: int, size: int, num_workers: int | None, root: str | None = None
) -> VideoBatches:
    """Return batches of clips, every 8th frame, with the recipes' crop, scaled to ``size``, and flip.

    Raises:
        InputError: The list cannot be used.
    """
    datamodule = VideoDataModule(
        DataConfig(manifest, manifest, root, root, batch_size=batch, num_workers=num_workers),
        Preprocessing(num_frames=frames),
        AugmentConfig(short_side=(size * 8 // 7, size * 10 // 7), crop_size=size),
        ViewsConfig(),
        seed=0,
    )
    loader = datamodule.train_dataloader()
    workers = default_workers(num_workers)
    labels = [record.label for record in datamodule.train_records if record.label is not None]

    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield from loader

    return VideoBatches(endless(), workers * (loader.prefetch_factor or 0), workers, max(labels) + 1)


def generated_list(folder: Path, batch: int, advance: Callable[[str], None]) -> str:
    """Write a list of two generated videos (340 x 256, a key frame every 12) under many names into ``folder``."""
    videos = generate(
        KINDS["gop12"], Path(tempfile.gettempdir()) / "dnl-video-bench", count=2, seconds=10, advance=advance
    )
    lines = []
    for number in range(batch * _NAMES):
        name = folder / f"{number:05d}.mp4"
        name.symlink_to(videos[number % len(videos)])
        lines.append(f"{name} {number % 2}\n")
    path = folder / "list.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def loader_rate(videos: VideoBatches, batch: int) -> float:
    """Return the clips a second that the loader gives when nothing else is done."""
    for _ in range(videos.stock):
        next(videos.batches)
    count, start = max(videos.stock, 3), time.perf_counter()
    for _ in range(count):
        next(videos.batches)
    return count * batch / (time.perf_counter() - start)
