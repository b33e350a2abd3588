from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dnl_video.data.samplers import ClipBatchSampler, ShardBatchSampler, shard
from dnl_video.errors import InputError


def test_an_epoch_is_a_permutation_and_epochs_differ() -> None:
    sampler = ClipBatchSampler(12, 4, seed=0)
    first = list(itertools.chain(*sampler))
    sampler.epoch = 1
    second = list(itertools.chain(*sampler))
    assert sorted(i for _, i in first) == sorted(i for _, i in second) == list(range(12))
    assert {e for e, _ in first} == {0}
    assert {e for e, _ in second} == {1}
    assert [i for _, i in first] != [i for _, i in second]


def test_processes_share_the_batches_of_one_process() -> None:
    whole = list(ClipBatchSampler(25, 6, seed=3))
    parts = [list(ClipBatchSampler(25, 3, seed=3, rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 4
    for batch, a, b in zip(whole, *parts, strict=True):
        assert sorted(batch) == sorted(a + b)
        assert not set(a) & set(b)


@pytest.mark.parametrize(("videos", "steps"), [(25, 4), (29, 4), (30, 5)])
def test_accumulated_batches_are_one_batch_and_the_last_step_is_as_large(videos: int, steps: int) -> None:
    whole = list(ClipBatchSampler(videos, 6, seed=3))
    parts = list(ClipBatchSampler(videos, 2, seed=3, accumulate=3))
    assert len(whole) == steps
    assert len(parts) == 3 * steps
    assert [list(itertools.chain(*parts[3 * i : 3 * i + 3])) for i in range(steps)] == whole


def test_too_few_videos() -> None:
    with pytest.raises(InputError) as refused:
        ClipBatchSampler(7, 4, seed=0, world_size=2)
    assert str(refused.value) == (
        "7 training videos make no step of 8 (4 a batch x 2 process(es)); lower data.batch_size, or give more videos"
    )
    with pytest.raises(InputError) as refused:
        ClipBatchSampler(23, 4, seed=0, world_size=2, accumulate=3)
    assert str(refused.value) == (
        "23 training videos make no step of 24 (4 a batch x 2 process(es) x 3 accumulated batches); lower "
        "data.batch_size or trainer.accumulate_grad_batches, or give more videos"
    )


@pytest.mark.parametrize(("videos", "world_size"), [(10, 3), (2, 4), (0, 2)])
def test_shards_cover_every_video_once(videos: int, world_size: int) -> None:
    shards = [shard(videos, rank, world_size) for rank in range(world_size)]
    assert sorted(itertools.chain(*shards)) == list(range(videos))


@pytest.mark.parametrize(("videos", "world_size", "batches"), [(9, 2, 2), (1, 2, 1), (3, 2, 1), (17, 4, 2), (8, 1, 2)])
def test_every_process_has_as_many_batches_and_every_video_comes_once(
    videos: int, world_size: int, batches: int
) -> None:
    samplers = [ShardBatchSampler(videos, 4, rank=rank, world_size=world_size) for rank in range(world_size)]
    given = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(own) for own in given] == [batches] * world_size
    assert sorted(itertools.chain(*itertools.chain(*given))) == list(range(videos))
    for rank, own in enumerate(given):
        assert list(itertools.chain(*own)) == list(shard(videos, rank, world_size))


def test_order_does_not_touch_global_random_state() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    list(ClipBatchSampler(11, 3, seed=5))
    assert (torch.rand(1), np.random.rand()) == before
