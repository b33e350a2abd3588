"""EMA weights: the formula, and their use in validation, evaluation and precise batch norm."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from dnl_video.data.transforms import normalize
from dnl_video.models.weights.checkpoint import NETWORK_PREFIX, find_checkpoint, load_checkpoint
from dnl_video.training.checkpoint_callbacks import LastCheckpoint
from dnl_video.training.run import train
from tests.conftest import TinyRun
from tests.test_recipes import load
from tests.training.runs import check_logged_top1, data_of, logged

DECAY = 0.7
Averaged = tuple[Path, list[dict[str, torch.Tensor]]]


@pytest.fixture(scope="module")
def averaged(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Averaged:
    """A run of two epochs, and its trained weights after each optimiser step."""
    output = tmp_path_factory.mktemp("averaged") / "run"
    config = load(tiny.config)
    config.output_dir = str(output)
    # A high learning rate, so that the average and the weights give different predictions.
    config.optim = dataclasses.replace(config.optim, ema_decay=DECAY, lr=0.2)
    config.trainer = dataclasses.replace(
        config.trainer, max_epochs=2, accumulate_grad_batches=2, progress_bar=False, check_val_every_n_epoch=2
    )
    steps: list[dict[str, torch.Tensor]] = []
    hook = LastCheckpoint.on_train_batch_end

    def recorded(self: LastCheckpoint, trainer: Trainer, module: Any, *args: Any) -> None:
        if trainer.global_step > len(steps):
            steps.append({name: value.detach().clone() for name, value in module.network.named_parameters()})
        hook(self, trainer, module, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_batch_end", recorded)
        train(config)
    return output, steps


def test_ema_follows_the_formula_after_each_step(averaged: Averaged) -> None:
    output, steps = averaged
    assert len(steps) == 4
    raw = torch.load(find_checkpoint(output, last=True), weights_only=True)
    for name in steps[0]:
        expected = steps[0][name].double()
        for step in steps[1:]:
            expected = DECAY * expected + (1 - DECAY) * step[name].double()
        found = raw["state_dict"][NETWORK_PREFIX + name].double()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(raw["current_model_state"][NETWORK_PREFIX + name], steps[-1][name])
    stem = "blocks.0.conv.weight"
    assert not torch.allclose(raw["state_dict"][NETWORK_PREFIX + stem], steps[-1][stem], atol=1e-4)


def test_evaluation_of_the_checkpoint_reproduces_the_logged_values(
    averaged: Averaged, tiny: TinyRun, tmp_path: Path
) -> None:
    output, _ = averaged
    predictions = check_logged_top1(output, tiny, tmp_path / "out")
    # The accuracy of eight videos is coarse; the logged loss depends on all scores.
    own = predictions.scores[range(len(predictions.label)), predictions.label]
    (loss,) = logged(output, "val/loss").values()
    assert loss == pytest.approx(float(-torch.tensor(own).double().log().mean()), rel=1e-3)


def test_precise_statistics_belong_to_the_ema_weights(averaged: Averaged, tiny: TinyRun) -> None:
    output, _ = averaged
    config = load(tiny.config)
    network = load_checkpoint(output).build()
    stem = network.blocks[0]
    batch = next(iter(data_of(config).precise_bn_dataloader(1)))
    values = stem.conv(normalize(batch["clip"], config.preprocessing.mean, config.preprocessing.std))
    mean = values.detach().double().mean(dim=(0, 2, 3, 4))
    torch.testing.assert_close(stem.norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
    # The trained network keeps its own statistics.
    raw = torch.load(find_checkpoint(output, last=True), weights_only=True)
    trained = raw["current_model_state"][f"{NETWORK_PREFIX}blocks.0.norm.running_mean"]
    assert not torch.allclose(trained.double(), mean, rtol=1e-2, atol=1e-3)
