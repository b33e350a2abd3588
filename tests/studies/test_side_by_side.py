"""Runs side by side: as many as asked for, results as they come, and nothing left behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from dnl_video.errors import InputError
from dnl_video.studies import run_processes as processes
from dnl_video.studies.run_processes import Job, Steps, run_side_by_side

# Says which threads it was given, notes its pid and the time; then waits, or ends with a status.
SCRIPT = """
import os, sys, time
name, wait, status, folder = sys.argv[1:]
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
    """Run the script in place of the package."""
    monkeypatch.setattr(processes, "_PROGRAM", [sys.executable, "-S", "-c", SCRIPT])
    monkeypatch.setattr(processes, "available_cores", lambda: 6)
    monkeypatch.setattr(processes, "_POLL_S", 0.01)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def job(folder: Path, name: str, wait: float = 0.0, status: int = 0, commands: int = 1) -> Job:
    def steps() -> Steps:
        for index in range(commands):
            yield [f"{name}{index}", str(wait), str(status), str(folder)]
        return {"name": name}

    return Job(name, steps(), folder / "logs" / f"{name}.txt")


def span(folder: Path, name: str) -> tuple[float, float]:
    return float((folder / f"{name}.begin").read_text().split()[0]), float((folder / f"{name}.end").read_text())


def test_at_most_so_many_at_a_time_and_each_job_in_order(tmp_path: Path) -> None:
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


def test_a_job_without_commands_is_done(tmp_path: Path) -> None:
    assert [result for _, result in run_side_by_side([job(tmp_path, "a", commands=0)], 1)] == [{"name": "a"}]


def test_a_failed_command_ends_the_others_and_names_its_log(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "bad", wait=0.4, status=3), job(tmp_path, "long", wait=60)]
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        list(run_side_by_side(jobs, 2))
    assert str(caught.value) == (
        f"run bad ended with status 3: the disk is full (all it said: {tmp_path}/logs/bad.txt); mend that and give "
        "the same command again: finished runs are kept"
    )
    assert time.monotonic() - began < 30
    pid = int((tmp_path / "long0.begin").read_text().split()[1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not (tmp_path / "long0.end").exists()


def test_a_caller_that_stops_ends_the_processes(tmp_path: Path) -> None:
    running = run_side_by_side([job(tmp_path, "quick"), job(tmp_path, "long", wait=60)], 2)
    assert next(running)[0].name == "quick"
    while not (tmp_path / "long0.begin").exists():
        time.sleep(0.01)
    running.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "long0.end").exists()
