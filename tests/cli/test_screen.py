from __future__ import annotations

import re

import pytest

from dnl_video.cli.main import set_up_logging
from dnl_video.cli.screen import prediction_progress
from dnl_video.results.predictions import VideoPrediction


@pytest.fixture(autouse=True)
def _notes_are_shown():
    set_up_logging(set())


def test_log_files_get_lines_with_throughput_and_time_left(capsys):
    with prediction_progress("predict", log_every_s=0) as progress:
        progress(40, 100, None)
        for done in (41, 42, 43):
            progress(done, 100, VideoPrediction(f"v{done}", "v.mp4"))
        for done in (4, 8, 12):
            progress.clips(done, 36)
        progress(44, 100, VideoPrediction("v44", "v.mp4", error="no frames"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "40 of 100 videos are already done"
    number = r"\d+\.\d/s, \d:\d\d:\d\d left"
    assert any(re.fullmatch(rf"predict: 43 of 100 videos, {number}", line) for line in lines)
    assert any(re.fullmatch(rf"clips: 12 of 36 clips, {number}", line) for line in lines)
    assert "failed: v.mp4: no frames" in lines


@pytest.mark.parametrize(("quiet", "every"), [(True, 0.0), (False, 60.0)])
def test_short_and_quiet_runs_log_failures_only(quiet, every, capsys):
    with prediction_progress("predict", quiet=quiet, log_every_s=every) as progress:
        for done in range(1, 9):
            progress(done, 8, VideoPrediction(f"v{done}", f"{done}.mp4", error="no frames" if done == 5 else None))
    assert capsys.readouterr().err == "failed: 5.mp4: no frames\n"
