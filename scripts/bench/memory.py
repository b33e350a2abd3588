"""Peak memory: the CUDA allocator's on a GPU, that of a child process on a CPU (Linux)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def of_child_process(script: str, *words: str) -> int | None:
    """Return the number that ``python script words`` prints, or None on systems where memory cannot be measured.

    Raises:
        RuntimeError: The process failed, for example because memory ran out.
    """
    if not _STATUS.is_file():
        return None
    # Without this the C library keeps freed blocks, a different number in each run.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(words)}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return int(done.stdout)


def grown_by(run: Callable[[], object]) -> int:
    """Return the peak growth of this process's memory in bytes while ``run`` runs."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def on_cuda(run: Callable[[], object], device: torch.device) -> int:
    """Return the peak of allocated CUDA memory in bytes while ``run`` runs."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(device)


def _status(field: str) -> int:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")
