"""Atomic checkpoints: last, previous, temporary files, and a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from dnl_video.errors import InputError
from dnl_video.files import remove_partial
from dnl_video.training.checkpoint_callbacks import AtomicCheckpointIO


def contents(folder: Path) -> dict[str, int]:
    """Return the files of a folder, each with the number saved in it."""
    return {p.name: torch.load(p, weights_only=True)["number"] for p in folder.iterdir()}


def save(writer: AtomicCheckpointIO, path: Path, number: int) -> None:
    writer.save_checkpoint({"number": number, "weights": torch.arange(1000.0)}, path)


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_last_two_checkpoints_are_kept(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    writer, path = AtomicCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    for number in range(3):
        save(writer, path, number)
    assert contents(path.parent) == {"last.ckpt": 2, "previous.ckpt": 1}
    save(writer, path.with_name("best-epoch000-top1_0.5.ckpt"), 7)
    assert contents(path.parent) == {"last.ckpt": 2, "previous.ckpt": 1, "best-epoch000-top1_0.5.ckpt": 7}
    # Another process resumes from the last one.
    save(AtomicCheckpointIO(path), path, 3)
    assert contents(path.parent) == {"last.ckpt": 3, "previous.ckpt": 2, "best-epoch000-top1_0.5.ckpt": 7}


def test_unread_last_checkpoint_does_not_replace_the_previous_one(tmp_path: Path) -> None:
    writer, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    for number in range(2):
        save(writer, path, number)
    path.write_bytes(b"damaged")
    resumed = AtomicCheckpointIO(tmp_path / "previous.ckpt")
    save(resumed, path, 2)
    assert contents(tmp_path) == {"last.ckpt": 2, "previous.ckpt": 0}
    save(resumed, path, 3)
    assert contents(tmp_path) == {"last.ckpt": 3, "previous.ckpt": 2}


def test_next_save_repairs_a_kill_during_the_save(tmp_path: Path) -> None:
    writer, path = AtomicCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    save(writer, path, 0)
    # Killed after the old file got its second name: both names are one file, and temporary files are left.
    os.link(path, path.with_name("previous.ckpt"))
    for name in (".0123abcd.last.ckpt", ".0123abcd.previous.ckpt", ".4567abcd.best-epoch000-top1_0.5.ckpt"):
        path.with_name(name).write_bytes(b"half")
    remove_partial(path.parent, "*.ckpt")
    save(AtomicCheckpointIO(path), path, 1)
    assert contents(path.parent) == {"last.ckpt": 1, "previous.ckpt": 0}


@pytest.mark.parametrize("step", ["fsync", "write"])
def test_failed_save_keeps_the_old_checkpoints(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    for number in range(2):
        save(writer, path, number)

    def full(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError) as refused:
        save(writer, path, 2)
    assert str(refused.value) == (
        f"{path}: cannot be written (No space left on device); the checkpoints before it are kept: free disk space, "
        "and continue with --resume"
    )
    assert contents(tmp_path) == {"last.ckpt": 1, "previous.ckpt": 0}
