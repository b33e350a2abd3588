"""Fixtures of all tests."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dnl_video.cli.main import main

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """pytest-xdist starts one worker per core. Its controller runs no test and loads no torch."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """The same random numbers in every run, so that a test near its tolerance does not fail by chance."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def full_size() -> bool:
    """Whether tests marked `full` run at full size, as in `scripts/test.sh --full`; otherwise at a small size."""
    return os.environ.get("DNL_TEST_FULL") == "1"


@dataclass(frozen=True)
class TinyRun:
    """A few generated videos and a network trained on them for one short epoch by the command line."""

    folder: Path
    config: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def val(self) -> Path:
        return self.folder / "videos" / "val.csv"

    @property
    def train(self) -> Path:
        return self.folder / "videos" / "train.csv"

    def files(self, split: str = "val") -> list[Path]:
        """The videos of a split, sorted by path."""
        return sorted((self.folder / "videos" / split).rglob("*.mp4"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run of one short epoch; read only."""
    folder = tmp_path_factory.mktemp("tiny")
    assert main(["demo-data", "--output", str(folder / "videos"), "--train-videos", "16", "--val-videos", "8"]) == 0
    recipe = yaml.safe_load((REPOSITORY / "configs" / "demo" / "i3d_dnl.yaml").read_text(encoding="utf-8"))
    made = TinyRun(folder, folder / "tiny.yaml")
    recipe["output_dir"] = str(made.run)
    recipe["data"] |= {"train_manifest": str(made.train), "val_manifest": str(made.val)}
    recipe["data"] |= {"batch_size": 4, "num_workers": 0}
    recipe["preprocessing"]["num_frames"] = 4
    recipe["optim"] |= {"precise_bn_batches": 1, "warmup_epochs": 0.5}
    recipe["trainer"] |= {"max_epochs": 1, "check_val_every_n_epoch": 1, "accelerator": "cpu", "log_every_n_steps": 1}
    recipe["evaluation"] |= {"num_workers": 0, "num_clips": 2, "num_crops": 1, "device": "cpu"}
    made.config.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    assert main(["train", "--config", str(made.config)]) == 0
    return made


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Return a function that makes a folder unreadable. `chmod` does not stop root, as which tests may run."""
    denied: list[str] = []

    def refusing(read: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".") -> Any:
            if str(path) in denied:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return read(path)

        return call

    def add(folder: Path) -> Path:
        denied.append(str(folder))
        return folder

    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    monkeypatch.setattr(os, "listdir", refusing(os.listdir))
    return add


@pytest.fixture(scope="session")
def shared_clips() -> Path:
    """Real videos, beside the repository on some machines: two Kinetics actions, a corrupt file, unusual files."""
    folder = REPOSITORY.parent / "shared" / "clips"
    if not folder.is_dir():
        pytest.skip("this machine has no real clips")
    return folder
