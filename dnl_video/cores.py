"""Default numbers of worker processes and threads, and the name and instructions of the processor."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_MAX_DEFAULT_WORKERS = 8


def available_cores() -> int:
    """Return the number of cores this process may use; on Linux, taskset and container limits count."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Return the name of the processor, for records of measurements."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Return the instruction names of an x86 processor on Linux; an empty set elsewhere."""
    return set(_cpu_info("flags").split())


def _cpu_info(field: str) -> str:
    """Return a field of the first core in Linux's /proc/cpuinfo, or an empty string."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else ():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def default_workers(workers: int | None) -> int:
    """Return ``workers``; if it is None, the number of available cores, at most 8."""
    return workers if workers is not None else min(available_cores(), _MAX_DEFAULT_WORKERS)


def network_threads(workers: int, processes: int = 1) -> int:
    """Return the number of threads for a network on the CPU next to its data loaders.

    A thread that waits for a core used by a loader makes a step many times slower. OMP_NUM_THREADS has priority.

    Args:
        workers: Loader processes of one training process.
        processes: Training processes on this machine.
    """
    if chosen := os.environ.get("OMP_NUM_THREADS"):
        return int(chosen.split(",")[0])
    cores = available_cores() // processes
    # Loaders rarely use their cores fully, so the network gets at least half of the cores.
    return max(cores - workers, cores // 2, 1)
