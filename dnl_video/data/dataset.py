"""Datasets and their order: random clips for training, fixed views for evaluation.

The order is a pure function of (seed, epoch), a sample one of (seed, epoch, index, repetition); worker, rank and number
of processes change neither. Training replaces a video that cannot be read, and reports it; evaluation returns the
error.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate

from dnl_video.config import AugmentConfig, Decoder, FrameOrder
from dnl_video.data import transforms
from dnl_video.data.balance import balanced_order
from dnl_video.data.decoding import Video, VideoDecodeError, open_video
from dnl_video.data.manifest import VideoRecord
from dnl_video.data.sampling import Indices, Seconds, clip_times, reorder_frames, train_indices, view_indices
from dnl_video.errors import InputError
from dnl_video.spec import Preprocessing


@dataclass(eq=False, repr=False)
class _Videos:
    """Videos of a dataset, and those that are known to be unreadable."""

    records: Sequence[VideoRecord]
    preprocessing: Preprocessing
    _: KW_ONLY
    decoder: Decoder = "decord"
    _unreadable: dict[str, str] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.records)

    def refuse(self, videos: Mapping[str, str]) -> None:
        """Treat videos as unreadable without opening them.

        Args:
            videos: Reason by path.
        """
        self._unreadable.update(videos)

    def _open(self, record: VideoRecord) -> Video:
        if record.path in self._unreadable:
            raise VideoDecodeError(record.path, self._unreadable[record.path])
        return open_video(
            record.path, decoder=self.decoder, known=record.decoder, recorded=record.recorded, frames_fps=record.fps
        )


@dataclass(eq=False, repr=False)
class ClipDataset(_Videos, Dataset[dict[str, Any]]):
    """Random training clips, indexed by (epoch, index): `augment.repeats` clips of a video, decoded once.

    A video that cannot be read is replaced by another one, also drawn from (seed, epoch, index). A worker does not open
    a failed video again, but still reports it each time.

    Args:
        records: Labelled videos.
        preprocessing: Length, stride and rule of clips.
        augment: Random views.
        seed: Seed of start, view and replacement, at least 0.
        max_attempts: Videos tried for one sample.
        decoder: See `open_video`.
        never_mirrored: Class ids that are never flipped.
    """

    augment: AugmentConfig
    _: KW_ONLY
    seed: int
    max_attempts: int = 10
    never_mirrored: Collection[int] = frozenset()

    def __post_init__(self) -> None:
        mean = self.preprocessing.mean if self.preprocessing.channel_order == "rgb" else self.preprocessing.mean[::-1]
        self._fill = tuple(round(255 * value) for value in mean)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return the clips of a video in an epoch.

        Args:
            key: (epoch, index of the video); index + r N for further draws r of N videos, which show other clips.

        Returns:
            clips: uint8 [T, crop, crop, 3] for each repetition; label: class id of the video shown; index: the given
            index; failures: (path, reason) of each video that could not be read.

        Raises:
            VideoDecodeError: `max_attempts` videos could not be read; the message lists them.
        """
        epoch, (draw, index) = key[0], divmod(key[1], len(self.records))
        failures: list[tuple[str, str]] = []
        for attempt, chosen in enumerate(self._candidates(epoch, index)):
            record = self.records[chosen]
            # The attempt is part of the key, so that a worker's known failures do not change the draws.
            rngs = [
                np.random.default_rng([self.seed, epoch, index, draw * self.augment.repeats + repetition, attempt])
                for repetition in range(self.augment.repeats)
            ]
            try:
                clips = self._read(record, rngs)
            except VideoDecodeError as error:
                self._unreadable[record.path] = error.reason
                failures.append((record.path, error.reason))
                continue
            return {"clips": clips, "label": record.label, "index": index, "failures": failures}
        listed = "; ".join(f"{path} ({reason})" for path, reason in failures)
        raise VideoDecodeError(f"{len(failures)} videos in a row cannot be read, check the data: {listed}")

    def _candidates(self, epoch: int, index: int) -> Iterable[int]:
        yield index
        if len(self.records) > 1 and self.max_attempts > 1:  # reached only after a failure
            rng = np.random.default_rng([self.seed, epoch, index, 0])
            order = rng.permutation(len(self.records))
            yield from order[order != index][: self.max_attempts - 1].tolist()

    def _read(self, record: VideoRecord, rngs: Sequence[np.random.Generator]) -> list[Tensor]:
        with self._open(record) as video:
            clock = video.clock(self.preprocessing)
            indices = [train_indices(video.num_frames, video.fps, self.preprocessing, rng, clock) for rng in rngs]
            # Each frame that any clip needs is decoded once.
            frames = video.read(np.concatenate(indices))
        mirror = record.label not in self.never_mirrored
        return [
            transforms.train_transform(
                clip, self.augment, rng, mirror=mirror, fill=self._fill, antialias=self.preprocessing.antialias
            )
            for clip, rng in zip(np.split(frames, len(rngs)), rngs, strict=True)
        ]


