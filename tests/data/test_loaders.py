from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from dnl_video.config import AugmentConfig, DataConfig, ViewsConfig
from dnl_video.data.dataset import ClipBatchSampler, shard, shard_batches
from dnl_video.data.decoding import VideoDecodeError
from dnl_video.data.loaders import ResumableLoader, VideoDataModule, allowed_failures
from dnl_video.errors import InputError
from dnl_video.spec import Preprocessing


def test_an_epoch_is_a_permutation_and_epochs_differ():
    sampler = ClipBatchSampler(12, 4, seed=0)
    first = list(itertools.chain(*sampler))
    sampler.epoch = 1
    second = list(itertools.chain(*sampler))
    assert sorted(i for _, i in first) == sorted(i for _, i in second) == list(range(12))
    assert {e for e, _ in first} == {0}
    assert {e for e, _ in second} == {1}
    assert [i for _, i in first] != [i for _, i in second]


def test_processes_share_the_batches_of_one_process():
    whole = list(ClipBatchSampler(25, 6, seed=3))
    parts = [list(ClipBatchSampler(25, 3, seed=3, rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 4
    for batch, a, b in zip(whole, *parts, strict=True):
        assert sorted(batch) == sorted(a + b)
        assert not set(a) & set(b)


@pytest.mark.parametrize(("videos", "steps"), [(25, 4), (29, 4), (30, 5)])
def test_accumulated_batches_form_one_batch_and_incomplete_steps_are_dropped(videos, steps):
    whole = list(ClipBatchSampler(videos, 6, seed=3))
    parts = list(ClipBatchSampler(videos, 2, seed=3, accumulate=3))
    assert len(whole) == steps
    assert len(parts) == 3 * steps
    assert [list(itertools.chain(*parts[3 * i : 3 * i + 3])) for i in range(steps)] == whole


@pytest.mark.parametrize(("videos", "accumulate"), [(8, 1), (24, 3)])
def test_a_training_set_of_exactly_one_step(videos, accumulate):
    parts = [ClipBatchSampler(videos, 4, seed=0, rank=r, world_size=2, accumulate=accumulate) for r in (0, 1)]
    assert [len(part) for part in parts] == [accumulate, accumulate]
    batches = [list(part) for part in parts]
    assert {len(batch) for part in batches for batch in part} == {4}
    assert sorted(i for part in batches for batch in part for _, i in batch) == list(range(videos))


def test_every_seed_and_epoch_has_its_own_order():
    orders = set()
    for seed, epoch in itertools.product(range(5), range(5)):
        sampler = ClipBatchSampler(20, 4, seed=seed)
        sampler.epoch = epoch
        orders.add(tuple(i for batch in sampler for _, i in batch))
    assert len(orders) == 25


def test_too_few_videos():
    with pytest.raises(InputError) as refused:
        ClipBatchSampler(7, 4, seed=0, world_size=2)
    assert str(refused.value) == (
        "7 training videos are too few for a step of 8 (4 a batch x 2 process(es)); lower data.batch_size, or "
        "give more videos"
    )
    with pytest.raises(InputError) as refused:
        ClipBatchSampler(23, 4, seed=0, world_size=2, accumulate=3)
    assert str(refused.value) == (
        "23 training videos are too few for a step of 24 (4 a batch x 2 process(es) x 3 accumulated batches); lower "
        "data.batch_size or trainer.accumulate_grad_batches, or give more videos"
    )


@pytest.mark.parametrize(("videos", "world_size"), [(10, 3), (2, 4), (0, 2)])
def test_shards_cover_every_video_once(videos, world_size):
    shards = [shard(videos, rank, world_size) for rank in range(world_size)]
    assert sorted(itertools.chain(*shards)) == list(range(videos))


@pytest.mark.parametrize(("videos", "world_size", "batches"), [(9, 2, 2), (1, 2, 1), (3, 2, 1), (17, 4, 2), (8, 1, 2)])
def test_processes_get_equal_numbers_of_batches_and_each_video_once(videos, world_size, batches):
    shards = [shard_batches(videos, 4, rank, world_size) for rank in range(world_size)]
    assert [len(own) for own in shards] == [batches] * world_size
    assert sorted(itertools.chain(*itertools.chain(*shards))) == list(range(videos))
    for rank, own in enumerate(shards):
        assert list(itertools.chain(*own)) == list(shard(videos, rank, world_size))


def test_order_does_not_touch_global_random_state():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    list(ClipBatchSampler(11, 3, seed=5))
    assert (torch.rand(1), np.random.rand()) == before


class Keys(Dataset[tuple[int, int]]):
    """Returns its keys."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key


def as_list(items: list[Any]) -> list[Any]:
    return items


def loader(workers: int = 0) -> ResumableLoader:
    sampler = ClipBatchSampler(11, 3, seed=5)
    return ResumableLoader(
        Keys(), batch_sampler=sampler, collate_fn=as_list, num_workers=workers, persistent_workers=workers > 0
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_loader_continues_with_the_next_batch(workers):
    reference = loader()
    epochs = [list(reference) for _ in range(3)]
    first = loader(workers)
    list(first)
    iterator = iter(first)
    seen = [next(iterator), next(iterator)]
    state = first.state_dict()
    assert seen == epochs[1][:2]
    assert state == {"epoch": 1, "position": 2}
    second = loader(workers)
    second.load_state_dict(state)
    assert list(second) == epochs[1][2:]
    assert list(second) == epochs[2]


def test_a_state_taken_at_the_end_of_an_epoch_starts_the_next():
    reference = loader()
    epochs = [list(reference) for _ in range(2)]
    # Lightning stops asking after the last batch, so the iterator never runs out.
    first = loader()
    iterator = iter(first)
    for _ in range(len(first)):
        next(iterator)
    second = loader()
    second.load_state_dict(first.state_dict())
    assert list(second) == epochs[1]


def test_length_counts_the_whole_epoch_even_when_resumed():
    resumed = loader()
    resumed.load_state_dict({"epoch": 4, "position": 2})
    assert len(resumed) == 3


@pytest.mark.parametrize(("videos", "share", "allowed"), [(400, 0.02, 8), (10, 0.02, 1), (10, 0.0, 0), (50, 0.02, 1)])
def test_allowed_failures_round_up(videos, share, allowed):
    assert allowed_failures(videos, share) == allowed


@pytest.fixture
def lists(tmp_path) -> DataConfig:
    """Ten training videos of the classes u, x and y, and two validation videos of the class x; each in its folder."""
    lines = {"train": [f"{i}.mp4,{'uxy'[i % 3]}" for i in range(10)], "val": ["10.mp4,x", "11.mp4,x"]}
    for split, rows in lines.items():
        (tmp_path / split).mkdir()
        for row in rows:
            (tmp_path / split / row.split(",")[0]).touch()
        (tmp_path / f"{split}.csv").write_text("\n".join(["path,label", *rows]))
    train, val = tmp_path / "train", tmp_path / "val"
    return DataConfig(f"{train}.csv", f"{val}.csv", str(train), str(val), batch_size=2, max_failed_share=0.1)


def module_of(data: DataConfig) -> VideoDataModule:
    return VideoDataModule(data, Preprocessing(), AugmentConfig(), ViewsConfig(), seed=0)


def test_each_list_has_its_folder_and_both_the_classes_of_training(lists, tmp_path):
    module = module_of(lists)
    assert module.class_names == ("u", "x", "y")
    assert [record.label for record in module.train.records] == [i % 3 for i in range(10)]
    assert [(r.path, r.label) for r in module.val.records] == [(f"{tmp_path}/val/{i}.mp4", 1) for i in (10, 11)]


def test_videos_that_are_missing(lists, tmp_path):
    (tmp_path / "train" / "4.mp4").unlink()
    module = module_of(lists)
    assert [record.path for record in module.train_missing] == [f"{tmp_path}/train/4.mp4"]
    assert [int(record.path.split("/")[-1][0]) for record in module.train_records] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert len(module.train.records) == 10
    (tmp_path / "train" / "7.mp4").unlink()
    with pytest.raises(InputError, match=r"^2 of 10 videos of .*train\.csv are not on disk \(allowed: 1\): .*4\.mp4, "):
        module_of(lists)


def test_loaders_follow_configuration_trainer_and_earlier_crashes(lists, tmp_path):
    data = dataclasses.replace(lists, num_workers=0)
    views = ViewsConfig(num_clips=2, num_crops=3)
    module = VideoDataModule(data, Preprocessing(), AugmentConfig(), views, seed=0)
    module.crashed = {f"{tmp_path}/{name}": "crashed earlier" for name in ("train/3.mp4", "val/11.mp4")}
    module.trainer = SimpleNamespace(accumulate_grad_batches=3, global_rank=0, world_size=1, num_devices=1)
    training, validation = module.train_dataloader(), module.val_dataloader()
    assert len(training) == 3  # 10 videos, and a step takes three batches of 2
    assert [list(batch) for batch in validation.batch_sampler] == [[0, 1]]
    assert (validation.dataset.num_clips, validation.dataset.num_crops) == (2, 3)
    assert [item.error for batch in validation for item in batch] == ["file is empty", "crashed earlier"]
    with pytest.raises(VideoDecodeError, match=r"train/3\.mp4 \(crashed earlier\); .*\(file is empty\)"):
        training.dataset[0, 3]
