"""Jobs that crash, hang, exit or raise."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dnl_video.data.isolation import Outcome, run_isolated
from tests.conftest import REPOSITORY
from tests.data.isolated_jobs import work


def test_every_job_has_one_outcome(tmp_path):
    once = f"crash-once {tmp_path / 'once'}"
    jobs = ["a", "crash", "b", "hang", "c", "exit", "raise", once, *"defgh"]
    outcomes = sorted(
        run_isolated(work, [(job,) for job in jobs], workers=2, deadline_s=1.5), key=lambda outcome: outcome.job
    )
    errors = {
        1: "the decoder crashed (SIGSEGV)",
        3: "no answer within 1.5 s: decoding hangs, or the file is long",
        5: "the decoder ended the process (exit status 3)",
        6: "ValueError: two lines",
    }
    assert outcomes == [Outcome(i, None if i in errors else job.upper(), errors.get(i)) for i, job in enumerate(jobs)]


def test_processes_are_silent_and_ignore_ctrl_c(capfd):
    outcomes = list(run_isolated(work, [("noise",), ("interrupt",)], workers=1, deadline_s=100))
    assert outcomes == [Outcome(0, "NOISE", None), Outcome(1, "INTERRUPT", None)]
    assert capfd.readouterr() == ("", "")


def test_no_jobs_start_no_process():
    assert list(run_isolated(work, [], workers=4, deadline_s=1)) == []


def test_a_process_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: b"/bin/false")
    with pytest.raises(RuntimeError, match=r"a worker process .*exit status 1.* before its first file"):
        list(run_isolated(work, [("a",)], workers=1, deadline_s=1))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def ends_soon(pid: int) -> bool:
    return any(not is_alive(pid) or time.sleep(0.05) for _ in range(400))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc whether a process lives")
def test_a_killed_caller_leaves_no_process_behind(tmp_path):
    file = tmp_path / "pid"
    program = (
        "from tests.data.isolated_jobs import work\n"
        "from dnl_video.data.isolation import run_isolated\n"
        "if __name__ == '__main__':\n"
        f"    list(run_isolated(work, [('hang {file}',)], workers=1, deadline_s=1000))\n"
    )
    (tmp_path / "main.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, str(tmp_path / "main.py")], env=environment) as caller:
        while not (file.exists() and file.read_text()):
            assert caller.poll() is None
            time.sleep(0.02)
        caller.kill()
    assert ends_soon(int(file.read_text()))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc whether a process lives")
def test_a_caller_that_stops_early_leaves_no_process_behind(tmp_path):
    outcomes = run_isolated(work, [(f"hang {tmp_path / 'pid'}",), ("a",), ("b",)], workers=2, deadline_s=1000)
    assert {next(outcomes).value, next(outcomes).value} == {"A", "B"}
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
    outcomes.close()  # type: ignore[attr-defined]
    assert ends_soon(int((tmp_path / "pid").read_text()))
