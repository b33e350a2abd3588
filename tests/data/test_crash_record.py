"""Loader processes that die or hang: the error names the video and what to do."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from dnl_video.data.crash_record import LoaderStopped, loader_faults, record_folder, start_record
from dnl_video.data.decoding import open_video
from dnl_video.data.loaders import worker_options
from tests.data.odd_videos import encode

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


# PyTorch raises two errors, in random order.
_DEAD = (
    r"a loader process \(\d+\) (was stopped by signal (Killed|Aborted)|exited unexpectedly) while it read \S+/2\.mp4"
)


class Fatal(Dataset[int]):
    """Reads a video; the process dies, or hangs, at the third one."""

    def __init__(self, paths: list[Path], end: str) -> None:
        self.paths = paths
        self.end = end

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> int:
        with open_video(self.paths[index]) as video:
            if index == 2 and self.end == "hang":
                time.sleep(1000)
            if index == 2:
                os.kill(os.getpid(), signal.Signals[self.end])
            return video.num_frames


def _raise_in_a_thread(folder: Path) -> None:
    with (folder / "stderr").open("w") as sys.stderr:
        start_record(str(folder), 0)
        for error in (EOFError(), ConnectionResetError(), ValueError("a real error")):
            sys.excepthook(type(error), error, None)


def test_a_loader_process_prints_no_lost_connections(tmp_path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_raise_in_a_thread, args=(tmp_path,))
    process.start()
    process.join()
    assert (tmp_path / "stderr").read_text() == "ValueError: a real error\n"


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [encode(folder / f"{i}.mp4", frames=3) for i in range(4)]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            "SIGKILL",
            _DEAD
            + r"; if memory ran out, lower num_workers; start again \(train with --resume\): finished work is kept",
        ),
        ("SIGABRT", _DEAD + "; .*"),
        (
            "hang",
            r"the loader returned no video within 2 s; a loader process is stuck in \S+/2\.mp4; start again "
            r"\(train with --resume\): finished work is kept. If the storage or the "
            r"machine is that slow, raise data.timeout_s or lower num_workers",
        ),
    ],
)
def test_the_error_names_the_video(paths, end, message):
    timeout_s = 2.0 if end == "hang" else 60.0  # a process that starts slowly does not hang
    loader = DataLoader(Fatal(paths, end), batch_size=None, **worker_options(1, timeout_s))
    with pytest.raises(LoaderStopped) as caught, loader_faults(timeout_s):
        for _ in loader:
            pass
    assert re.fullmatch(message, str(caught.value)), str(caught.value)
    assert caught.value.videos == (str(paths[2]),)


def test_only_videos_that_took_most_of_the_timeout_hang():
    records = {1: (9.0, "stuck.mp4"), 2: (7.0, "slow.mp4"), 3: (9.0, "")}
    with pytest.raises(LoaderStopped, match=r"within 10 s; a loader process is stuck in stuck\.mp4; ") as caught:  # noqa: PT012, SIM117
        with loader_faults(10.0):
            for pid, (age, path) in records.items():
                (Path(record_folder()) / str(4194300 + pid)).write_text(f"{time.time() - age}\n{path}\0")
            raise RuntimeError("DataLoader timed out after 10 seconds")
    assert caught.value.videos == ("stuck.mp4",)
    with loader_faults(10.0):  # removes the records
        assert list(Path(record_folder()).iterdir()) == []


def test_a_broken_connection_is_a_dead_process_only_if_one_has_died():
    with pytest.raises(ConnectionResetError), loader_faults(300.0):
        raise ConnectionResetError
    with pytest.raises(LoaderStopped) as caught, loader_faults(300.0):  # noqa: PT012
        (Path(record_folder()) / "4194304").write_text(f"{time.time()}\ndead.mp4\0")
        raise EOFError
    assert caught.value.videos == ("dead.mp4",)


def test_a_process_that_read_nothing():
    with (
        pytest.raises(LoaderStopped, match=r"^a loader process exited unexpectedly; if memory ran out") as caught,
        loader_faults(300.0),
    ):
        raise RuntimeError("DataLoader worker (pid(s) 4194303) exited unexpectedly")
    assert caught.value.videos == ()


def test_other_errors_are_unchanged():
    with pytest.raises(RuntimeError, match=r"^something else$"), loader_faults(300.0):
        raise RuntimeError("something else")


def test_loaders_without_processes_need_no_record(paths):
    assert multiprocessing.parent_process() is None
    loader = DataLoader(Fatal(paths[:2], "none"), batch_size=None, **worker_options(0, 2.0))
    with loader_faults(2.0):
        assert list(loader) == [3, 3]
