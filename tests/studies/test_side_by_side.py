"""Jobs at the same time: their number, order, results, failures, and no process left running."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from dnl_video.errors import InputError
from dnl_video.files import locked
from dnl_video.studies import run_processes
from dnl_video.studies.run_processes import _PROGRAM, Job, Steps, run_side_by_side

# Prints its number of threads, writes its pid and the time, waits, and ends with a status.
SCRIPT = """
import os, sys, time
_, name, wait, status, folder = sys.argv[1:]
print("threads", os.environ["OMP_NUM_THREADS"])
open(f"{folder}/{name}.begin", "w").write(f"{time.monotonic()} {os.getpid()}")
time.sleep(float(wait))
open(f"{folder}/{name}.end", "w").write(str(time.monotonic()))
if status != "0":
    print("the disk is full")
sys.exit(int(status))
"""


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the script instead of `dnl-video`."""
    monkeypatch.setattr(run_processes, "_PROGRAM", [sys.executable, "-S", "-c", SCRIPT])
    monkeypatch.setattr(run_processes, "available_cores", lambda: 6)
    monkeypatch.setattr(run_processes, "_POLL_S", 0.01)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def job(folder: Path, name: str, wait: float = 0.0, status: int = 0, commands: int = 1) -> Job:
    def steps() -> Steps:
        for index in range(commands):
            yield [f"{name}{index}", str(wait), str(status), str(folder)]
        return {"name": name}

    return Job(name, steps(), folder / "logs" / f"{name}.txt", folder / f"{name}.lock")


def span(folder: Path, name: str) -> tuple[float, float]:
    return float((folder / f"{name}.begin").read_text().split()[0]), float((folder / f"{name}.end").read_text())


def test_jobs_at_the_same_time_and_commands_in_order(tmp_path: Path) -> None:
    jobs = [job(tmp_path, name, wait=0.2, commands=2) for name in "abc"]
    ended = [(done.name, result) for done, result in run_side_by_side(jobs, 2)]
    assert sorted(ended) == [(name, {"name": name}) for name in "abc"]
    spans = {f"{name}{i}": span(tmp_path, f"{name}{i}") for name in "abc" for i in range(2)}
    for name in "abc":
        assert spans[f"{name}0"][1] <= spans[f"{name}1"][0]
    moments = sorted([(begin, 1) for begin, _ in spans.values()] + [(end, -1) for _, end in spans.values()])
    running = [sum(step for _, step in moments[: i + 1]) for i in range(len(moments))]
    assert max(running) == 2
    assert (tmp_path / "logs" / "a.txt").read_text() == "threads 3\n" * 2


def test_job_without_commands(tmp_path: Path) -> None:
    assert [result for _, result in run_side_by_side([job(tmp_path, "a", commands=0)], 1)] == [{"name": "a"}]


def test_failed_command_terminates_the_others(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "bad", wait=0.4, status=3), job(tmp_path, "long", wait=60)]
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        list(run_side_by_side(jobs, 2))
    assert str(caught.value) == (
        f"run bad ended with status 3: the disk is full (its output: {tmp_path}/logs/bad.txt); fix the cause and "
        "give the same command again: finished runs are kept"
    )
    assert time.monotonic() - began < 30
    pid = int((tmp_path / "long0.begin").read_text().split()[1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not (tmp_path / "long0.end").exists()


def test_caller_that_stops_terminates_the_processes(tmp_path: Path) -> None:
    running = run_side_by_side([job(tmp_path, "quick"), job(tmp_path, "long", wait=60)], 2)
    assert next(running)[0].name == "quick"
    while not (tmp_path / "long0.begin").exists():
        time.sleep(0.01)
    running.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "long0.end").exists()


def test_command_holds_the_lock_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_processes, "_PROGRAM", _PROGRAM)
    run = job(tmp_path, "run")
    run.log.parent.mkdir()
    with locked(run.lock):
        process = run_processes._start(run, ["--version"], at_once=1)
        time.sleep(1)
        assert process.poll() is None, "it waits for the lock"
    assert process.wait(60) == 0
    assert run.log.read_text().startswith("dnl-video ")
