"""Failed videos: logged once, counted over processes, and a limit."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dnl_video.config import TrainConfig
from dnl_video.data.dataset import ClipBatchSampler
from dnl_video.data.manifest import read_manifest
from dnl_video.errors import InputError
from dnl_video.training.callbacks import PreciseBatchNorm
from dnl_video.training.failures import FailureMonitor
from dnl_video.training.run import train
from tests.conftest import TinyRun
from tests.test_recipes import load
from tests.training.runs import configured, fit


def broken_list(tiny: TinyRun, folder: Path, *broken: int) -> list[Path]:
    """Write the tiny training list to folder/list.csv, with broken files at some positions; return these files."""
    records = read_manifest(tiny.train, root=tiny.train.parent / "train").records
    paths = [Path(record.path) for record in records]
    for place in broken:
        paths[place] = folder / f"broken{place}.mp4"
        paths[place].write_bytes(b"not a video")
    lines = ["path,label", *(f"{path},{record.class_name}" for path, record in zip(paths, records, strict=True))]
    (folder / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return [paths[place] for place in broken]


def config_of(tiny: TinyRun, folder: Path) -> TrainConfig:
    data = {"train_manifest": str(folder / "list.csv"), "max_failed_share": 0.2}
    return configured(tiny, folder / "run", data=data, optim={"precise_bn_batches": 0})


def entries(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "failed_videos.jsonl").read_text().splitlines()]


def test_each_file_is_logged_once_also_after_a_resume(
    tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = broken_list(tiny, tmp_path, 2, 9)
    config = config_of(tiny, tmp_path)
    config.data.num_workers = 2
    log = tmp_path / "run" / "failed_videos.jsonl"
    log.parent.mkdir()
    # The log of a run that ended before its first checkpoint.
    log.write_text('{"path": "mended.mp4", "reason": "", "split": "train"}\n')
    train(config)
    logged = entries(tmp_path / "run")
    assert {entry["path"] for entry in logged} == {str(first), str(second)}
    assert len(logged) == 2
    assert {(entry["split"], entry["epoch"]) for entry in logged} == {("train", 1)}
    assert all(entry["reason"].startswith("cannot be opened") for entry in logged)
    assert capsys.readouterr().err.count("replaced by another video") == 2

    config.trainer.max_epochs = 2
    with log.open("a") as file:
        file.write('{"path": "half a line of a killed ru\n')
    train(config, resume="last")
    assert log.read_text().count("\n") == 3
    assert "replaced by another video" not in capsys.readouterr().err


def test_failed_validation_videos_are_logged_and_left_out(
    tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_list(tiny, tmp_path)
    config = config_of(tiny, tmp_path)
    bad = tmp_path / "bad.mp4"
    bad.touch()
    config.data.val_manifest = str(tmp_path / "val.csv")
    good = read_manifest(tmp_path / "list.csv").records[:3]
    lines = ["path,label", f"{bad},growing", *(f"{record.path},{record.class_name}" for record in good)]
    (tmp_path / "val.csv").write_text("\n".join(lines), encoding="utf-8")
    train(config)
    assert entries(tmp_path / "run") == [{"path": str(bad), "reason": "file is empty", "split": "val", "epoch": 1}]
    captured = capsys.readouterr()
    assert captured.err.count(f"warning: {bad}: file is empty; left out of the validation") == 1
    assert "(1 val videos failed)" in captured.out


def test_precise_batch_norm_reports_failed_videos(tiny: TinyRun, tmp_path: Path) -> None:
    # The broken video is not in the one training batch, but precise batch norm reads all videos.
    config = load(tiny.config)
    trained = next(iter(ClipBatchSampler(16, config.data.batch_size, seed=config.seed)))
    place = next(i for i in range(16) if i not in {index for _, index in trained})
    (broken,) = broken_list(tiny, tmp_path, place)
    config = config_of(tiny, tmp_path)
    for batches, expected in ((0, set()), (4, {str(broken)})):
        monitor = FailureMonitor(config.data.max_failed_share, tmp_path / str(batches))
        fit(config, PreciseBatchNorm(batches, monitor), monitor, limit_train_batches=1, limit_val_batches=1)
        assert set(monitor.failed) == expected
        assert (tmp_path / str(batches) / "failed_videos.jsonl").exists() == bool(expected)


def fake_second_process(monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str]) -> None:
    """Replace torch.distributed: the second process gives the failures ``theirs``."""

    def gather(parts: list[Any], mine: dict[str, str]) -> None:
        parts[:] = [mine, theirs]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)


def test_processes_count_and_log_each_video_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = SimpleNamespace(train=SimpleNamespace(records=range(10)), train_missing=["gone.mp4"])
    trainer: Any = SimpleNamespace(is_global_zero=True, current_epoch=3, datamodule=data)
    monitor = FailureMonitor(0.4, tmp_path)
    fake_second_process(monkeypatch, {"a.mp4": "x", "b.mp4": "y"})
    monitor.note([("a.mp4", "x"), ("c.mp4", "z")])
    monitor.settle(trainer)
    assert monitor.failed == {"a.mp4": "x", "b.mp4": "y", "c.mp4": "z"}
    monitor.note([("a.mp4", "x")])
    monitor.settle(trainer)
    assert [entry["path"] for entry in entries(tmp_path)] == ["a.mp4", "c.mp4", "b.mp4"]
    assert {entry["epoch"] for entry in entries(tmp_path)} == {4}
    assert capsys.readouterr().err.count("warning: ") == 3
    # Three failed and one missing are four of ten; the fifth, from the other process, stops both.
    fake_second_process(monkeypatch, {"d.mp4": "x"})
    with pytest.raises(InputError) as error:
        monitor.settle(trainer)
    assert str(error.value) == (
        "5 of 10 training videos failed or are missing, more than data.max_failed_share 0.4 allows: a.mp4, b.mp4, "
        f"c.mp4, d.mp4 (all are in {tmp_path / 'failed_videos.jsonl'}); repair or unlist them, or raise the share"
    )
