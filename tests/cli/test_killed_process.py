"""After one of two evaluation processes is killed and restarted, the report equals that of a single process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from dnl_video.cli.main import main
from dnl_video.report import build_report
from dnl_video.results.predictions import VideoPrediction
from dnl_video.results.reader import read_predictions
from dnl_video.results.writer import PredictionsWriter
from tests.conftest import TinyRun
from tests.lists import write_list


def dying(words: list[str]) -> None:
    """Run a command that is killed at the third video, when only the first is written."""
    add = PredictionsWriter.add
    added = []

    def and_die(self: PredictionsWriter, prediction: VideoPrediction) -> None:
        added.append(prediction)
        if len(added) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, prediction)
        if len(added) == 1:
            self.flush()

    PredictionsWriter.add = and_die  # type: ignore[method-assign]
    main(words)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the child takes over the test")
def test_every_video_is_reported_once(tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nine = write_list(tmp_path / "nine.csv", tiny.val, broken=4)
    words = ["evaluate", "--checkpoint", str(tiny.run), "--manifest", str(nine), "--device", "cpu"]
    words += ["--num-workers", "0", "--num-clips", "2", "--num-crops", "1", "--output"]
    one, two = [*words, str(tmp_path / "one")], [*words, str(tmp_path / "two")]
    assert main(one) == 3

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    child = multiprocessing.get_context("fork").Process(target=dying, args=(two,))
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
