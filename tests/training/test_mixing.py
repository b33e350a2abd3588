"""Mixup and CutMix: clips, labels, randomness, loss and resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dnl_video.config import AugmentConfig
from dnl_video.training import mixing
from dnl_video.training.mixing import mix
from dnl_video.training.module import VideoTrainingModule
from dnl_video.training.run import train
from tests.conftest import REPOSITORY, TinyRun
from tests.test_recipes import load
from tests.training.runs import configured, final_weights, interrupted

LABELS = torch.tensor([3, 1, 4, 1, 5])
CLIPS = torch.randn(5, 3, 2, 8, 10, generator=torch.Generator().manual_seed(0))
KEY: dict[str, int] = {"seed": 0, "epoch": 2, "batch": 7}


def one_hot() -> torch.Tensor:
    return F.one_hot(LABELS, 6).float()


def mixed_with(mixup: float = 0.0, cutmix: float = 0.0, prob: float = 1.0, **key: int) -> tuple[Any, Any]:
    return mix(CLIPS, LABELS, AugmentConfig(mixup=mixup, cutmix=cutmix, mix_prob=prob), 6, **(KEY | key))


def test_mixup_weights_clips_and_labels_equally() -> None:
    shares = []
    for batch in range(50):
        clips, soft = mixed_with(mixup=0.8, batch=batch)
        share = float(soft[0, 3])  # clip 0 is of class 3, its predecessor of class 5
        shares.append(share)
        assert torch.allclose(clips, share * CLIPS + (1 - share) * CLIPS.roll(1, 0), atol=1e-5)
        assert torch.allclose(soft, share * one_hot() + (1 - share) * one_hot().roll(1, 0), atol=1e-6)
    # Beta(0.8, 0.8) has mean 1/2 and variance 1 / (4 * 2.6).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.15)
    assert np.std(shares) == pytest.approx(0.31, abs=0.08)


def test_cutmix_copies_one_box_of_the_predecessor_in_all_frames() -> None:
    for batch in range(20):
        clips, soft = mixed_with(cutmix=1.0, batch=batch)
        replaced = (clips == CLIPS.roll(1, 0)).all(dim=1)  # [B, T, H, W]
        assert (replaced == replaced[0, 0]).all()
        assert torch.equal(clips, torch.where(replaced[:, None], CLIPS.roll(1, 0), CLIPS))
        share = 1 - replaced[0, 0].float().mean()
        assert torch.allclose(soft, share * one_hot() + (1 - share) * one_hot().roll(1, 0), atol=1e-6)
        rows, columns = torch.where(replaced[0, 0])
        if len(rows):
            assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


def test_mixup_and_cutmix_alternate_and_mix_prob_skips_batches() -> None:
    kinds = {"mixup": 0, "cutmix": 0, "none": 0}
    for batch in range(200):
        clips, target = mixed_with(mixup=1.0, cutmix=1.0, prob=0.6, batch=batch)
        if target.ndim == 1:
            assert clips is CLIPS
            assert target is LABELS
            kinds["none"] += 1
        else:
            whole = ((clips == CLIPS) | (clips == CLIPS.roll(1, 0))).all()
            kinds["cutmix" if whole else "mixup"] += 1
    assert kinds["none"] == pytest.approx(80, abs=25)
    assert kinds["mixup"] == pytest.approx(60, abs=25)
    assert kinds["cutmix"] == pytest.approx(60, abs=25)


def test_each_kind_has_its_own_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def recorded(kind: Any) -> Any:
        def make(*, alpha: float, num_classes: int) -> Any:
            seen.add((kind.__name__, alpha))
            return kind(alpha=alpha, num_classes=num_classes)

        return make

    kinds = SimpleNamespace(MixUp=recorded(mixing.v2.MixUp), CutMix=recorded(mixing.v2.CutMix))
    monkeypatch.setattr(mixing, "v2", kinds)
    for batch in range(20):
        mixed_with(mixup=0.8, cutmix=0.3, batch=batch)
    assert seen == {("MixUp", 0.8), ("CutMix", 0.3)}


def test_no_mixing_when_off_or_with_a_single_clip() -> None:
    clips, target = mixed_with()
    assert clips is CLIPS
    assert target is LABELS
    alone = mix(CLIPS[:1], LABELS[:1], AugmentConfig(mixup=1.0), 6, **KEY)
    assert torch.equal(alone[0], CLIPS[:1])
    assert alone[1].tolist() == [3]


def test_mixing_is_a_function_of_seed_epoch_and_batch() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = mixed_with(mixup=0.8)
    assert torch.equal(torch.rand(2), expected), "the global random state changed"
    again = mixed_with(mixup=0.8)
    assert torch.equal(first[0], again[0])
    assert type(first[0]) is torch.Tensor
    others = [mixed_with(mixup=0.8, **change)[1] for change in ({"seed": 1}, {"epoch": 3}, {"batch": 8})]
    assert all(not torch.equal(first[1], other) for other in others)


def test_training_step_uses_soft_labels_and_counts_the_larger_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = load(REPOSITORY / "configs" / "demo" / "slow_dnl.yaml")
    config.optim = dataclasses.replace(config.optim, label_smoothing=0.1)
    config.augment = dataclasses.replace(config.augment, mixup=0.8)
    torch.manual_seed(0)
    module = VideoTrainingModule(config, [str(i) for i in range(8)])
    monkeypatch.setattr(module, "log", lambda *args, **options: None)
    logits = torch.randn(3, 8)
    seen = []
    monkeypatch.setattr(module.network, "forward", lambda clips: seen.append(clips) or logits)
    labels = torch.tensor([0, 5, 2])
    clip = torch.randint(0, 256, (3, 4, 16, 16, 3), dtype=torch.uint8)
    loss = module.training_step({"clip": clip, "label": labels}, 4)
    clips, soft = mix(module.normalized(clip), labels, config.augment, 8, seed=0, epoch=0, batch=4)
    assert torch.equal(seen[0], clips)
    smoothed = 0.9 * soft + 0.1 / 8
    assert float(loss) == pytest.approx(float(-(smoothed * logits.log_softmax(dim=1)).sum(dim=1).mean()), rel=1e-5)
    right = (logits.argmax(dim=1) == soft.argmax(dim=1)).float().mean()
    assert float(module.train_top1.compute()) == pytest.approx(float(right))
    assert module.running_top1() == pytest.approx(float(right))


def test_augmented_run_killed_in_an_epoch_ends_with_the_same_weights(tiny: TinyRun, tmp_path: Path) -> None:
    augment = {"crop_area": (0.5, 1.0), "randaugment_ops": 2, "color_jitter": (0.2, 0.2, 0.2, 0.1), "erasing": 0.5}
    changes = {
        "augment": augment | {"mixup": 0.8, "cutmix": 1.0, "repeats": 2},
        "data": {"limit_videos": 8},
        "trainer": {"max_epochs": 2, "save_every_n_steps": 1},
    }
    train(configured(tiny, tmp_path / "whole", **changes))
    config = configured(tiny, tmp_path / "parts", **changes)
    interrupted(config, VideoTrainingModule, "training_step", 6)  # an epoch has four steps
    train(config, resume="last")
    whole, parts = final_weights(tmp_path / "whole"), final_weights(tmp_path / "parts")
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
