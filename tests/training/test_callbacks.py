"""Precise batch norm, EMA weights, and the stop at a NaN loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from dnl_video.data.transforms import normalize
from dnl_video.errors import InputError
from dnl_video.models.weights.checkpoint import NETWORK_PREFIX, load_checkpoint
from dnl_video.models.weights.find import find_checkpoint
from dnl_video.training.callbacks import PreciseBatchNorm
from dnl_video.training.checkpoint_callbacks import LastCheckpoint
from dnl_video.training.run import train
from tests.conftest import TinyRun
from tests.test_recipes import load
from tests.training.runs import check_logged_top1, configured, data_of, fit, logged

DECAY = 0.7
Averaged = tuple[Path, list[dict[str, torch.Tensor]]]


class StatisticsAtValidation(Callback):
    """Keeps the batch-norm statistics, the global random state and the module modes at validation."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        network = pl_module.network
        self.norm = next(m for m in network.modules() if isinstance(m, nn.BatchNorm3d))
        self.mean, self.var = self.norm.running_mean.clone(), self.norm.running_var.clone()
        self.random = torch.get_rng_state()
        self.all_eval = not any(m.training for m in network.modules())


def stem_outputs(conv: Any, batches: Iterable[Any]) -> torch.Tensor:
    """Return the input of the stem's batch norm for the clips of some batches, float64 [C, values]."""
    outputs = [conv(normalize(batch["clip"], (0.45,) * 3, (0.225,) * 3)).detach().double() for batch in batches]
    return torch.cat(outputs).transpose(0, 1).flatten(1)


def test_precise_statistics_equal_those_of_the_training_clips(tiny: TinyRun) -> None:
    config = load(tiny.config)
    config.optim.lr = 1e-9
    seen = StatisticsAtValidation()
    module = fit(config, PreciseBatchNorm(100), seen)
    # The input of the stem's batch norm is the stem convolution of every clip; its weights hardly changed.
    values = stem_outputs(module.network.blocks[0].conv, data_of(config).precise_bn_dataloader(0))  # type: ignore
    torch.testing.assert_close(seen.mean.double(), values.mean(dim=1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen.var.double(), values.var(dim=1), rtol=1e-2, atol=1e-4)
    assert seen.all_eval


def test_precise_batch_norm_keeps_random_state_and_weights(tiny: TinyRun) -> None:
    config = load(tiny.config)
    config.model = dataclasses.replace(config.model, dropout=0.5)
    with_it, without = StatisticsAtValidation(), StatisticsAtValidation()
    a = fit(config, PreciseBatchNorm(2), with_it)
    b = fit(config, without)
    assert torch.equal(with_it.random, without.random)
    assert not torch.equal(with_it.mean, without.mean)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_precise_statistics_take_other_clips_in_every_epoch(tiny: TinyRun) -> None:
    data = data_of(load(tiny.config))

    def order(batches: Iterable[Any]) -> tuple[int, ...]:
        return tuple(index for batch in batches for index in batch["index"].tolist())

    training = order(data.train_dataloader())
    precise = [order(data.precise_bn_dataloader(epoch)) for epoch in (0, 1, 0)]
    assert precise[0] == precise[2]
    assert len({training, *precise}) == 3
    assert {len(set(found)) for found in (training, *precise)} == {16}


def test_buffers_stay_the_same_tensors(tiny: TinyRun) -> None:
    # DDP and the optimiser refer to them; fvcore assigns new tensors.
    class Watch(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            self.before = [b.data_ptr() for b in pl_module.network.buffers()]

    watch = Watch()
    module = fit(load(tiny.config), watch, PreciseBatchNorm(1))
    assert watch.before == [b.data_ptr() for b in module.network.buffers()]


def test_validation_equals_the_final_evaluation(tiny: TinyRun, tmp_path: Path) -> None:
    check_logged_top1(tiny.run, tiny, tmp_path / "out")


def test_nan_loss_stops_before_the_step_and_names_the_videos(tiny: TinyRun) -> None:
    class Poison(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                records = trainer.datamodule.train.records  # type: ignore[attr-defined]
                self.videos = [records[i].video_id for i in batch["index"].tolist()]
                torch.nn.init.constant_(pl_module.network.blocks[-1].proj.bias, float("nan"))
                self.before = [p.clone() for p in pl_module.parameters()]
                self.module = pl_module

    poison = Poison()
    with pytest.raises(InputError, match=r"the loss is nan in epoch 1, step 2, of videos .*; lower optim.lr") as error:
        fit(load(tiny.config), poison)
    assert all(video in str(error.value) for video in poison.videos)
    after = poison.module.parameters()
    assert all(torch.equal(a, b) or b.isnan().any() for a, b in zip(poison.before, after, strict=True))


def test_precise_batch_norm_keeps_frozen_statistics(tiny: TinyRun) -> None:
    config = load(tiny.config)
    config.optim.freeze_batch_norm = True
    module = fit(config, PreciseBatchNorm(2))
    stem = module.network.blocks[0].norm  # type: ignore[union-attr]
    assert torch.equal(stem.running_mean, torch.zeros_like(stem.running_mean))
    block = module.network.blocks[3].context_blocks["1"].norm  # type: ignore[union-attr, index]
    assert not torch.equal(block.running_mean, torch.zeros_like(block.running_mean))


@pytest.fixture(scope="module")
def averaged(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Averaged:
    """A run of two epochs, and its trained weights after each optimiser step."""
    output = tmp_path_factory.mktemp("averaged") / "run"
    # A high learning rate, so that the average and the weights give different predictions.
    trainer = {"max_epochs": 2, "accumulate_grad_batches": 2, "check_val_every_n_epoch": 2}
    views = {"num_clips": 2, "num_crops": 3, "views_per_forward": 4}
    config = configured(tiny, output, optim={"ema_decay": DECAY, "lr": 0.2}, trainer=trainer, validation=views)
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
    predictions = check_logged_top1(output, tiny, tmp_path / "out", clips=2, crops=3)
    # The accuracy of eight videos is coarse; the logged loss depends on all scores.
    own = predictions.scores[range(len(predictions.label)), predictions.label]
    (loss,) = logged(output, "val/loss").values()
    assert loss == pytest.approx(float(-torch.tensor(own).double().log().mean()), rel=1e-3)


def test_precise_statistics_belong_to_the_ema_weights(averaged: Averaged, tiny: TinyRun) -> None:
    output, _ = averaged
    stem = load_checkpoint(output).build().blocks[0]
    batch = next(iter(data_of(load(tiny.config)).precise_bn_dataloader(1)))
    mean = stem_outputs(stem.conv, [batch]).mean(dim=1)
    torch.testing.assert_close(stem.norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
    # The trained network keeps its own statistics.
    raw = torch.load(find_checkpoint(output, last=True), weights_only=True)
    trained = raw["current_model_state"][f"{NETWORK_PREFIX}blocks.0.norm.running_mean"]
    assert not torch.allclose(trained.double(), mean, rtol=1e-2, atol=1e-3)
