"""The processes of a run: rank and world size from torchrun or SLURM, and the end of child processes.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; srun sets the SLURM_ variables of `man srun`. torchrun
has priority, because it may run inside an srun step. A batch script is not a step: it has SLURM_PROCID and
SLURM_NTASKS, but not SLURM_STEP_NUM_TASKS, and its commands run once.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable
from typing import Any, Literal

from dnl_video.errors import InputError


def rank_and_world_size() -> tuple[int, int]:
    """Return (rank, world size); (0, 1) for a single process."""
    if "WORLD_SIZE" in os.environ and "RANK" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if _tasks() > 1:
        return int(os.environ["SLURM_PROCID"]), _tasks()
    return 0, 1


def local_rank() -> int:
    """Return the rank of this process on its machine, from torchrun, Lightning or srun; 0 for a single process."""
    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"])
    return int(os.environ["SLURM_LOCALID"]) if _tasks() > 1 else 0


def local_processes() -> int:
    """Return how many processes torchrun or srun started on this machine; 1 without a launcher."""
    here, _ = devices_and_nodes("auto", 1)
    return 1 if here == "auto" else here


def devices_and_nodes(devices: int | Literal["auto"], num_nodes: int) -> tuple[int | Literal["auto"], int]:
    """Return the devices per node and the number of nodes, as the launcher started them.

    Args:
        devices: Devices per node; auto: use the launcher's values.
        num_nodes: Number of nodes; used without a launcher.

    Raises:
        InputError: The launcher started another number of processes or nodes.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        launcher, here = "torchrun", int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // here
    elif _tasks() > 1:
        launcher, nodes = "srun", int(os.environ["SLURM_STEP_NUM_NODES"])
        here = _tasks() // nodes
    elif num_nodes > 1 and "MASTER_ADDR" not in os.environ:
        # Lightning would wait for the other nodes without a word.
        raise InputError(
            f"trainer.num_nodes is {num_nodes}, but no launcher started processes on other nodes; start the training "
            "with torchrun or srun, or set trainer.num_nodes=1"
        )
    else:
        return devices, num_nodes
    if devices != "auto" and (devices, num_nodes) != (here, nodes):
        # Otherwise each process would train alone, all in the same folder.
        raise InputError(
            f"trainer.devices is {devices} and trainer.num_nodes {num_nodes}, but {launcher} started "
            f"{here} process(es) on {nodes} node(s); set trainer.devices=auto"
        )
    return here, nodes


def alone_under_slurm() -> bool:
    """Return whether this is a single process in a SLURM job: a batch script, or a step with one task."""
    return "SLURM_NTASKS" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ and _tasks() == 1


def _tasks() -> int:
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))


def wait_or_kill(processes: Iterable[subprocess.Popen[Any]], timeout_s: float) -> None:
    """Wait for processes to exit; kill those that still run after ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
