"""Writes many small generated videos: only the missing ones, several at a time, with reproducible bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnl_video.data.encoding import write_video
from dnl_video.files import write_atomic

# Reproducible bytes: x264's output depends on its number of threads and, at this size, its macroblock tree reads
# uninitialised memory.
_ENCODER = {"preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
_CRF = 15  # low: compression artefacts must not tell the class


def write_missing(
    videos: Sequence[tuple[Path, Callable[[], NDArray[np.uint8]]]],
    fps: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the videos that do not exist yet, each atomically.

    Args:
        videos: Path, and the function that draws the frames, uint8 [T, H, W, 3].
        fps: Frames per second.
        workers: Videos made at the same time.
        progress: Called with the numbers of videos done and missing: once at the start and after each video.

    Returns:
        The number of missing videos.
    """
    missing = [(path, draw) for path, draw in videos if not path.exists()]
    if missing and progress is not None:
        progress(0, len(missing))
    # Threads are enough: numpy and the encoder release the GIL.
    executor = ThreadPoolExecutor(workers)
    try:
        jobs = [
            executor.submit(lambda path, draw: write_video(path, draw(), fps, crf=_CRF, options=_ENCODER), path, draw)
            for path, draw in missing
        ]
        for done, job in enumerate(as_completed(jobs), start=1):
            job.result()
            if progress is not None:
                progress(done, len(missing))
    finally:
        # On Ctrl-C or an error, videos in progress are finished and no new one is started.
        executor.shutdown(wait=True, cancel_futures=True)
    return len(missing)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, unless it holds this text already."""
    if not (path.exists() and path.read_text(encoding="utf-8") == text):
        write_atomic(path, text)