def collate_clips(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of `ClipDataset`'s samples: the first clips of all videos, then the second ones, and so on.

    Mixing combines neighbours, so neighbours must be different videos.

    Returns:
        clip: uint8 [B, T, H, W, 3]; label: int64 [B]; index: int64 [B]; failures: those of all samples, in order.
    """
    repeats = len(samples[0]["clips"])
    return {
        # In a worker, default_collate stacks directly into shared memory.
        "clip": default_collate([sample["clips"][r] for r in range(repeats) for sample in samples]),
        "label": torch.tensor([sample["label"] for sample in samples], dtype=torch.int64).repeat(repeats),
        "index": torch.tensor([sample["index"] for sample in samples], dtype=torch.int64).repeat(repeats),
        "failures": [failure for sample in samples for failure in sample["failures"]],
    }


@dataclass(frozen=True)
class VideoViews:
    """All views of one video.

    Args:
        index: Position of the video in the records.
        views: The distinct views, uint8 [U, T, c, c, 3]; None if the video cannot be read.
        clip_start_s: Start of each clip's first frame in seconds, [J]; NaN if the video cannot be read.
        clip_end_s: End of each clip's last frame in seconds, [J]; NaN if the video cannot be read.
        error: Why the video cannot be read; None if it can.
        rows: The row in `views` of each of the J * R views, clip by clip; None if all are distinct.
    """

    index: int
    views: Tensor | None
    clip_start_s: npt.NDArray[np.float64]
    clip_end_s: npt.NDArray[np.float64]
    error: str | None
    rows: Sequence[int] | None = None

    def expand(self, values: Tensor) -> Tensor:
        """Return the values of all views from those of the distinct ones, [U, n] to [J * R, n]."""
        return values if self.rows is None else values[list(self.rows)]


@dataclass(eq=False, repr=False)
class ViewDataset(_Videos, Dataset[VideoViews]):
    """The views of each video for evaluation; the video is opened once, each frame decoded once, equal views cut once.

    Args:
        records: Videos, labelled or not.
        preprocessing: Length, stride, rule, short side and crop.
        num_clips: Clips J along time.
        num_crops: Crops R per clip, 1 or 3.
        frame_order: Order of the frames within a clip (see `reorder_frames`).
        decoder: See `open_video`.
    """

    _: KW_ONLY
    num_clips: int
    num_crops: int
    frame_order: FrameOrder = "natural"

    @property
    def video_bytes(self) -> int:
        """Largest size of the views of one video."""
        return self.num_clips * self.num_crops * self.preprocessing.num_frames * self.preprocessing.crop_size**2 * 3

    def __getitem__(self, index: int) -> VideoViews:
        """Return the views of a video, or its error if it cannot be read."""
        try:
            with self._open(self.records[index]) as video:
                return self.read(video, index)
        except VideoDecodeError as error:
            unknown = np.full(self.num_clips, np.nan)
            return VideoViews(index, None, unknown, unknown.copy(), error.reason)

    def read(self, video: Video, index: int = 0) -> VideoViews:
        """Return the views of an open video.

        Raises:
            VideoDecodeError: It cannot be decoded.
        """
        preprocessing = self.preprocessing
        clock = video.clock(preprocessing)
        indices = view_indices(video.num_frames, video.fps, preprocessing, self.num_clips, clock)
        indices = reorder_frames(indices, self.frame_order, np.random.default_rng(index))
        union, inverse = np.unique(indices, return_inverse=True)
        resize = functools.partial(transforms.resize_short_side, preprocessing=preprocessing)
        clips = inverse.reshape(indices.shape)  # numpy 2.0 gives it this shape, other versions flat
        return self.cut(index, video.read(union, resize=resize), clips, clip_times(indices, video.times_s))

    def cut(
        self, index: int, frames: npt.NDArray[np.uint8], clips: Indices, times_s: tuple[Seconds, Seconds]
    ) -> VideoViews:
        """Cut the views of clips [J, T] of resized frames [n, H, W, 3]; equal clips and equal crops are cut once."""
        distinct, rows = np.unique(clips, axis=0, return_inverse=True)
        crops = 1 if frames.shape[1] == frames.shape[2] == self.preprocessing.crop_size else self.num_crops
        views = transforms.crop_views(torch.from_numpy(frames)[torch.from_numpy(distinct)], self.preprocessing, crops)
        rows = rows.reshape(-1, 1) * crops + np.arange(self.num_crops) % crops
        return VideoViews(index, views, *times_s, None, rows.ravel().tolist())


@dataclass(eq=False)
class ClipBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys: one order of the videos per epoch, divided among the processes.

    A step of W processes with b videos and A accumulated batches takes the same videos as a step of one process with
    W * b * A videos. The last incomplete step is dropped.

    Args:
        num_videos: Number of videos.
        batch_size: Videos per process and batch.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes.
        accumulate: Batches per step.
        labels: Class ids of the videos, for an order that is balanced over classes; None: a permutation of the videos.

    Attributes:
        epoch: The epoch to draw.
        start: Batches of the epoch to leave out at its beginning.

    Raises:
        InputError: There are fewer videos than one step takes.
    """

    num_videos: int
    batch_size: int
    _: KW_ONLY
    seed: int
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    labels: npt.NDArray[np.int64] | None = None
    epoch: int = field(default=0, init=False)
    start: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        needed = self.batch_size * self.world_size * self.accumulate
        if self.num_videos < needed:
            times = f" x {self.accumulate} accumulated batches" if self.accumulate > 1 else ""
            raise InputError(
                f"{self.num_videos} training videos are too few for a step of {needed} ({self.batch_size} a batch x "
                f"{self.world_size} process(es){times}); lower data.batch_size"
                f"{' or trainer.accumulate_grad_batches' if times else ''}, or give more videos"
            )

    def __len__(self) -> int:
        return self.num_videos // (self.batch_size * self.world_size * self.accumulate) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        step = self.batch_size * self.world_size
        videos, labels = self.num_videos, self.labels
        order = rng.permutation(videos) if labels is None else balanced_order(labels, len(self) * step, rng)
        for batch in range(self.start, len(self)):
            indices = order[batch * step : (batch + 1) * step][self.rank :: self.world_size]
            yield [(self.epoch, int(i)) for i in indices]


def shard(num_videos: int, rank: int, world_size: int) -> range:
    """Return the videos of a process: every world_size-th from rank on, without padding; may be empty."""
    return range(rank, num_videos, world_size)


def shard_batches(num_videos: int, batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """Divide a process's shard into batches; every process has the same number, so the last batches may be empty.

    Lightning runs collectives around each validation batch and skips validation in a process without batches; the
    others would wait for it forever.
    """
    indices = shard(num_videos, rank, world_size)
    batches = -(-len(shard(num_videos, 0, world_size)) // batch_size)
    return [list(indices[i * batch_size : (i + 1) * batch_size]) for i in range(batches)]
