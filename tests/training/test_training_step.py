"""One training step, with a table of logits in place of the network: loss, running top-1, randomness and schedule."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dnl_video.config import DataConfig, OptimConfig, TrainConfig, TrainerConfig
from dnl_video.errors import InputError
from dnl_video.spec import ModelSpec, Preprocessing
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.optim import lr_factor

RIGHT = torch.tensor([[5.0, 0, 0], [0, 5, 0], [0, 0, 5], [5, 0, 0]])
LABELS = torch.tensor([0, 1, 2, 1])  # three of four are right


class Steps:
    """Runs training steps of a module; keeps what it logs and the random numbers that its network draws."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> None:
        config = TrainConfig(model=ModelSpec("slow_r50", "none", 3, stem_channels=8), seed=3, **sections)
        self.module = VideoTrainingModule(config, ["a", "b", "c"])
        records = [SimpleNamespace(video_id=f"video{i}") for i in range(9)]
        self.trainer: Any = SimpleNamespace(
            datamodule=SimpleNamespace(train=SimpleNamespace(records=records)),
            current_epoch=0,
            global_step=6,
            global_rank=0,
            world_size=2,
            accumulate_grad_batches=config.trainer.accumulate_grad_batches,
            estimated_stepping_batches=40,
            default_root_dir="/nowhere",
        )
        self.module.trainer = self.trainer
        self.logits = RIGHT
        self.draws: list[float] = []
        self.logged: dict[str, Any] = {}
        monkeypatch.setattr(self.module.network, "forward", self.forward)
        monkeypatch.setattr(self.module, "log", lambda name, value, **options: self.logged.update({name: value}))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        self.draws.append(float(torch.rand(1)))
        return self.logits

    def __call__(self, batch_idx: int = 0) -> float:
        clips = torch.zeros(4, 2, 4, 4, 3, dtype=torch.uint8)
        batch = {"clip": clips, "label": LABELS, "index": torch.tensor([8, 0, 5, 0])}
        return float(self.module.training_step(batch, batch_idx))


def test_running_top1_counts_the_clips_of_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Steps(monkeypatch)
    assert step.module.running_top1() == 0
    step()
    step.logits = RIGHT.roll(1, 1)  # only the last clip is right
    step(1)
    assert step.module.running_top1() == 0.5
    step.module.on_train_epoch_start()
    assert step.module.running_top1() == 0
    step(0)
    assert step.module.running_top1() == 0.25


@pytest.mark.parametrize(("value", "word"), [(float("inf"), "inf"), (float("nan"), "nan")])
def test_a_loss_that_is_not_finite_names_the_videos(value: float, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Steps(monkeypatch)
    step.logits = RIGHT.clone()
    step.logits[1, 1] = -value
    with pytest.raises(
        InputError, match=rf"^the loss is {word} in epoch 1, step 7, of videos video8, video0, video5; "
    ):
        step()


def test_random_numbers_depend_on_epoch_batch_and_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Steps(monkeypatch)
    for epoch, batch, rank in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)):
        step.trainer.current_epoch, step.trainer.global_rank = epoch, rank
        step(batch)
    assert step.draws[0] == step.draws[4]
    assert len(set(step.draws)) == 4


def test_the_logged_loss_is_the_mean_of_the_batches_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Steps(monkeypatch, trainer=TrainerConfig(accumulate_grad_batches=3))
    losses = []
    for batch in range(5):
        step.logits = (batch + 1) * RIGHT
        losses.append(step(batch))
        first = batch // 3 * 3
        expected = sum(losses[first:]) / (batch + 1 - first)
        assert float(step.logged["train/loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(step.logged["train/loss_epoch"].compute()) == pytest.approx(sum(losses) / 5, rel=1e-5)


def test_the_schedule_counts_steps_and_the_learning_rate_all_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    optim = OptimConfig(lr=0.1, lr_batch=8, warmup_epochs=1)
    trainer = TrainerConfig(accumulate_grad_batches=3, max_epochs=4)
    module = Steps(monkeypatch, optim=optim, trainer=trainer, data=DataConfig(batch_size=4)).module
    assert module.clips_per_step == 4 * 2 * 3
    found = module.configure_optimizers()
    assert found["lr_scheduler"]["interval"] == "step"
    schedule = found["lr_scheduler"]["scheduler"]
    assert schedule.base_lrs[0] == pytest.approx(0.1 * 24 / 8)
    for steps in (0, 5, 25, 40):
        assert schedule.lr_lambdas[0](steps) == pytest.approx(lr_factor(steps / 10, optim, 4))


def test_clips_are_normalised_in_the_order_of_the_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.2), channel_order="bgr")
    red = torch.tensor([255, 0, 51], dtype=torch.uint8).expand(1, 2, 4, 4, 3)
    found = Steps(monkeypatch, preprocessing=preprocessing).module.normalized(red)
    assert found.shape == (1, 3, 2, 4, 4)
    assert found[0, :, 1, 2, 3].tolist() == pytest.approx([(0.2 - 0.1) / 0.5, -0.2 / 0.4, (1 - 0.3) / 0.2])
