"""Which of the processes that a launcher started this one is.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, srun the SLURM_ names of `man srun`; torchrun's come
first, since it may run inside a step of srun. A batch script is no step: it has SLURM_PROCID and SLURM_NTASKS, too, but
not SLURM_STEP_NUM_TASKS, and what it runs runs once.
"""

from __future__ import annotations

import os
from typing import Literal

from dnl_video.errors import InputError


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
    """Return the devices a node and the nodes to train on: those that a launcher started processes for.

    Args:
        devices: Devices a node; auto leaves both to the launcher.
        num_nodes: Nodes, where no launcher says.

    Raises:
        InputError: The launcher started other processes than ``devices`` and ``num_nodes`` ask for.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        launcher, here = "torchrun", int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // here
    elif _tasks() > 1:
        launcher, nodes = "srun", int(os.environ["SLURM_STEP_NUM_NODES"])
        here = _tasks() // nodes
    else:
        return devices, num_nodes
    if devices != "auto" and (devices, num_nodes) != (here, nodes):
        # Each process would train alone, all of them into one folder.
        raise InputError(
            f"trainer.devices is {devices} and trainer.num_nodes {num_nodes}, but {launcher} started "
            f"{here} process(es) on {nodes} node(s); set trainer.devices=auto"
        )
    return here, nodes


def alone_under_slurm() -> bool:
    """Tell whether this is the one process of its kind in a SLURM job: of a batch script, or of a step of one task."""
    return "SLURM_NTASKS" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ and _tasks() == 1


def _tasks() -> int:
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
