from __future__ import annotations

from typing import Any

import pytest
from torch.utils.data import Dataset

from dnl_video.data.loaders import ResumableLoader, allowed_failures
from dnl_video.data.samplers import ClipBatchSampler


class Keys(Dataset[tuple[int, int]]):
    """Gives back the key it is asked for."""

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
def test_resumed_loader_goes_on_with_the_next_batch(workers: int) -> None:
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


def test_a_state_taken_at_the_end_of_an_epoch_starts_the_next() -> None:
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


def test_length_counts_the_whole_epoch_even_when_resumed() -> None:
    resumed = loader()
    resumed.load_state_dict({"epoch": 4, "position": 2})
    assert len(resumed) == 3


@pytest.mark.parametrize(("videos", "share", "allowed"), [(400, 0.02, 8), (10, 0.02, 1), (10, 0.0, 0), (50, 0.02, 1)])
def test_allowed_failures_round_up(videos: int, share: float, allowed: int) -> None:
    assert allowed_failures(videos, share) == allowed
