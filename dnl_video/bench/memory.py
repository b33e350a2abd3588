"""Peak memory of one pass: the CUDA allocator's on a GPU, that of a process of its own on a CPU (Linux).

`python -m dnl_video.bench.memory CASE VARIANT` is what such a process runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from dnl_video.bench.block import BlockCase, Variant

_STATUS = Path("/proc/self/status")


def peak_bytes(case: BlockCase, variant: Variant, device: torch.device) -> int | None:
    """Return the most memory that one pass needs beyond weights, input and the output's gradient; None if unknown.

    A CPU pass runs in a process of its own, whose peak is its own.

    Raises:
        RuntimeError: The process failed, for want of memory for example.
    """
    if device.type == "cuda":
        return _on_cuda(case, variant, device)
    return of_own_process("dnl_video.bench.memory", json.dumps(asdict(case)), variant)


def of_own_process(module: str, *words: str) -> int | None:
    """Return the number that ``python -m module words`` prints; None where a process cannot tell its memory.

    Raises:
        RuntimeError: The process failed.
    """
    if not _STATUS.is_file():
        return None
    # Otherwise the C library keeps freed blocks, more or fewer from run to run.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return int(done.stdout)


def grown_by(run: Callable[[], object]) -> int:
    """Return the bytes by which this process's memory grows at most while ``run`` runs."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _on_cuda(case: BlockCase, variant: Variant, device: torch.device) -> int:
    one_pass = case.one_pass(variant, device)
    one_pass()  # cuBLAS's workspace stays; it is no block's
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    one_pass()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(device) - before


def _in_this_process(case: BlockCase, variant: Variant) -> int:
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    # Libraries load their code on first use, which is not the block's memory.
    BlockCase(**(asdict(case) | {"frames": 1, "height": 4})).one_pass(variant, cpu)()
    return grown_by(case.one_pass(variant, cpu))


def _status(field: str) -> int:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")


if __name__ == "__main__":
    print(_in_this_process(BlockCase(**json.loads(sys.argv[1])), sys.argv[2]))  # type: ignore[arg-type]
