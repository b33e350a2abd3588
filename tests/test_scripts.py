"""scripts/: the commands they run on one machine, on several and under SLURM, and the whole way to a report."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dnl_video.cli.main import main
from tests.conftest import REPOSITORY, TinyRun
from tests.test_recipe_starts import SMALL

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")

# Stand-in for a program: logs its arguments and does only what the scripts need.
STAND_IN = f"""#!{sys.executable} -SE
import json, os, signal, sys, time
name, words, here = os.path.basename(sys.argv[0]), sys.argv[1:], os.path.dirname(os.path.abspath(sys.argv[0]))
with open(os.path.join(here, "log"), "a") as file:
    file.write(json.dumps([name, *words]) + "\\n")
pid_file, ready_file = os.path.join(here, "task.pid"), os.path.join(here, "ready")
if name == "srun":
    with open(pid_file, "w") as file:
        file.write(str(os.getpid()))
    while words[0].startswith("--"):
        words.pop(0)
    os.execvp(words[0], words)
if (name, words[:2]) == ("scontrol", ["show", "hostnames"]):
    print("node07", "node08", "node11", "node12", sep="\\n")
if name == "torchrun" and "WAIT_FOR_SIGNAL" in os.environ:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    open(ready_file, "w").close()
    time.sleep(60)
if name == "scancel":  # SLURM signals the tasks of a step, not their children
    os.kill(int(open(pid_file).read()), signal.SIGTERM)
"""


class Machine:
    """A PATH whose programs only log their arguments."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("dnl-video", "torchrun", "srun", "scontrol", "scancel"):
            (self.bin / name).write_text(STAND_IN, encoding="utf-8")
            (self.bin / name).chmod(0o755)
        self.environment = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "TRAIN_CSV": "train list.csv",
            "TRAIN_VIDEOS": "/videos/train",
            "VAL_CSV": "val.csv",
            "VAL_VIDEOS": "/videos/val",
            "RUN": str(folder / "run"),
            "LISTS": str(folder / "lists"),
        }

    def start(self, script: str, *words: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(REPOSITORY / "scripts" / script), *words],
            env=self.environment | variables,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *words: str, **variables: str) -> list[str]:
        """Run a script; return the logged commands as lines."""
        process = self.start(script, *words, **variables)
        printed, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        shown = [shlex.split(line)[1:] for line in printed.splitlines() if line.startswith("$ ")]
        shown = [words[words[0] == "exec" :] for words in shown]
        assert shown == [command for command in self.commands() if command[0] != "scontrol"], "each command is printed"
        return self.lines()

    def commands(self) -> list[list[str]]:
        log = self.bin / "log"
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []

    def lines(self) -> list[str]:
        found = [shlex.join(command) for command in self.commands()]
        (self.bin / "log").unlink(missing_ok=True)
        run, lists = self.environment["RUN"], self.environment["LISTS"]
        return [line.replace(run, "RUN").replace(lists, "LISTS") for line in found]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


TRAIN = (
    "train --config slow_r50_8x8_dnl --output RUN --data.class_list kinetics400 "
    "--data.train_manifest LISTS/train.csv --data.train_root /videos/train --data.val_manifest LISTS/val.csv "
    "--data.val_root /videos/val"
)
EVALUATE = (
    "evaluate --checkpoint RUN --manifest LISTS/val.csv --root /videos/val --output RUN/evaluation/best --allow-failed"
)
PREPARE = [
    "dnl-video prepare --annotations 'train list.csv' --videos /videos/train --classes kinetics400 "
    "--output LISTS/train.csv",
    "dnl-video prepare --annotations val.csv --videos /videos/val --classes kinetics400 "
    "--output LISTS/val.csv --keep-failed",
]
REPORT = "dnl-video report RUN/evaluation/best"


def test_scripts_are_valid_bash_and_executable() -> None:
    for script in sorted((REPOSITORY / "scripts").glob("*.sh")):
        subprocess.run(["bash", "-n", str(script)], check=True)
        assert os.access(script, os.X_OK) or script.name == "environment.sh"


def test_one_gpu(machine: Machine) -> None:
    lines = machine.run("kinetics400.sh", "--", "--optim.lr", "0.05", EVALUATE="--num-clips 3")
    assert lines == [
        *PREPARE,
        f"dnl-video {TRAIN} --optim.lr 0.05 --dry-run",
        f"dnl-video {TRAIN} --optim.lr 0.05 --resume auto",
        f"dnl-video {EVALUATE} --num-clips 3",
        REPORT,
    ]


def test_eight_gpus(machine: Machine) -> None:
    lines = machine.run("kinetics400.sh", "check", "train", "evaluate", GPUS="8")
    torchrun = "torchrun --standalone --nproc_per_node 8 -m dnl_video"
    assert lines == [f"{torchrun} {TRAIN} --dry-run", f"{torchrun} {TRAIN} --resume auto", f"{torchrun} {EVALUATE}"]


