"""Rows of finished runs: half-written lines, wrong rows, and the settings of the study."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnl_video.errors import InputError
from dnl_video.files import append_json_lines
from dnl_video.results.predictions import PredictionsMeta, VideoPrediction
from dnl_video.results.writer import PredictionsWriter
from dnl_video.studies.rows import accuracy, check_settings, read_rows, validation_curve

ROW = {"context": "none", "seed": 0, "top1": 0.5}


def test_half_written_row_is_skipped(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []
    file = tmp_path / "runs.jsonl"
    append_json_lines(file, ROW, ROW | {"seed": 1})
    with file.open("a", encoding="utf-8") as stream:
        stream.write('{"context": "nl", "seed": 1, "top1": 0.')
    assert [row["seed"] for row in read_rows(tmp_path)] == [0, 1]
    append_json_lines(file, ROW | {"seed": 2})
    assert [row["seed"] for row in read_rows(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("line", [{"context": "nl", "seed": 1}, 7])
def test_wrong_row_is_named(tmp_path: Path, line: Any) -> None:
    append_json_lines(tmp_path / "runs.jsonl", ROW, line)
    message = f"runs.jsonl: {json.dumps(line)} is not a row of a study; delete it, and its run is repeated"
    with pytest.raises(InputError, match=re.escape(message)):
        read_rows(tmp_path)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    settings = {"task": {"grid": 3}, "data_seed": 0, "betas": (1, 2)}
    check_settings(folder, settings)
    check_settings(folder, settings)
    with pytest.raises(InputError, match=r"study holds runs with task\.grid=3, not 4; give another output_dir, or the"):
        check_settings(folder, settings | {"task": {"grid": 4}})
    (folder / "settings.json").write_text("{")
    with pytest.raises(InputError, match=r"settings\.json cannot be read; give another output_dir, or remove this one"):
        check_settings(folder, settings)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file holds something else; give a new folder"):
        check_settings(tmp_path / "file", settings)
    with pytest.raises(InputError, match="below: cannot be made"):
        check_settings(tmp_path / "file" / "below", settings)


def test_validation_curve_joins_the_logs_of_a_resumed_run(tmp_path: Path) -> None:
    for name, text in (
        ("csv", "epoch,step,train/loss,val/top1\n0,9,0.7,\n0,9,,0.25\n1,19,,0.5\n"),
        ("csv-resumed-1", "epoch,step,val/top1\n2,29,0.75\n"),
    ):
        (tmp_path / "logs" / name).mkdir(parents=True)
        (tmp_path / "logs" / name / "metrics.csv").write_text(text)
    assert validation_curve(tmp_path) == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_failed_video_counts_as_wrong(tmp_path: Path) -> None:
    meta = PredictionsMeta(
        model={}, preprocessing={}, weights="w", weights_sha256="0", num_clips=1, num_crops=1,
        class_names=["a", "b"], manifest="m", manifest_sha256="0", num_videos=4, labelled=True,
    )  # fmt: skip
    writer = PredictionsWriter(tmp_path, meta)
    scores = {"right": [0.2, 0.8], "wrong": [0.9, 0.1], "tie": [0.5, 0.5]}
    for name, values in scores.items():
        writer.add(VideoPrediction(name, f"{name}.mp4", 1, 1, np.array(values, np.float32)))
    writer.add(VideoPrediction("broken", "broken.mp4", 1, error="no frames"))
    writer.close()
    assert accuracy(tmp_path) == {"top1": 0.25, "correct": 1, "videos": 4}
