"""Which videos a process takes, in which order: pure functions of seed, epoch and place among the processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from dnl_video.errors import InputError


class ClipBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys: a permutation of the videos per epoch, dealt to processes in turn.

    A pure function of (seed, epoch): order and content do not depend on workers, and a step of W processes with b
    videos and A accumulated batches is that of one process with W * b * A. The last incomplete step is dropped, so
    that every step is of as many clips.

    Args:
        num_videos: Videos to draw from.
        batch_size: Videos per process (clips, where each gives one).
        seed: Seed of the order.
        rank: This process.
        world_size: Number of processes.
        accumulate: Batches of a step.

    Raises:
        InputError: There are fewer videos than a step takes.
    """

    def __init__(
        self,
        num_videos: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
    ) -> None:
        needed = batch_size * world_size * accumulate
        if num_videos < needed:
            times = f" x {accumulate} accumulated batches" if accumulate > 1 else ""
            raise InputError(
                f"{num_videos} training videos make no step of {needed} ({batch_size} a batch x {world_size} "
                f"process(es){times}); lower data.batch_size{' or trainer.accumulate_grad_batches' if times else ''}, "
                "or give more videos"
            )
        self.num_videos = num_videos
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.accumulate = accumulate
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return self.num_videos // (self.batch_size * self.world_size * self.accumulate) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_videos)
        step = self.batch_size * self.world_size
        for batch in range(self.start, len(self)):
            mine = order[batch * step : (batch + 1) * step][self.rank :: self.world_size]
            yield [(self.epoch, int(i)) for i in mine]


def shard(num_videos: int, rank: int, world_size: int) -> range:
    """Return the videos of a process: every world_size-th from rank on, no padding, no duplicates, perhaps none."""
    return range(rank, num_videos, world_size)


class ShardBatchSampler(Sampler[list[int]]):
    """The shard of a process in batches, as many on every process: the last ones of a smaller shard may be empty.

    Lightning runs collectives around each validation batch, and leaves a process without batches out of validation;
    the others would wait for it.
    """

    def __init__(self, num_videos: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.indices = shard(num_videos, rank, world_size)
        self.batch_size = batch_size
        self._batches = -(-len(shard(num_videos, 0, world_size)) // batch_size)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self._batches):
            yield list(self.indices[batch * self.batch_size : (batch + 1) * self.batch_size])
