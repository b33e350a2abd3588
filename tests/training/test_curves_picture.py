"""The picture of the curves in the folder of a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from dnl_video.report import curves as report_curves
from dnl_video.report import figures
from dnl_video.training.progress import Curves
from tests.conftest import TinyRun
from tests.training.runs import configured, train


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, list[float]]]:
    """The epochs of each curve, for each picture."""
    pictures: list[dict[str, list[float]]] = []
    draw = report_curves.draw_training

    def record(found: report_curves.Curves) -> Any:
        pictures.append({name: [epochs for epochs, _ in points] for name, points in found.items()})
        return draw(found)

    monkeypatch.setattr(report_curves, "draw_training", record)
    return pictures


def test_picture_has_all_epochs_of_a_resumed_run(
    tiny: TinyRun, tmp_path: Path, drawn: list[dict[str, list[float]]]
) -> None:
    train(configured(tiny, tmp_path / "run", trainer={"max_epochs": 2}))
    names = ("train/loss", "train/top1", "val/loss", "val/top1")
    assert [[picture[name] for name in names] for picture in drawn] == [4 * [[1]], 4 * [[1, 2]]]
    (tmp_path / "run" / "curves.png").unlink()
    train(configured(tiny, tmp_path / "run", trainer={"max_epochs": 3}), resume="last")
    assert [drawn[-1][name] for name in names] == 4 * [[1, 2, 3]]
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_fails_does_not_stop_the_training(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise OSError("no space")

    monkeypatch.setattr(figures, "save_png", refuse)
    result = train(configured(tiny, tmp_path / "run"))
    assert result.best_checkpoint.is_file()
    warning = f"warning: the curves of {tmp_path / 'run'} cannot be drawn (no space)\n"
    assert capsys.readouterr().err.count(warning) == 1


def test_pictures_follow_validations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = SimpleNamespace(is_global_zero=True, current_epoch=0, check_val_every_n_epoch=4)
    drawn: list[int] = []
    monkeypatch.setattr(figures, "save_png", lambda *_: drawn.append(trainer.current_epoch))
    for trainer.current_epoch in range(12):
        Curves(tmp_path).on_train_epoch_start(trainer, None)
    Curves(tmp_path).on_train_end(trainer, None)
    assert drawn == [4, 8, 11]
