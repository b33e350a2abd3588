"""Validation over several views a video: top-1, top-5 and loss, computed by hand from a table of logits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dnl_video.config import OptimConfig, TrainConfig, ViewsConfig
from dnl_video.data.dataset import VideoViews
from dnl_video.spec import ModelSpec
from dnl_video.training.module import VideoTrainingModule

VIDEOS, VIEWS = 23, 6


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def figures(scores: np.ndarray, labels: np.ndarray, k: int) -> tuple[float, float, float]:
    """Return top-1, top-k and the mean negative logarithm of the label's score."""
    order = np.argsort(-scores, axis=1)
    own = scores[np.arange(len(labels)), labels]
    top1, topk = (np.mean([label in row[:n] for row, label in zip(order, labels, strict=True)]) for n in (1, k))
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(top1), float(topk), float(-np.log(own).mean())


def validated(
    logits: np.ndarray, labels: np.ndarray, monkeypatch: Any, rows_of_views: tuple[int, ...] | None = None
) -> tuple[float, float, float]:
    """Validate videos whose distinct view v is filled with the number of a row of ``logits``, [VIDEOS, U, K]."""
    distinct = logits.shape[1]
    classes = logits.shape[2]
    config = TrainConfig(
        model=ModelSpec("slow_r50", "none", classes, stem_channels=8),
        optim=OptimConfig(label_smoothing=0.3),  # not part of the loss of validation
        validation=ViewsConfig(num_clips=2, num_crops=3, views_per_forward=4),
    )
    module = VideoTrainingModule(config, [str(i) for i in range(classes)]).eval()
    rows = torch.from_numpy(logits.reshape(-1, classes)).float()
    seen: list[int] = []

    def network(clips: torch.Tensor) -> torch.Tensor:
        assert len(clips) <= 4
        seen.extend(found := ((0.225 * clips.mean(dim=(1, 2, 3, 4)) + 0.45) * 255).round().long().tolist())
        return rows[found]

    monkeypatch.setattr(module.network, "forward", network)
    logged: dict[str, Any] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **options: logged.update({name: value}))
    # The list of a validation has other videos too; they have other labels.
    records = [SimpleNamespace(label=(label + 1) % classes) for label in labels]
    records += [SimpleNamespace(label=label) for label in labels]
    module.trainer = SimpleNamespace(datamodule=SimpleNamespace(val=SimpleNamespace(records=records)))
    batches: list[list[VideoViews]] = [[]]
    for video in range(VIDEOS):
        numbers = torch.arange(distinct * video, distinct * (video + 1), dtype=torch.uint8)
        views = numbers[:, None, None, None, None].expand(-1, 2, 4, 4, 3)
        times = np.zeros(2)
        batches[-1].append(VideoViews(VIDEOS + video, views, times, times, None, rows_of_views))
        if video % 4 == 1:
            batches[-1].append(VideoViews(0, None, times, times, "cannot be decoded"))
        if video % 4 == 3:
            batches.append([])
    with torch.no_grad():
        for number, batch in enumerate([*batches, []]):
            module.validation_step(batch, number)
    assert seen == list(range(distinct * VIDEOS))
    # Top-5 of up to five classes would always be right.
    assert logged.keys() == {"val/top1", "val/loss", *(["val/top5"] if classes > 5 else [])}
    assert logged["val/top1"] is module.val_top1
    assert logged.get("val/top5") is module.val_top5
    assert logged["val/loss"] is module.val_loss
    values = {name.partition("/")[2]: float(metric.compute()) for name, metric in logged.items()}
    return values["top1"], values.get("top5", 1.0), values["loss"]


@pytest.mark.parametrize("classes", [9, 3])
def test_scores_are_the_mean_of_softmax_over_all_views(classes: int, monkeypatch: Any) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=3, size=(VIDEOS, VIEWS, classes)) * rng.uniform(0.2, 2, size=(VIDEOS, VIEWS, 1))
    labels = rng.integers(classes, size=VIDEOS)
    logits[np.arange(VIDEOS), 0, labels] += 4
    k = min(5, classes)
    found = validated(logits, labels, monkeypatch)
    assert found == pytest.approx(figures(softmax(logits).mean(axis=1), labels, k), rel=1e-5)
    # Other rules give other figures for these logits.
    probabilities = softmax(logits)
    others = {
        "mean of logits": softmax(logits.mean(axis=1)),
        "maximum": probabilities.max(axis=1),
        "first view": probabilities[:, 0],
    }
    for name, scores in others.items():
        for i in (0, 2):
            assert figures(scores, labels, k)[i] != pytest.approx(found[i], rel=1e-3), name


def test_equal_views_are_computed_once_and_count_as_often_as_they_occur(monkeypatch: Any) -> None:
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(scale=3, size=(VIDEOS, 3, 9)), rng.integers(9, size=VIDEOS)
    rows = (0, 0, 0, 2, 0, 1)
    found = validated(logits, labels, monkeypatch, rows)
    expected = figures(softmax(logits)[:, rows].mean(axis=1), labels, 5)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(figures(softmax(logits).mean(axis=1), labels, 5), rel=1e-3)
