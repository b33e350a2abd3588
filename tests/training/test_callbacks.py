from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from dnl_video.config import TrainConfig
from dnl_video.data.loaders import VideoDataModule
from dnl_video.data.transforms import normalize
from dnl_video.errors import InputError
from dnl_video.training.callbacks import FiniteLoss, PreciseBatchNorm
from dnl_video.training.module import VideoTrainingModule
from tests.conftest import TinyRun
from tests.test_recipes import load


class StatisticsAtValidation(Callback):
    """Keeps what validation sees: batch-norm statistics, global random state, module modes."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        network = pl_module.network
        self.norm = next(m for m in network.modules() if isinstance(m, nn.BatchNorm3d))
        self.mean, self.var = self.norm.running_mean.clone(), self.norm.running_var.clone()
        self.random = torch.get_rng_state()
        self.all_eval = not any(m.training for m in network.modules())


def fit(config: TrainConfig, *callbacks: Callback) -> VideoTrainingModule:
    datamodule = VideoDataModule(config.data, config.preprocessing, config.augment, config.validation, seed=config.seed)
    torch.manual_seed(0)
    assert datamodule.class_names is not None
    module = VideoTrainingModule(config, datamodule.class_names, {})
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=datamodule)
    return module


def test_precise_statistics_are_those_of_the_training_clips(tiny: TinyRun) -> None:
    config = load(tiny.config)
    config.optim.lr = 1e-9
    seen = StatisticsAtValidation()
    module = fit(config, PreciseBatchNorm(100), seen)
    # The stem's batch norm sees the stem convolution of every clip of the stream, weights hardly changed.
    datamodule = VideoDataModule(config.data, config.preprocessing, config.augment, config.validation, seed=config.seed)
    stem = module.network.blocks[0].conv  # type: ignore[union-attr, index]
    outputs = []
    for batch in datamodule.precise_bn_dataloader(0):
        clips = normalize(batch["clip"], config.preprocessing.mean, config.preprocessing.std)
        outputs.append(stem(clips).detach().double())
    values = torch.cat(outputs).transpose(0, 1).flatten(1)
    torch.testing.assert_close(seen.mean.double(), values.mean(dim=1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen.var.double(), values.var(dim=1), rtol=1e-2, atol=1e-4)
    assert seen.all_eval


def test_precise_statistics_leave_random_state_and_weights_alone(tiny: TinyRun) -> None:
    config = load(tiny.config)
    config.model = dataclasses.replace(config.model, dropout=0.5)
    with_it, without = StatisticsAtValidation(), StatisticsAtValidation()
    a = fit(config, PreciseBatchNorm(2), with_it)
    b = fit(config, without)
    assert torch.equal(with_it.random, without.random)
    assert not torch.equal(with_it.mean, without.mean)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_buffers_stay_the_same_tensors(tiny: TinyRun) -> None:
    # DDP and the optimiser hold references; fvcore would bind new tensors.
    class Watch(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            self.before = [b.data_ptr() for b in pl_module.network.buffers()]

    watch = Watch()
    module = fit(load(tiny.config), watch, PreciseBatchNorm(1))
    assert watch.before == [b.data_ptr() for b in module.network.buffers()]


def test_validation_counts_each_video_once_and_equals_the_final_evaluation(tiny: TinyRun, tmp_path: Any) -> None:
    from dnl_video.cli.main import main
    from dnl_video.results.reader import read_predictions

    words = ["--checkpoint", str(tiny.run), "--manifest", str(tiny.val), "--output", str(tmp_path / "out")]
    views = ["--num-clips", "1", "--num-crops", "1", "--num-workers", "0", "--device", "cpu"]
    assert main(["evaluate", *words, *views]) == 0
    predictions = read_predictions(tmp_path / "out")
    top1 = (predictions.scores.argmax(axis=1) == predictions.label).mean()
    name = next((tiny.run / "checkpoints").glob("best-*")).stem
    assert float(name.rpartition("_")[2]) == pytest.approx(top1, abs=1e-4)


def test_a_loss_that_is_no_number_stops_before_the_step_and_names_the_videos(tiny: TinyRun) -> None:
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
        fit(load(tiny.config), poison, FiniteLoss())
    assert all(video in str(error.value) for video in poison.videos)
    after = poison.module.parameters()
    assert all(torch.equal(a, b) or b.isnan().any() for a, b in zip(poison.before, after, strict=True))


def test_precise_statistics_leave_frozen_ones_alone(tiny: TinyRun) -> None:
    config = load(tiny.config)
    config.optim.freeze_batch_norm = True
    module = fit(config, PreciseBatchNorm(2))
    stem = module.network.blocks[0].norm  # type: ignore[union-attr]
    assert torch.equal(stem.running_mean, torch.zeros_like(stem.running_mean))
    block = module.network.blocks[3].context_blocks["1"].norm  # type: ignore[union-attr, index]
    assert not torch.equal(block.running_mean, torch.zeros_like(block.running_mean))
