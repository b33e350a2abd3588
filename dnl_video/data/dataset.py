"""Map-style datasets: random clips to train on, fixed views to evaluate.

What a sample looks like is a pure function of (seed, epoch, index, repetition), never of worker, rank or process.
Training replaces a video that cannot be read, and says so; evaluation never does: it returns the error.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dnl_video.config import AugmentConfig, Decoder, FrameOrder
from dnl_video.data import transforms
from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.manifest import VideoRecord
from dnl_video.data.sampling import reorder_frames, train_indices, view_indices
from dnl_video.spec import Preprocessing


class ClipDataset(Dataset[dict[str, Any]]):
    """Random training clips, indexed by (epoch, index): as many of a video as `augment.repeats`, from one decoding.

    A video that cannot be read is replaced by another one, drawn from (seed, epoch, index) as well. A worker remembers
    videos that failed and does not open them again; they are still reported each time.

    Args:
        records: Labelled videos.
        preprocessing: Length, stride and rule of clips.
        augment: Random views.
        seed: Seed of start, view and replacement, at least 0.
        max_attempts: Videos tried for one sample.
        decoder: What reads the videos (see `open_video`).
        never_mirrored: Class ids that `augment.flip` leaves alone.

    Raises:
        ValueError: There are no records, one has no label, or `seed` or `max_attempts` is too small.
    """

    def __init__(
        self,
        records: Iterable[VideoRecord],
        preprocessing: Preprocessing,
        augment: AugmentConfig,
        *,
        seed: int,
        max_attempts: int = 10,
        decoder: Decoder = "decord",
        never_mirrored: Iterable[int] = (),
    ) -> None:
        self.records = tuple(records)
        if not self.records:
            raise ValueError("there are no videos to train on; give at least one record")
        for record in self.records:
            if record.label is None:
                raise ValueError(f"video {record.video_id!r} has no label; training needs one for every video")
        if seed < 0 or max_attempts < 1:
            raise ValueError(f"seed is {seed}, max_attempts {max_attempts}; give a seed >= 0 and at least 1 attempt")
        self.preprocessing = preprocessing
        self.augment = augment
        self.seed = seed
        self.max_attempts = max_attempts
        self.decoder = decoder
        self.never_mirrored = frozenset(never_mirrored)
        mean = preprocessing.mean if preprocessing.channel_order == "rgb" else preprocessing.mean[::-1]
        self._fill = tuple(round(255 * value) for value in mean)
        self._bad: dict[str, str] = {}

    def refuse(self, videos: Mapping[str, str]) -> None:
        """Count videos as unreadable without opening them: path to reason."""
        self._bad.update(videos)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return the clips of a video in an epoch.

        Args:
            key: (epoch, index of the video).

        Returns:
            clips: uint8 [T, crop, crop, 3] for each repetition; label: class id of the video shown; index: the index
            asked for; failures: (path, reason) of each video that could not be read on the way.

        Raises:
            VideoDecodeError: `max_attempts` videos could not be read; the message lists them.
        """
        epoch, index = key
        failures: list[tuple[str, str]] = []
        for attempt, chosen in enumerate(self._candidates(epoch, index)):
            record = self.records[chosen]
            # The attempt is part of the key, so that what a worker remembers cannot change what is drawn.
            rngs = [
                np.random.default_rng([self.seed, epoch, index, repetition, attempt])
                for repetition in range(self.augment.repeats)
            ]
            try:
                clips = self._read(record, rngs)
            except VideoDecodeError as error:
                self._bad[record.path] = error.reason
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
        if record.path in self._bad:
            raise VideoDecodeError(record.path, self._bad[record.path])
        with open_video(record.path, decoder=self.decoder, known=record.decoder, frames_fps=record.fps) as video:
            indices = [train_indices(video.num_frames, video.fps, self.preprocessing, rng) for rng in rngs]
            # Each frame that any clip needs is decoded once.
            frames = video.read(np.concatenate(indices))
        clips = np.split(frames, len(rngs))
        mirror = record.label not in self.never_mirrored
        return [
            transforms.train_transform(clip, self.augment, rng, mirror=mirror, fill=self._fill)
            for clip, rng in zip(clips, rngs, strict=True)
        ]


def collate_clips(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of `ClipDataset`'s samples: the first clips of all videos, then the second ones, and so on.

    Neighbours are thus different videos, which is what mixing combines.

    Returns:
        clip: uint8 [B, T, H, W, 3]; label: int64 [B]; index: int64 [B]; failures: those of all samples, in order.
    """
    repeats = len(samples[0]["clips"])
    return {
        # default_collate stacks straight into shared memory inside a worker.
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
        views: uint8 [J * R, T, c, c, 3], clip by clip; None where the video cannot be read.
        clip_start_s: Second at which each clip's first frame begins, [J]; NaN where the video cannot be read.
        clip_end_s: Second at which each clip's last frame ends, [J].
        error: Why the video cannot be read; None where it can.
    """

    index: int
    views: Tensor | None
    clip_start_s: npt.NDArray[np.float64]
    clip_end_s: npt.NDArray[np.float64]
    error: str | None


class ViewDataset(Dataset[VideoViews]):
    """The views of each video for evaluation: one open and one decode of all frames any view needs.

    Args:
        records: Videos, labelled or not.
        preprocessing: Length, stride, rule, short side and crop.
        num_clips: Clips J along time.
        num_crops: Crops R per clip, 1 or 3.
        frame_order: Order of the frames within a clip (see `reorder_frames`).
        decoder: What reads the videos (see `open_video`).
    """

    def __init__(
        self,
        records: Iterable[VideoRecord],
        preprocessing: Preprocessing,
        *,
        num_clips: int,
        num_crops: int,
        frame_order: FrameOrder = "natural",
        decoder: Decoder = "decord",
    ) -> None:
        self.records = tuple(records)
        self.preprocessing = preprocessing
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.frame_order = frame_order
        self.decoder = decoder
        self._refused: dict[str, str] = {}

    def refuse(self, videos: Mapping[str, str]) -> None:
        """Count videos as unreadable without opening them: path to reason."""
        self._refused.update(videos)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> VideoViews:
        """Return the views of a video; one that cannot be read comes back as its error, never replaced."""
        try:
            if self.records[index].path in self._refused:
                raise VideoDecodeError(self.records[index].path, self._refused[self.records[index].path])
            return self._read(index)
        except VideoDecodeError as error:
            nowhere = np.full(self.num_clips, np.nan)
            return VideoViews(index, None, nowhere, nowhere.copy(), error.reason)

    def _read(self, index: int) -> VideoViews:
        preprocessing = self.preprocessing
        resize = functools.partial(transforms.resize_short_side, short_side=preprocessing.short_side)
        record = self.records[index]
        with open_video(record.path, decoder=self.decoder, known=record.decoder, frames_fps=record.fps) as video:
            indices = view_indices(video.num_frames, video.fps, preprocessing, self.num_clips)
            indices = reorder_frames(indices, self.frame_order, np.random.default_rng(index))
            union, inverse = np.unique(indices, return_inverse=True)
            frames = torch.from_numpy(video.read(union, resize=resize))
            fps = video.fps
        # [union, H, W, 3] -> [J, T, H, W, 3] (numpy 2.0 shapes `inverse` like `indices`, older ones flat)
        clips = frames[torch.from_numpy(inverse.reshape(indices.shape))]
        views = transforms.crop_views(clips, preprocessing.crop_size, self.num_crops)
        # With `loop` a clip's last frame may be an early one, so take the range it covers.
        return VideoViews(index, views, indices.min(axis=1) / fps, (indices.max(axis=1) + 1) / fps, None)
