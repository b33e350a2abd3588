"""Many small generated videos to disk: only what is missing, several at a time, with equal bytes each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dnl_video.data.encoding import write_video

# Equal bytes each time: x264's output depends on how many threads it has, and at this size its macroblock tree on
# memory it never set.
_ENCODER: Final = {"preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
_CRF: Final = 15  # low: artefacts of compression must not hint at the class


def write_missing(
    videos: Sequence[tuple[Path, Callable[[], NDArray[np.uint8]]]],
    fps: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the videos that are not there; each appears whole or not at all.

    Args:
        videos: File and what draws its frames, uint8 [T, H, W, 3].
        fps: Frames per second.
        workers: Videos made at the same time.
        progress: Called after each video with how many are done, and of how many; first with 0 done.

    Returns:
        How many were missing.
    """
    missing = [(path, draw) for path, draw in videos if not path.exists()]
    if missing and progress is not None:
        progress(0, len(missing))

    def write(path: Path, draw: Callable[[], NDArray[np.uint8]]) -> None:
        write_video(path, draw(), fps, crf=_CRF, options=_ENCODER)

    # Threads do: numpy and the encoder release the interpreter, and nothing of the caller's process is copied.
    executor = ThreadPoolExecutor(workers)
    try:
        waiting = [executor.submit(write, path, draw) for path, draw in missing]
        for done, future in enumerate(as_completed(waiting), start=1):
            future.result()
            if progress is not None:
                progress(done, len(missing))
    finally:
        # Ctrl-C or an error: the few videos under way end, the rest is not begun.
        executor.shutdown(wait=True, cancel_futures=True)
    return len(missing)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; leave it alone when it holds this text already."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
