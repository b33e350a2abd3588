"""Killed processes: the next run continues. A killed loader process ends its run with one line."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml

from dnl_video.cli.main import main
from dnl_video.data import dataset
from dnl_video.data.decoding import open_video
from dnl_video.report import build_report
from dnl_video.results.predictions import VideoPrediction
from dnl_video.results.reader import read_predictions
from dnl_video.results.writer import PredictionsWriter
from tests.lists import write_list
from tests.processes import CommandProcess

forked = pytest.mark.skipif(
    multiprocessing.get_start_method(allow_none=False) != "fork", reason="loader processes must see the test's patch"
)


def crash_on(name: str, monkeypatch) -> None:
    """Kill loader processes that open a video of this name, like a crashing decoder."""

    def fatal(path, **options):
        if Path(path).name == name:
            with open_video(path, **options):
                os.kill(os.getpid(), signal.SIGABRT)
        return open_video(path, **options)

    monkeypatch.setattr(dataset, "open_video", fatal)


@forked
def test_evaluation_records_the_video_and_continues(tiny, tmp_path, monkeypatch, capsys):
    victim = tiny.files()[3]
    command = ["evaluate", "--checkpoint", str(tiny.run), "--manifest", str(tiny.val), "--num-workers", "1"]
    command += ["--num-clips", "1", "--num-crops", "1", "--device", "cpu", "--output", str(tmp_path / "out")]
    crash_on(victim.name, monkeypatch)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f" while it read {victim};" in error
    assert "start again (train with --resume): finished work is kept" in error
    # The same command does not open the fatal video again.
    assert main(command) == 3
    predictions = read_predictions(tmp_path / "out")
    pairs = zip(predictions.path, predictions.error, strict=True)
    errors = {Path(path).name: error for path, error in pairs if error}
    assert errors == {victim.name: "stopped the process that decoded it"}
    assert len(predictions.path) == 8


@forked
def test_a_resumed_training_does_not_open_the_video_again(tiny, tmp_path, monkeypatch, capsys):
    config = yaml.safe_load(tiny.config.read_text(encoding="utf-8"))
    config["output_dir"] = str(tmp_path / "run")
    config["data"] |= {"num_workers": 1, "max_failed_share": 0.1}
    config["trainer"] |= {"max_epochs": 2}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    victim = tiny.files("train")[5]
    crash_on(victim.name, monkeypatch)
    assert main(["train", "--config", str(file)]) == 2
    assert f" while it read {victim};" in capsys.readouterr().err
    lines = (tmp_path / "run" / "crashed_videos.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [str(victim)]
    resume = ["--resume"] if list((tmp_path / "run" / "checkpoints").glob("*.ckpt")) else []
    assert main(["train", "--config", str(file), *resume]) == 0
    assert f"warning: {victim}: stopped the process that decoded it" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the loader process in /proc")
@pytest.mark.full
def test_training_continues_after_kill_9_of_a_loader_process(tiny, tmp_path, full_size):
    run = tmp_path / "run"
    words = ["train", "--config", str(tiny.config), "--output_dir", str(run), "--data.num_workers", "1"]
    words += ["--trainer.max_epochs", "4" if full_size else "2", "--trainer.save_every_n_steps", "1"]
    with CommandProcess(words, tmp_path / "printed", new_interpreter=full_size) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (run / "checkpoints" / "last.ckpt").exists() and process.returncode() is None:
            time.sleep(0.01)
        loaders = [int(pid) for pid in children.read_text().split()]
        assert loaders
        os.kill(loaders[-1], signal.SIGKILL)
        assert process.wait() == 2, process.stderr
    assert "loader process" in process.stderr.splitlines()[-1]
    assert process.stderr.splitlines()[-1].endswith("start again (train with --resume): finished work is kept")
    assert main([*words, "--resume"]) == 0
    shutil.rmtree(run)


def kill_at_third_video(words: list[str]) -> None:
    """Run a command that is killed at its third video; only the first is written by then."""
    add = PredictionsWriter.add
    added = []

    def counted(self: PredictionsWriter, prediction: VideoPrediction) -> None:
        added.append(prediction)
        if len(added) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, prediction)
        if len(added) == 1:
            self.flush()

    PredictionsWriter.add = counted
    main(words)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the child takes over the test")
def test_a_restarted_evaluation_reports_every_video_once(tiny, tmp_path, monkeypatch):
    nine = write_list(tmp_path / "nine.csv", tiny.val, broken=4)
    words = ["evaluate", "--checkpoint", str(tiny.run), "--manifest", str(nine), "--device", "cpu"]
    words += ["--num-workers", "0", "--num-clips", "2", "--num-crops", "1", "--output"]
    one, two = [*words, str(tmp_path / "one")], [*words, str(tmp_path / "two")]
    assert main(one) == 3

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    child = multiprocessing.get_context("fork").Process(target=kill_at_third_video, args=(two,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    monkeypatch.setenv("RANK", "0")
    assert main(two) == 0
    assert len(read_predictions(tmp_path / "two").video_id) == 6
    monkeypatch.setenv("RANK", "1")
    assert main(two) == 3
    reports = [build_report(read_predictions(tmp_path / name)) for name in ("one", "two")]
    for report in reports:
        report.pop("run")
    assert reports[0] == reports[1]
    counts = {name: reports[1]["coverage"][name] for name in ("listed", "finished", "evaluated", "failed")}
    assert counts == {"listed": 9, "finished": 9, "evaluated": 8, "failed": 1}
