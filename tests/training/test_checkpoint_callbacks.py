"""Atomic checkpoints: best, last, previous, temporary files, and a full disk."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import torch

from dnl_video.errors import InputError
from dnl_video.files import remove_partial
from dnl_video.training.checkpoint_callbacks import AtomicCheckpointIO, BestCheckpoint


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


# Epoch by epoch: validation top-1 and loss, and the epoch of the best checkpoint afterwards.
VALIDATIONS = [
    (0.5, 1.0, 0),
    (0.5, 1.1, 0),  # the same top-1 with a higher loss
    (0.5, 0.9, 2),  # ... with a lower loss
    (0.5, 0.9, 3),  # the same loss too: the later epoch
    (0.4, 0.1, 3),
    (0.6, 9.0, 5),
    (0.59999, 0.1, 5),
]


class Validated:
    """A trainer after a validation; its checkpoints contain the state of the callback."""

    is_global_zero, check_val_every_n_epoch = True, 1

    def __init__(self, epoch: int, top1: float, loss: float, best: BestCheckpoint, resumed: Path | None = None) -> None:
        self.current_epoch, self.ckpt_path = epoch, resumed
        self.callback_metrics = {"val/top1": torch.tensor(top1), "val/loss": torch.tensor(loss)}
        self._best = best

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        assert not weights_only
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(self._best.state_dict(), path)


def validate(best: BestCheckpoint, epoch: int, top1: float, loss: float) -> list[str]:
    """Validate once; return the names of the best checkpoints in the folder."""
    trainer: Any = Validated(epoch, top1, loss, best)
    best.on_validation_end(trainer, Any)
    return sorted(path.name for path in best.folder.glob("best-*.ckpt"))


def resumed(folder: Path, checkpoint: Path) -> BestCheckpoint:
    """Return the callback of a run in a folder that is resumed from a checkpoint."""
    best = BestCheckpoint(folder)
    best.load_state_dict(torch.load(checkpoint, weights_only=True))
    trainer: Any = Validated(9, 0.0, 0.0, best, checkpoint)
    best.on_fit_start(trainer, Any)
    return best


def test_failed_write_is_named_by_the_system(tmp_path: Path) -> None:
    """A limit of the file size stops the write as a full disk does; torch hides the reason."""
    path = tmp_path / "checkpoints" / "last.ckpt"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError) as refused:
            AtomicCheckpointIO().save_checkpoint({"weights": torch.arange(1e6)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(refused.value).startswith(f"{path}: cannot be written (File too large); no checkpoint was kept")


def test_ties_go_to_the_lower_loss_and_then_to_the_later_epoch(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path)
    tops = [top1 for top1, _, _ in VALIDATIONS]
    for epoch, (top1, loss, expected) in enumerate(VALIDATIONS):
        name = f"best-epoch-{expected + 1:03d}-top1_{tops[expected]:.4f}.ckpt"
        assert validate(best, epoch, top1, loss) == [name]
        # A killed run that repeats the validation writes the same file.
        best = resumed(tmp_path, best.folder / name)
        assert validate(best, epoch, top1, loss) == [name]


def test_copied_run_keeps_its_best_checkpoint(tmp_path: Path) -> None:
    (name,) = validate(BestCheckpoint(tmp_path / "run"), 2, 0.7, 1.0)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    saved = tmp_path / "run" / "checkpoints" / name
    for folder, source in ((tmp_path / "copy", tmp_path / "copy" / "checkpoints" / name), (tmp_path / "new", saved)):
        best = resumed(folder, source)
        assert validate(best, 3, 0.6, 0.1) == [name]
        assert (folder / "checkpoints" / name).read_bytes() == saved.read_bytes()
        assert validate(best, 4, 0.8, 2.0) == ["best-epoch-005-top1_0.8000.ckpt"]
    assert saved.is_file()


def test_best_checkpoint_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    (name,) = validate(BestCheckpoint(tmp_path / "run"), 2, 0.7, 1.0)
    last = (tmp_path / "run" / "checkpoints" / name).rename(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert validate(resumed(tmp_path / "run", last), 3, 0.6, 1.0) == ["best-epoch-004-top1_0.6000.ckpt"]


def test_run_of_version_0_1_keeps_its_best_checkpoint(tmp_path: Path) -> None:
    name = "best-epoch001-top1_0.5000.ckpt"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).touch()
    state = {"best_model_path": f"/elsewhere/run/checkpoints/{name}", "best_model_score": torch.tensor(0.5)}
    best, trainer = BestCheckpoint(tmp_path), cast(Any, None)
    best.on_load_checkpoint(trainer, trainer, {"callbacks": {"ModelCheckpoint{'monitor': 'val/top1'}": state}})
    assert validate(best, 2, 0.4, 0.1) == [name]
    assert validate(best, 3, 0.5, 1.0) == ["best-epoch-004-top1_0.5000.ckpt"]


def test_resumed_run_whose_names_count_from_0_keeps_one_best_checkpoint(tmp_path: Path) -> None:
    (new,) = validate(BestCheckpoint(tmp_path), 2, 0.5, 1.0)
    old = tmp_path / "checkpoints" / "best-epoch002-top1_0.5000.ckpt"
    (tmp_path / "checkpoints" / new).unlink()
    torch.save({"name": old.name, "score": (0.5, -1.0)}, old)
    best = resumed(tmp_path, old)
    assert validate(best, 3, 0.4, 0.1) == [old.name]
    assert validate(best, 4, 0.6, 1.0) == ["best-epoch-005-top1_0.6000.ckpt"]


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
    new = tmp_path / "new" / "checkpoints" / "last.ckpt"
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
    with pytest.raises(InputError) as refused:
        save(AtomicCheckpointIO(), new, 0)
    assert str(refused.value) == (
        f"{new}: cannot be written (No space left on device); no checkpoint was kept: free disk space, and start again"
    )
    assert list(new.parent.iterdir()) == []
    shutil.rmtree(tmp_path / "new")
    assert contents(tmp_path) == {"last.ckpt": 1, "previous.ckpt": 0}
