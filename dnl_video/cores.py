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


def network_threads(workers: int, processes: int = 1) -> int:
    """Return the threads for a network on the CPU beside its loaders.

    Threads that wait for a core a loader holds slow a step down many times. OMP_NUM_THREADS, where set, decides.

    Args:
        workers: Loader processes of one training process.
        processes: Training processes on this machine.
    """
    if chosen := os.environ.get("OMP_NUM_THREADS"):
        return int(chosen.split(",")[0])
    cores = available_cores() // processes
    # Loaders rarely keep their cores busy, so the network never gets less than half.
    return max(cores - workers, cores // 2, 1)
