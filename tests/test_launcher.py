"""Rank, world size and devices from the environment variables of torchrun and SLURM."""

from __future__ import annotations

import re

import pytest

from dnl_video.errors import InputError
from dnl_video.launcher import alone_under_slurm, devices_and_nodes, local_processes, local_rank, rank_and_world_size

# The third process on the second of four nodes with eight processes each.
TORCHRUN = {"RANK": 10, "LOCAL_RANK": 2, "WORLD_SIZE": 32, "LOCAL_WORLD_SIZE": 8, "TORCHELASTIC_RUN_ID": "none"}
BATCH = {"SLURM_JOB_ID": 7, "SLURM_NTASKS": 32, "SLURM_PROCID": 0, "SLURM_LOCALID": 0, "SLURM_NNODES": 4}
SRUN = BATCH | {"SLURM_PROCID": 10, "SLURM_LOCALID": 2, "SLURM_STEP_NUM_TASKS": 32, "SLURM_STEP_NUM_NODES": 4}
# srun starts one task per node, a torchrun.
TORCHRUN_IN_SRUN = SRUN | {"SLURM_PROCID": 1, "SLURM_LOCALID": 0, "SLURM_STEP_NUM_TASKS": 4} | TORCHRUN
# srun --pty bash
SHELL = SRUN | {"SLURM_PROCID": 0, "SLURM_LOCALID": 0, "SLURM_STEP_NUM_TASKS": 1, "SLURM_STEP_NUM_NODES": 1}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*TORCHRUN, *SRUN, "MASTER_ADDR"}:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "rank", "local", "layout", "alone"),
    [
        ({}, (0, 1), 0, ("auto", 1), False),
        (TORCHRUN, (10, 32), 2, (8, 4), False),
        (SRUN, (10, 32), 2, (8, 4), False),
        (TORCHRUN_IN_SRUN, (10, 32), 2, (8, 4), False),
        (BATCH, (0, 1), 0, ("auto", 1), True),
        (SHELL, (0, 1), 0, ("auto", 1), True),
        # A child of Lightning's own launcher.
        ({"LOCAL_RANK": 1, "WORLD_SIZE": 2, "NODE_RANK": 0}, (0, 1), 1, ("auto", 1), False),
    ],
    ids=["no launcher", "torchrun", "srun", "torchrun in srun", "batch script", "interactive step", "Lightning"],
)
def test_launchers(
    environment: dict, rank: tuple, local: int, layout: tuple, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    assert rank_and_world_size() == rank
    assert local_rank() == local
    assert devices_and_nodes("auto", 1) == layout
    assert local_processes() == (1 if layout[0] == "auto" else layout[0])
    assert alone_under_slurm() == alone


def test_several_nodes_need_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_and_nodes(2, 1) == (2, 1)
    message = (
        "trainer.num_nodes is 3, but no launcher started processes on other nodes; start the training with torchrun or "
        "srun, or set trainer.num_nodes=1"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        devices_and_nodes(2, 3)
    # Lightning's variables, set by hand on each node.
    monkeypatch.setenv("MASTER_ADDR", "node01")
    assert devices_and_nodes(2, 3) == (2, 3)


@pytest.mark.parametrize(("environment", "launcher"), [(TORCHRUN, "torchrun"), (SRUN, "srun")])
def test_other_devices_than_the_launcher_started_are_refused(
    environment: dict, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    assert devices_and_nodes(8, 4) == (8, 4)
    message = (
        f"trainer.devices is 1 and trainer.num_nodes 1, but {launcher} started 8 process(es) on 4 node(s); "
        "set trainer.devices=auto"
    )
    with pytest.raises(InputError, match="^" + re.escape(message) + "$"):
        devices_and_nodes(1, 1)
