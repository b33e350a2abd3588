"""Rows of finished runs: appended whole, read back, and refused where they are damaged or another study's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dnl_video.errors import InputError
from dnl_video.results.predictions import PredictionsMeta, VideoPrediction
from dnl_video.results.writer import PredictionsWriter
from dnl_video.studies.rows import accuracy, append_row, check_settings, read_rows, validation_curve

ROW = {"context": "none", "seed": 0, "top1": 0.5}


def test_rows_come_back_and_a_half_written_one_is_dropped(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []
    append_row(tmp_path, ROW)
    append_row(tmp_path, ROW | {"seed": 1})
    whole = (tmp_path / "runs.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["seed"] for line in whole.splitlines()] == [0, 1]
    with (tmp_path / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"context": "nl", "seed": 1, "top1": 0.')
    assert [row["seed"] for row in read_rows(tmp_path)] == [0, 1]
    append_row(tmp_path, ROW | {"seed": 2})
    assert [row["seed"] for row in read_rows(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("line", ["{", '{"context": "nl", "seed": 1}', "7"])
def test_a_damaged_row_is_named(tmp_path: Path, line: str) -> None:
    append_row(tmp_path, ROW)
    with (tmp_path / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match=r"runs\.jsonl: line 2 is damaged; delete it, and its run is done again"):
        read_rows(tmp_path)


def test_a_folder_keeps_its_settings(tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match="cannot be written"):
        check_settings(tmp_path / "file" / "below", settings)


def test_the_curve_is_that_of_all_parts_of_a_run(tmp_path: Path) -> None:
    for name, text in (
        ("csv", "epoch,step,train/loss,val/top1\n0,9,0.7,\n0,9,,0.25\n1,19,,0.5\n"),
        ("csv-resumed-1", "epoch,step,val/top1\n2,29,0.75\n"),
    ):
        (tmp_path / "logs" / name).mkdir(parents=True)
        (tmp_path / "logs" / name / "metrics.csv").write_text(text)
    assert validation_curve(tmp_path) == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_a_video_that_cannot_be_read_is_wrong(tmp_path: Path) -> None:
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