def many_nodes(head: str, port: int, step: str) -> str:
    return (
        f"torchrun --nnodes 4 --nproc_per_node 8 --rdzv_id run-{step} --rdzv_backend c10d "
        f"--rdzv_endpoint {head}:{port} -m dnl_video"
    )


def test_each_of_four_machines(machine: Machine) -> None:
    lines = machine.run("kinetics400.sh", "train", "evaluate", GPUS="8", NODES="4", HEAD="node01")
    assert lines == [
        f"{many_nodes('node01', 29500, 'train')} {TRAIN} --resume auto",
        f"{many_nodes('node01', 29501, 'evaluate')} {EVALUATE}",
    ]


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        (("prepare", "tarin"), {}, "error: no step tarin; allowed: prepare, check, train, evaluate, report"),
        (("prepare",), {"NODES": "4", "HEAD": "a"}, "error: prepare runs on one machine; start it there without NODES"),
        (("train",), {"TRAIN_CSV": ""}, "TRAIN_CSV: is the list of training videos"),
        (("train",), {"NODES": "2"}, "HEAD: is the name of the first machine"),
    ],
)
def test_errors_name_the_missing_variable_or_step(
    machine: Machine, words: tuple[str, ...], variables: dict, message: str
) -> None:
    process = machine.start("kinetics400.sh", *words, **variables)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert message in errors
    assert machine.lines() == []


SLURM = {
    "SLURM_JOB_ID": "5003",
    "SLURM_JOB_NODELIST": "node[07-08,11-12]",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_CPUS_PER_TASK": "96",
    "SLURM_SUBMIT_DIR": str(REPOSITORY),
}


def test_slurm(machine: Machine) -> None:
    lines = machine.run("slurm_kinetics400.sh", "--model.context", "snl", **SLURM)
    assert lines == [
        "scontrol show hostnames 'node[07-08,11-12]'",
        "srun --nodes=1 --ntasks=1 env NODES=1 scripts/kinetics400.sh prepare",
        *PREPARE,
        "srun --ntasks-per-node=1 scripts/kinetics400.sh train -- --model.context snl",
        f"{many_nodes('node07', 20006, 'train')} {TRAIN} --model.context snl --resume auto",
        "srun --ntasks-per-node=1 scripts/kinetics400.sh evaluate",
        f"{many_nodes('node07', 20007, 'evaluate')} {EVALUATE}",
        "srun --nodes=1 --ntasks=1 env NODES=1 scripts/kinetics400.sh report",
        REPORT,
    ]


def test_a_job_saves_and_is_requeued_before_its_time_limit(machine: Machine) -> None:
    process = machine.start("slurm_kinetics400.sh", **SLURM, WAIT_FOR_SIGNAL="1")
    for _ in range(600):
        if (machine.bin / "ready").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "job 5003 is requeued" in printed
    assert machine.lines()[-2:] == ["scancel --signal=TERM 5003", "scontrol requeue 5003"], (
        "nothing runs after the requeue"
    )


@pytest.mark.full
def test_from_lists_to_a_report(full_size: bool, machine: Machine, tiny: TinyRun, tmp_path: Path) -> None:
    """At full size the script runs its commands as processes; otherwise they run in this process."""
    videos = tiny.folder / "videos"
    (tmp_path / "classes.txt").write_text(
        "\n".join(sorted(folder.name for folder in (videos / "val").iterdir())), encoding="utf-8"
    )
    small = [*SMALL[: SMALL.index("--data.train_root")], "--model.num_classes", "8"]
    variables = {
        "TRAIN_CSV": str(tiny.train),
        "TRAIN_VIDEOS": str(videos / "train"),
        "VAL_CSV": str(tiny.val),
        "VAL_VIDEOS": str(videos / "val"),
        "CLASSES": str(tmp_path / "classes.txt"),
        "RECIPE": "slow_r50_8x8_dnl",
        "EVALUATE": "--num-clips 2 --num-crops 1 --num-workers 0 --device cpu",
    }
    if full_size:
        (machine.bin / "dnl-video").unlink()
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{machine.environment['PATH']}"
        variables["PYTHONPATH"] = str(REPOSITORY)
        process = machine.start("kinetics400.sh", "--", *small, **variables)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    else:
        machine.start("kinetics400.sh", "--", *small, **variables).communicate(timeout=60)
        for program, *words in machine.commands():
            assert program == "dnl-video"
            assert main(words) == 0
    report = json.loads((tmp_path / "run" / "evaluation" / "best" / "report.json").read_text(encoding="utf-8"))
    assert report["coverage"]["evaluated"] == 8
    assert (tmp_path / "run" / "evaluation" / "best" / "report.html").is_file()
