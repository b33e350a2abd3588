"""Which of the processes that a launcher started this one is. Standard library only.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, srun the SLURM_ names of `man srun`; torchrun's come
first, since it may run inside a step of srun. A batch script is no step: it has SLURM_PROCID and SLURM_NTASKS, too, but
not SLURM_STEP_NUM_TASKS, and what it runs runs once.
"""

from __future__ import annotations

import os
from typing import Literal


def rank_and_world_size() -> tuple[int, int]:
    """Return (rank, number of processes); (0, 1) alone."""
    if "WORLD_SIZE" in os.environ and "RANK" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if _tasks() > 1:
        return int(os.environ["SLURM_PROCID"]), _tasks()
    return 0, 1


def local_rank() -> int:
    """Return this process's number on its machine, from torchrun, Lightning or srun; 0 alone."""
    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"])
    return int(os.environ["SLURM_LOCALID"]) if _tasks() > 1 else 0


def devices_and_nodes(devices: int | Literal["auto"], num_nodes: int) -> tuple[int | Literal["auto"], int]:
    """Return the devices a node and the nodes to train on: those a launcher started processes for, where it is open.

    Args:
        devices: Devices a node; with a number both stay as they are.
        num_nodes: Nodes, where no launcher says.
    """
    if devices != "auto":
        return devices, num_nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    if _tasks() > 1:
        nodes = int(os.environ["SLURM_STEP_NUM_NODES"])
        return _tasks() // nodes, nodes
    return devices, num_nodes


def _tasks() -> int:
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
