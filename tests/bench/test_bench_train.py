from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import train
from dnl_video.models.build import build_model
from dnl_video.training.optim import make_optimizer
from tests.conftest import TinyRun
from train_steps import STAGES, Steps, TrainCase, VideoBatches, synthetic_batches

CPU = torch.device("cpu")
SMALL = TrainCase(context="none", batch=2, frames=2, size=32, stem_channels=8, num_classes=5)


def test_steps_train_like_plain_torch() -> None:
    """Compared with the same two steps in plain torch; equal seeds give equal dropout."""
    config = SMALL.config()
    torch.manual_seed(0)
    network = build_model(config.model).train()
    optimizer = make_optimizer(network, config.optim, 1e-4)
    steps = Steps(SMALL, CPU)
    batch = next(synthetic_batches(SMALL, CPU))
    clips = (batch["clip"].permute(0, 4, 1, 2, 3).float() / 255 - 0.45) / 0.225
    torch.manual_seed(7)
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(network(clips), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.manual_seed(7)
    steps.run(2)
    for name, value in steps.module.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_waiting_for_a_batch_counts_as_data() -> None:
    def slow() -> Iterator[dict[str, Any]]:
        for batch in synthetic_batches(SMALL, CPU):
            time.sleep(0.3)
            yield batch

    seconds = Steps(SMALL, CPU, slow()).run(2)
    assert tuple(seconds) == STAGES
    assert seconds["data"] >= 0.3
    assert all(seconds[stage] > 0 for stage in STAGES)


def test_a_nan_loss_is_an_error() -> None:
    steps = Steps(SMALL, CPU)
    torch.nn.init.constant_(steps.module.network.blocks[-1].proj.bias, float("nan"))  # type: ignore[union-attr, arg-type]
    with pytest.raises(RuntimeError, match="the loss is nan in a measured step"):
        steps.run(1)


def test_medians_and_what_blocks_add(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted seconds: every third round is slower for all cases; the ratio stays."""
    turns: list[str] = []
    factors = {"none": 1.0, "dnl": 1.25}

    class Planted:
        def __init__(self, case: TrainCase, device: torch.device, batches: object) -> None:
            self.case, self.device, self.rounds = case, device, itertools.count()

        def run(self, count: int) -> dict[str, float]:
            turns.append(self.case.context)
            factor = factors[self.case.context] * (3.0 if next(self.rounds) % 3 == 2 else 1.0)
            return dict.fromkeys(STAGES, 0.0) | {"forward": 0.4 * factor, "backward": 0.6 * factor}

    monkeypatch.setattr(train, "Steps", Planted)
    cases = [SMALL, dataclasses.replace(SMALL, context="dnl")]
    bare, dnl = train.measure_training(cases, CPU, steps=1, repeats=5, budget_s=1e9, memory=False)
    assert (bare.step_s, bare.added, bare.clips_per_s) == (pytest.approx(1.0), None, pytest.approx(2.0))
    assert (dnl.step_s, dnl.added) == (pytest.approx(1.25), pytest.approx(0.2))
    assert dnl.stages_s["backward"] == pytest.approx(0.75)
    assert turns[:2] == ["none", "dnl"]
    assert all(sorted(turns[i : i + 2]) == ["dnl", "none"] for i in range(2, 12, 2))


def test_batches_of_videos_come_from_the_loader_and_are_endless(tiny: TinyRun) -> None:
    videos = VideoBatches(str(tiny.train), batch=4, frames=2, size=32, num_workers=0)
    batches = list(itertools.islice(videos.batches, 6))  # four an epoch
    assert {tuple(batch["clip"].shape) for batch in batches} == {(4, 2, 32, 32, 3)}
    assert sorted(i for batch in batches[:4] for i in batch["index"].tolist()) == list(range(16))
    assert (videos.stock, videos.num_classes) == (0, 8)


def test_modes_have_names() -> None:
    assert SMALL.mode == "eager"
    both = dataclasses.replace(SMALL, compiled=True, checkpointed=True, channels_last=True)
    assert both.mode == "compiled channels_last checkpointed"
    trainer = both.config().trainer
    assert (trainer.compile, trainer.activation_checkpointing, trainer.channels_last) == (True, True, True)
