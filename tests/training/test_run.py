"""Checks before a run starts, and the devices it uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dnl_video.config import TrainConfig, TrainerConfig
from dnl_video.errors import InputError
from dnl_video.files import locked
from dnl_video.models.weights.checkpoint import read_raw
from dnl_video.models.weights.find import find_checkpoint
from dnl_video.models.weights.source import FORMAT_KEY
from dnl_video.training import trainer
from dnl_video.training.resume import ResumePoint, check_same_run, check_settings
from dnl_video.training.run import train
from dnl_video.training.trainer import validation_interval
from tests.conftest import TinyRun
from tests.test_recipes import load
from tests.training.runs import configured


@pytest.mark.parametrize(("wanted", "epochs", "interval"), [(8, 32, 8), (8, 30, 6), (4, 3, 3), (4, 196, 4), (2, 7, 1)])
def test_last_epoch_is_always_validated(wanted: int, epochs: int, interval: int) -> None:
    assert validation_interval(wanted, epochs) == interval


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("optim", {"warmup_epochs": 1.0}, "optim.warmup_epochs 1 leaves nothing of trainer.max_epochs 1; lower it"),
        ("preprocessing", {"num_frames": 1}, "preprocessing.num_frames is 1; i3d_r50 takes 2 or more"),
        (
            "trainer",
            {"devices": 1024},
            f"trainer.devices is 1024, but the CPU has {os.cpu_count()} core(s); give at most",
        ),
        ("trainer", {"accelerator": "gpu"}, "trainer settings do not fit this machine: "),
    ],
)
def test_wrong_settings_are_refused(section: str, values: Any, message: str, tiny: TinyRun, tmp_path: Path) -> None:
    if values.get("accelerator") == "gpu" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = configured(tiny, tmp_path / "run", **{section: values})
    with pytest.raises(InputError) as refused:
        train(config)
    assert message in str(refused.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_output_folder_that_cannot_be_created(tiny: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"file.*: cannot be made \(.*\); choose another folder"):
            train(configured(tiny, output))


def test_a_folder_in_which_another_training_runs(tiny: TinyRun, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    written = output / "checkpoints" / ".1234abcd.last.ckpt"
    written.parent.mkdir()
    written.touch()
    with (
        locked(output / ".lock"),
        pytest.raises(
            InputError, match=r"another training is writing to .*run; wait for it, or choose another --output"
        ),
    ):
        train(configured(tiny, output))
    assert not (output / "config.yaml").exists()
    assert written.exists()


def test_integer_and_named_labels_together_are_refused(tiny: TinyRun, tmp_path: Path) -> None:
    files = tiny.files("train")
    (tmp_path / "ints.txt").write_text("\n".join(f"{f} {i % 8}" for i, f in enumerate(files)), encoding="utf-8")
    config = configured(tiny, tmp_path / "run")
    config.data.train_manifest = str(tmp_path / "ints.txt")
    with pytest.raises(InputError, match=r"ints\.txt has integer labels, .*val\.csv has names; use one kind in both"):
        train(config)


def test_only_broken_videos(tiny: TinyRun, tmp_path: Path) -> None:
    broken = [tmp_path / f"{i}.mp4" for i in range(8)]
    for file in broken:
        file.write_bytes(b"")
    (tmp_path / "list.txt").write_text("\n".join(f"{f} {i}" for i, f in enumerate(broken)), encoding="utf-8")
    config = configured(tiny, tmp_path / "run")
    config.data.train_manifest = config.data.val_manifest = str(tmp_path / "list.txt")
    with pytest.raises(
        InputError, match=r"8 videos in a row cannot be read, check the data: .*0\.mp4 \(file is empty\)"
    ):
        train(config)


def test_devices_are_those_of_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "32"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(trainer, "Trainer", dict)
    options: Any = trainer.make_trainer(TrainConfig(), [], [], tmp_path)
    assert (options["devices"], options["num_nodes"]) == (8, 4)
    with pytest.raises(InputError, match=r"^trainer\.devices is 1 and .*set trainer\.devices=auto$"):
        trainer.make_trainer(TrainConfig(trainer=TrainerConfig(devices=1)), [], [], tmp_path)


def test_resume_with_other_processes_or_positions_is_refused(tiny: TinyRun) -> None:
    stored = read_raw(find_checkpoint(tiny.run, last=True))[FORMAT_KEY]
    assert stored["processes"] == 1
    point = ResumePoint(Path("last.ckpt"), stored | {"processes": 8})
    config, names = load(tiny.config), stored["class_names"]
    check_same_run(point, names, 8)
    assert check_settings(point, config) == {}
    with pytest.raises(InputError) as refused:
        check_same_run(point, names, 32)
    assert str(refused.value) == (
        "last.ckpt: its run has 8 process(es), not 32, and its schedule and data position count their steps; resume "
        "with 8, or start a new run from it with --weights.source and --output"
    )
    stored["config"]["model"]["context_options"]["positions"] = {"res3": [1]}
    with pytest.raises(InputError, match=r"its model.context_options.positions is {'res3': \[1\]}, the .* is null;"):
        check_settings(point, config)


def test_lightning_starts_processes_in_a_batch_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NAME": "k400"}.items():
        monkeypatch.setenv(name, value)
    config = TrainConfig(trainer=TrainerConfig(accelerator="cpu", devices=2))
    built = trainer.make_trainer(config, [], [], tmp_path)
    assert built.world_size == 2
    assert built.strategy.launcher is not None
