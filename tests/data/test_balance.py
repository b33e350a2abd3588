"""Class weights, and the order that draws every class equally often."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from dnl_video.data.balance import balanced_order, class_weights
from dnl_video.data.dataset import ClipBatchSampler

LABELS = np.array([0] * 20 + [1] * 5 + [3] * 2)


def test_class_weights_are_inverse_frequencies_with_mean_one_over_videos():
    weights = class_weights(LABELS.tolist(), 4)
    assert weights.tolist() == pytest.approx([27 / 60, 27 / 15, 0, 27 / 6])
    assert np.mean([weights[label] for label in LABELS]) == pytest.approx(1)
    # Each class has the same sum.
    assert {round(float(weights[label] * count), 4) for label, count in Counter(LABELS).items()} == {9.0}


@pytest.mark.parametrize("size", [2, 3, 26, 27, 100])
def test_classes_and_the_videos_of_a_class_are_drawn_equally_often(size):
    keys = balanced_order(LABELS, size, np.random.default_rng(0))
    draws, videos = np.divmod(keys, len(LABELS))
    per_class = Counter(LABELS[videos])
    assert sum(per_class.values()) == size
    assert max(per_class.values()) - min(per_class[label] for label in (0, 1, 3)) <= 1
    for label in (0, 1, 3):
        counts = [int((videos == video).sum()) for video in np.flatnonzero(label == LABELS)]
        assert max(counts) - min(counts) <= 1
    # The draws of a video are numbered from 0, so that none repeats a clip.
    for video in set(videos):
        assert sorted(draws[videos == video]) == list(range((videos == video).sum()))


def test_the_balanced_order_is_a_function_of_seed_and_epoch():
    orders = {}
    for seed, epoch in itertools.product((0, 1), (0, 1)):
        first, second = (ClipBatchSampler(27, 4, seed=seed, labels=LABELS) for _ in range(2))
        first.epoch = second.epoch = epoch
        assert list(first) == list(second)
        orders[seed, epoch] = tuple(i for _, i in itertools.chain(*first))
    assert len(set(orders.values())) == 4
    assert {len(order) for order in orders.values()} == {24}
    for order in orders.values():
        assert Counter(LABELS[i % 27] for i in order) == {0: 8, 1: 8, 3: 8}


def test_processes_and_accumulated_batches_share_the_balanced_order():
    whole = list(ClipBatchSampler(27, 12, seed=3, labels=LABELS))
    parts = [
        list(ClipBatchSampler(27, 3, seed=3, rank=rank, world_size=2, accumulate=2, labels=LABELS)) for rank in (0, 1)
    ]
    for step, batch in enumerate(whole):
        drawn = [key for part in parts for one in part[2 * step : 2 * step + 2] for key in one]
        assert sorted(drawn) == sorted(batch)


def test_a_resumed_epoch_continues_the_balanced_order():
    sampler = ClipBatchSampler(27, 4, seed=0, labels=LABELS)
    whole = list(sampler)
    sampler.start = 2
    assert list(sampler) == whole[2:]
