"""Writes many small generated videos: only the missing ones, several at a time, with reproducible bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.data.encoding import write_video
from dnl_video.errors import InputError
from dnl_video.files import list_folder, make_folder, write_atomic

_ENCODER = {"preset": "veryfast", "threads": "1"}  # one thread: the same bytes on machines with other numbers of cores
_CRF = 15  # low: compression artefacts must not reveal the class


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


def claim_folder(path: Path, settings: Mapping[str, Any], content: str, may_grow: Sequence[str] = ()) -> None:
    """Write the settings of a data set to a new folder, or check those of an existing one.

    Args:
        path: The file of the settings. Its folder is new, empty, or was made with the same settings.
        settings: The settings.
        content: Name of the data set in messages.
        may_grow: Settings that may be larger than those of the folder.

    Raises:
        InputError: The folder holds other files, has other settings, or cannot be made.
    """
    folder, advice = path.parent, "choose another folder, or remove this one"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder")
    if list_folder(folder):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            values = [found[key] for key in settings]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{folder} is not empty and holds no {content} ({path.name}); {advice}") from None
        for (key, wanted), value in zip(settings.items(), values, strict=True):
            if wanted != value and not (key in may_grow and wanted > value):
                raise InputError(f"{folder} was made with {key}={value}, not {wanted}; {advice}")
    make_folder(folder)
    write_text(path, json.dumps(settings, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, unless it holds this text already."""
    if not (path.exists() and path.read_text(encoding="utf-8") == text):
        write_atomic(path, text)
