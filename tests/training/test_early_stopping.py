"""Early stopping: the count of validations, resume, and what a stopped run says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dnl_video.cli.main import main
from dnl_video.errors import InputError
from dnl_video.training.checkpoint_callbacks import BestCheckpoint
from dnl_video.training.run import train
from tests.cli.test_show import show
from tests.conftest import TinyRun
from tests.training.runs import configured, logged

# Epoch by epoch: validation top-1 and loss, and the validations since the last better one.
VALIDATIONS = [(0.5, 1.0, 0), (0.5, 1.1, 1), (0.5, 0.9, 0), (0.5, 0.9, 1), (0.4, 0.1, 2), (0.3, 0.1, 3), (0.6, 9.0, 0)]


class AfterValidation:
    """A trainer after a validation."""

    is_global_zero = True
    should_stop = False
    check_val_every_n_epoch = 4

    def __init__(self, validation: int, top1: float, loss: float) -> None:
        self.current_epoch = 4 * validation + 3
        self.callback_metrics = {"val/top1": torch.tensor(top1), "val/loss": torch.tensor(loss)}

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        pass


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(("patience", "stops"), [(1, [1, 3, 4, 5]), (2, [4, 5]), (3, [5]), (4, []), (None, [])])
def test_the_count_of_validations(patience: int | None, stops: list[int], resumed: bool, tmp_path: Path) -> None:
    best, stopped = BestCheckpoint(tmp_path, patience), []
    for epoch, (top1, loss, waited) in enumerate(VALIDATIONS):
        trainer: Any = AfterValidation(epoch, top1, loss)
        best.on_validation_end(trainer, Any)
        if resumed:  # from a checkpoint of this validation, which is repeated
            state = best.state_dict()
            best = BestCheckpoint(tmp_path, patience)
            best.load_state_dict(state)
            best.on_validation_end(trainer, Any)
        assert best.state_dict()["waited"] == waited
        assert best.state_dict()["improved"] == 4 * (epoch + 1 - waited)
        stopped += [epoch] if trainer.should_stop else []
    assert stopped == stops


def test_a_run_of_an_earlier_version_starts_to_count(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, 1)
    best.load_state_dict({"name": "best-epoch000-top1_0.9000.ckpt", "score": (0.9, -1.0)})
    for validation, stops in ((5, False), (6, True)):
        trainer: Any = AfterValidation(validation, 0.5, 1.0)
        best.on_validation_end(trainer, Any)
        assert trainer.should_stop is stops


def test_a_run_stopped_early_is_finished_until_its_patience_is_raised(
    tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    # Weights that do not change give the same validation in every epoch.
    still = ["--optim.lr", "1e-12", "--optim.freeze_batch_norm", "true", "--optim.precise_bn_batches", "0"]
    still += ["--trainer.check_val_every_n_epoch", "1", "--trainer.max_epochs", "5", "--model.context", "gc"]
    words = ["train", "--config", str(tiny.config), "--output", str(output), *still, "--trainer.patience"]

    def printed(*more: str) -> list[str]:
        capsys.readouterr()
        assert main([*words, *more]) == 0
        return capsys.readouterr().out.splitlines()

    since = "stopped early: no better validation since epoch 1"
    assert since in printed("2")
    assert len(logged(output, "val/top1")) == 3
    facts = show(capsys, output)
    assert facts["finished"] is True
    assert facts["progress"]["stopped early"] == "no better validation since epoch 1"
    before = sorted(output.rglob("*"))
    for more in ([], ["--dry-run"]):
        first, *_ = printed("2", "--resume", *more)
        assert first == f"{output}: {since} (3/5 epochs); raise trainer.patience to continue"
    assert sorted(output.rglob("*")) == before
    # The count goes on: one more validation, not three.
    assert since in printed("3", "--resume")
    assert len(logged(output, "val/top1", "csv-resumed-1")) == 1
    assert not [line for line in printed("null", "--resume") if "stopped early" in line]
    assert printed("2", "--resume")[0] == f"{output}: finished (5/5 epochs); raise trainer.max_epochs to continue"


def test_patience_without_validation_is_refused(tiny: TinyRun, tmp_path: Path) -> None:
    config = configured(tiny, tmp_path, trainer={"patience": 2}, data={"val_manifest": None})
    with pytest.raises(InputError, match=r"trainer\.patience is 2, but data\.val_manifest is null; give a list, or no"):
        train(config)
