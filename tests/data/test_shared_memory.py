"""Loader processes with little shared memory: fewer of them before the start, one line when it is full later."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dnl_video.config import AugmentConfig, DataConfig, ViewsConfig
from dnl_video.data import loaders, shared_memory
from dnl_video.data.crash_record import LoaderStopped, loader_faults
from dnl_video.data.dataset import ClipDataset, VideoViews, ViewDataset
from dnl_video.data.loaders import VideoDataModule, view_loader
from dnl_video.data.manifest import VideoRecord
from dnl_video.data.shared_memory import fitting_workers
from dnl_video.spec import Preprocessing

MB = 10**6
PREPROCESSING = Preprocessing(num_frames=4, frame_stride=2, short_side=48, crop_size=40)
ADVICE = "give a container more (docker run --shm-size 8g), or set --num-workers 0 (train: --data.num_workers 0)"


@pytest.fixture
def records(tmp_path: Path, write_coloured: Any) -> list[VideoRecord]:
    return [VideoRecord(f"v{i}", str(write_coloured(tmp_path / f"v{i}.mp4", 20 * i)), i, None) for i in range(4)]


@pytest.mark.parametrize(
    ("free", "workers", "loaders", "found"),
    [
        # 2 processes fetch 4 batches of 10 MB each, and one is in use: 90 MB, which may fill nine tenths.
        (100 * MB, 2, 1, (2, 4)),
        (99 * MB, 2, 1, (2, 3)),
        (34 * MB, 2, 1, (2, 1)),
        (33 * MB, 2, 1, (1, 1)),
        (22 * MB, 8, 1, (0, 1)),
        (23 * MB, 8, 1, (1, 1)),
        (0, 8, 1, (0, 1)),
        (0, 0, 1, (0, 4)),
        (None, 8, 1, (8, 4)),
        (400 * MB, 2, 4, (2, 4)),
        (399 * MB, 2, 4, (2, 3)),
    ],
)
def test_batches_ahead_fit_in_the_free_memory(
    free: int | None, workers: int, loaders: int, found: tuple[int, int], monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(shared_memory, "_free_bytes", lambda: free)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert fitting_workers("views", workers, 4, 10 * MB, loaders) == found
    assert (capsys.readouterr().err == "") == (found == (workers, 4))


def test_one_line_of_the_first_process_says_what_changed(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for free, instead in ((64 * MB, "2, 2 batch(es) ahead each"), (10 * MB, "none")):
        monkeypatch.setattr(shared_memory, "_free_bytes", lambda free=free: free)
        fitting_workers("views", 2, 4, 10 * MB, 1)
        expected = (
            f"has {free // MB} MB free, and 2 loader processes of views need 100 MB: starting {instead}; {ADVICE}"
        )
        assert capsys.readouterr().err == f"warning: /dev/shm {expected}\n"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert fitting_workers("views", 2, 4, 10 * MB, 1) == (0, 1)
    assert capsys.readouterr().err == ""


def test_free_memory(tmp_path: Path, monkeypatch: Any) -> None:
    space = os.statvfs("/dev/shm") if Path("/dev/shm").exists() else None
    if space is not None:
        assert shared_memory._free_bytes() == pytest.approx(space.f_bsize * space.f_bavail, rel=0.2)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path / "missing")
    assert shared_memory._free_bytes() == 0
    monkeypatch.setattr("sys.platform", "darwin")
    assert shared_memory._free_bytes() is None


def test_loaders_use_what_fits(records: list[VideoRecord], tmp_path: Path, monkeypatch: Any) -> None:
    asked = []

    def fit(*wanted: Any) -> tuple[int, int]:
        asked.append(wanted)
        return 2, 3

    monkeypatch.setattr(loaders, "fitting_workers", fit)
    views = ViewDataset(records, PREPROCESSING, num_clips=5, num_crops=3)
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"{record.path} {record.label}\n" for record in records))
    data = VideoDataModule(
        DataConfig(str(listing), str(listing), batch_size=4, num_workers=7),
        PREPROCESSING,
        AugmentConfig(short_side=(48, 48), crop_size=32, repeats=2),
        ViewsConfig(num_clips=2),
        seed=0,
    )
    made = [view_loader(views, range(4), 3, 8), data.train_dataloader(), data.precise_bn_dataloader(0)]
    data.trainer = SimpleNamespace(num_devices=2, global_rank=0, world_size=2)
    made.append(data.val_dataloader())
    assert [(loader.num_workers, loader.prefetch_factor) for loader in made] == [(2, 3)] * 4
    frame = 40 * 40 * 3
    assert asked == [
        ("views", 3, 2, 15 * 4 * frame, 8),
        ("training clips", 7, 4, 4 * 4 * 32 * 32 * 3, 2),  # once for both loaders of clips
        ("views", 1, 2, 4 * 2 * 4 * frame, 4),
    ]
    monkeypatch.setattr(loaders, "fitting_workers", lambda *wanted: (0, 1))
    assert len(list(view_loader(views, range(4), 3))) == 4


class FullViews(ViewDataset):
    """No file of the loader process may be larger than a page, files in /dev/shm included."""

    def __getitem__(self, index: int) -> VideoViews:
        views = super().__getitem__(index)
        limit_files()
        return views


class FullClips(ClipDataset):
    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        clips = super().__getitem__(key)
        limit_files()
        return clips


def limit_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limit of file sizes")
@pytest.mark.parametrize("kind", ["views", "clips"])
def test_memory_that_fills_up_later_ends_with_a_line(records: list[VideoRecord], kind: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(loaders, "VIEW_TIMEOUT_S", 20.0)
    if kind == "views":
        views = FullViews(records, PREPROCESSING, num_clips=1, num_crops=1)
        loader = view_loader(views, range(4), 1)
    else:
        clips = FullClips(records, PREPROCESSING, AugmentConfig(short_side=(48, 48), crop_size=40), seed=0)
        options = loaders.worker_options(1, 20.0) | {"collate_fn": loaders._shared_clips}
        loader = torch.utils.data.DataLoader(clips, sampler=[(0, i) for i in range(4)], batch_size=2, **options)
    batches = iter(loader)
    with pytest.raises(LoaderStopped) as stopped, loader_faults(20.0):
        list(batches)
    batches._shutdown_workers()  # left to the garbage collector, they end during another test
    assert str(stopped.value) == (
        f"a loader process cannot put a batch into shared memory, /dev/shm (File too large); {ADVICE}; start again "
        "(train with --resume): finished work is kept"
    )
    assert stopped.value.videos == ()


def test_a_bus_error_is_not_blamed_on_a_video() -> None:
    # PyTorch's words, from its signal handler.
    text = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out "
    text += "of shared memory. Please try to raise your shared memory limit."
    with pytest.raises(LoaderStopped, match=r"^a loader process cannot .* /dev/shm \(Bus error\); ") as stopped:  # noqa: SIM117
        with loader_faults(20.0):
            raise RuntimeError(text)
    assert stopped.value.videos == ()


def test_tensors_move_to_shared_memory_in_loader_processes_only(monkeypatch: Any) -> None:
    here, there = torch.zeros(3), torch.zeros(3)
    loaders._share(here, None, ["failure"])
    monkeypatch.setattr(loaders, "get_worker_info", object)
    loaders._share(there, None, ["failure"])
    assert (here.is_shared(), there.is_shared()) == (False, True)
