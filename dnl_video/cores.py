"""How many processes to start where nobody said."""

from __future__ import annotations

import os

_MAX_DEFAULT_WORKERS = 8


def available_cores() -> int:
    """Return the cores this process may use; on Linux that respects taskset and container limits."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(workers: int | None) -> int:
    """Return ``workers``, or where it is None the cores this process may use, 8 at most."""
    return workers if workers is not None else min(available_cores(), _MAX_DEFAULT_WORKERS)
