"""Loader processes and batches ahead that fit in /dev/shm, the memory in which loader processes hand over batches.

Containers have little of it (Docker: 64 MB). Both of PyTorch's sharing strategies use it.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from dnl_video.launcher import local_rank

_FOLDER = Path("/dev/shm")
_USABLE = 0.9  # of the free space; the rest is for semaphores and small tensors
ADVICE = "give a container more (docker run --shm-size 8g), or set --num-workers 0 (train: --data.num_workers 0)"


def fitting_workers(what: str, workers: int, prefetch: int, batch_bytes: int, loaders: int) -> tuple[int, int]:
    """Return how many loader processes to start, and how many batches each fetches ahead.

    Fewer batches come first, then fewer processes, then none. A change is printed.

    Args:
        what: What the processes load, for the message.
        workers: Loader processes wanted.
        prefetch: Batches ahead per loader process wanted.
        batch_bytes: Size of a batch.
        loaders: Loaders on this machine that share the memory.
    """
    free = _free_bytes()
    # The caller still holds one batch while it waits for the next.
    fit = workers * prefetch if free is None else max(int(_USABLE * free / loaders) // batch_bytes - 1, 0)
    if workers * prefetch <= fit:
        return workers, prefetch
    found = (workers, fit // workers) if fit >= workers else (fit, 1)
    if local_rank() == 0:
        needed = (workers * prefetch + 1) * batch_bytes * loaders / _USABLE
        instead = f"starting {found[0]}, {found[1]} batch(es) ahead each" if found[0] else "starting none"
        logging.getLogger(__name__).warning(
            f"warning: /dev/shm has {(free or 0) / 1e6:.0f} MB free, and {workers} loader processes of {what} "
            f"need {needed / 1e6:.0f} MB: {instead}; {ADVICE}"
        )
    return found


def _free_bytes() -> int | None:
    """Return the free bytes, 0 if nothing can be written; None on a system without /dev/shm."""
    if sys.platform != "linux":
        return None
    if not os.access(_FOLDER, os.W_OK):
        return 0
    space = os.statvfs(_FOLDER)
    return space.f_bavail * space.f_frsize
