from __future__ import annotations

import re

import pytest

from dnl_video.errors import InputError
from dnl_video.launcher import alone_under_slurm, devices_and_nodes, local_rank, rank_and_world_size

# The third process of the second of four machines with eight each, as each launcher says it.
TORCHRUN = {"RANK": 10, "LOCAL_RANK": 2, "WORLD_SIZE": 32, "LOCAL_WORLD_SIZE": 8, "TORCHELASTIC_RUN_ID": "none"}
BATCH = {"SLURM_JOB_ID": 7, "SLURM_NTASKS": 32, "SLURM_PROCID": 0, "SLURM_LOCALID": 0, "SLURM_NNODES": 4}
SRUN = BATCH | {"SLURM_PROCID": 10, "SLURM_LOCALID": 2, "SLURM_STEP_NUM_TASKS": 32, "SLURM_STEP_NUM_NODES": 4}
# One task a machine, which is a torchrun.
TORCHRUN_IN_SRUN = SRUN | {"SLURM_PROCID": 1, "SLURM_LOCALID": 0, "SLURM_STEP_NUM_TASKS": 4} | TORCHRUN
# srun --pty bash
SHELL = SRUN | {"SLURM_PROCID": 0, "SLURM_LOCALID": 0, "SLURM_STEP_NUM_TASKS": 1, "SLURM_STEP_NUM_NODES": 1}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*TORCHRUN, *SRUN}:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "rank", "local", "layout"),
    [
        ({}, (0, 1), 0, ("auto", 1)),
        (TORCHRUN, (10, 32), 2, (8, 4)),
        (SRUN, (10, 32), 2, (8, 4)),
        (TORCHRUN_IN_SRUN, (10, 32), 2, (8, 4)),
        (BATCH, (0, 1), 0, ("auto", 1)),
        (SHELL, (0, 1), 0, ("auto", 1)),
        # A child of Lightning's own launcher.
        ({"LOCAL_RANK": 1, "WORLD_SIZE": 2, "NODE_RANK": 0}, (0, 1), 1, ("auto", 1)),
    ],
    ids=["alone", "torchrun", "srun", "torchrun in srun", "batch script", "interactive step", "Lightning"],
)
def test_each_launcher_is_understood(
    environment: dict, rank: tuple, local: int, layout: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    assert rank_and_world_size() == rank
    assert local_rank() == local
    assert devices_and_nodes("auto", 1) == layout


@pytest.mark.parametrize(
    ("environment", "alone"),
    [({}, False), (TORCHRUN, False), (SRUN, False), (TORCHRUN_IN_SRUN, False), (BATCH, True), (SHELL, True)],
    ids=["no SLURM", "torchrun", "srun", "torchrun in srun", "batch script", "interactive step"],
)
def test_a_batch_script_is_no_task_of_srun(environment: dict, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    assert alone_under_slurm() == alone


def test_alone_the_recipe_says_how_many() -> None:
    assert devices_and_nodes(2, 3) == (2, 3)


@pytest.mark.parametrize(
    ("environment", "launcher"), [(TORCHRUN, "torchrun"), (SRUN, "srun")], ids=["torchrun", "srun"]
)
def test_a_launcher_and_the_recipe_must_agree(
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
