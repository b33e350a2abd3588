"""Variants of data loading: this package's, plain decord, and the order of work of other code bases.

PySlowFast (slowfast/datasets/kinetics.py, utils.py: `tensor_normalize`, then `spatial_sampling`) and pytorchvideo's
published transforms convert whole frames to float, normalise, resize, and crop last. In testing each crop of each clip
of a video is a separate item, for which the file is opened and decoded again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import decord
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dnl_video.config import AugmentConfig, Decoder
from dnl_video.data import probing
from dnl_video.data.dataset import ClipDataset, VideoViews, ViewDataset, collate_clips
from dnl_video.data.decoding import open_video
from dnl_video.data.manifest import VideoRecord
from dnl_video.data.sampling import train_indices, view_indices
from dnl_video.data.transforms import crop_views, normalize, resize_short_side, train_transform
from dnl_video.spec import Preprocessing

decord.logging.set_level(decord.logging.QUIET)
BASELINES = ("plain", "float")
STAGES = ("open", "decode", "crop and resize", "collate", "normalise")
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class DataCase:
    """The videos and settings of one measurement."""

    name: str
    files: tuple[str, ...]
    decoders: tuple[Decoder, ...] = ("decord", "auto")  # of this package, each measured
    batch: int = 8
    preprocessing: Preprocessing = field(default_factory=Preprocessing)  # 8x8, short side and crop 256 in evaluation
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # short side 256 to 320, crop 224, flip
    num_clips: int = 10
    num_crops: int = 3

    def record(self, index: int) -> VideoRecord:
        """Return the record of a clip as in a prepared manifest, which names the exact reader of the file."""
        path = self.files[index % len(self.files)]
        return VideoRecord(str(index), path, 0, None, probing.probe_video(path).decoder)


def training_variants(case: DataCase) -> dict[str, Callable[[], object]]:
    """Return for each variant a function that makes its next batch: plain, float, and ours for each decoder."""
    variants: dict[str, Callable[[], object]] = {
        "plain": _next_epoch(lambda epoch: [frames for _, frames in plain_frames(case, epoch)]),
        "float": _next_epoch(partial(float_batch, case)),
    }
    for decoder in case.decoders:
        records = [case.record(index) for index in range(case.batch)]
        dataset = ClipDataset(records, case.preprocessing, case.augment, seed=0, decoder=decoder)
        variants[decoder] = _next_epoch(partial(our_batch, dataset))
    return variants


def our_batch(dataset: ClipDataset, epoch: int) -> dict[str, object]:
    """Make a batch of all videos of a dataset, as a process of the loader does."""
    samples = []
    for index in range(len(dataset)):
        probing.forget()  # in a real list a process meets each video once per epoch
        samples.append(dataset[epoch, index])
    return collate_clips(samples)


def plain_frames(case: DataCase, epoch: int) -> Sequence[tuple[np.random.Generator, Frames]]:
    """Read the frames of a batch with decord alone; each clip has the random generator that chose its frames."""
    found = []
    for index in range(case.batch):
        path = case.files[index % len(case.files)]
        rng = np.random.default_rng(_clip_key(epoch, index))
        found.append((rng, plain_read(path, train_indices(*_length(path), case.preprocessing, rng))))
    return found


def plain_read(path: str, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
    """Read frames with decord alone, [n, H, W, 3]."""
    return decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()


def float_batch(case: DataCase, epoch: int) -> Tensor:
    """Make a batch in the order of other code bases, float32 [B, 3, T, c, c]."""
    views = [float_view(frames, case.augment, case.preprocessing, rng) for rng, frames in plain_frames(case, epoch)]
    return torch.utils.data.default_collate(views)


def float_view(
    frames: Frames, augment: AugmentConfig, preprocessing: Preprocessing, rng: np.random.Generator
) -> Tensor:
    """Make a random view [3, T, c, c] of frames [T, H, W, 3]: float, normalise, resize, crop, flip."""
    clip = torch.from_numpy(frames).float() / 255.0
    clip = (clip - torch.tensor(preprocessing.mean)) / torch.tensor(preprocessing.std)
    clip = clip.permute(3, 0, 1, 2)
    height, width = clip.shape[2:]
    short_side = int(rng.integers(augment.short_side[0], augment.short_side[1], endpoint=True))
    shorter = min(height, width)
    size = (height * short_side // shorter, width * short_side // shorter)
    clip = F.interpolate(clip, size=size, mode="bilinear", align_corners=False)
    top, left = (int(rng.integers(0, side - augment.crop_size, endpoint=True)) for side in size)
    clip = clip[:, :, top : top + augment.crop_size, left : left + augment.crop_size]
    return clip.flip(3) if rng.random() < augment.flip else clip


def stage_seconds(case: DataCase, decoder: Decoder, epoch: int) -> dict[str, float]:
    """Return the CPU seconds of the stages of a batch, in the order of work of `ClipDataset`."""
    seconds = dict.fromkeys(STAGES, 0.0)
    last = time.process_time()

    def stop(stage: str | None) -> None:
        nonlocal last
        now = time.process_time()
        if stage is not None:
            seconds[stage] += now - last
        last = now

    samples = []
    for index in range(case.batch):
        rng = np.random.default_rng(_clip_key(epoch, index))
        record = case.record(index)
        probing.forget()
        stop(None)
        with open_video(record.path, decoder=decoder, known=record.decoder) as video:
            stop("open")
            frames = video.read(train_indices(video.num_frames, video.fps, case.preprocessing, rng))
        stop("decode")
        clip = train_transform(frames, case.augment, rng)
        stop("crop and resize")
        samples.append({"clips": [clip], "label": 0, "index": index, "failures": []})
    stop(None)
    batch = collate_clips(samples)
    stop("collate")
    normalize(batch["clip"], case.preprocessing.mean, case.preprocessing.std)
    stop("normalise")
    return seconds


def evaluation_variants(case: DataCase) -> dict[str, Callable[[], object]]:
    """Return for each variant a function that makes the views of the next video: separate reads, and ours."""
    with open_video(case.files[0]) as video:
        fps = video.fps

    def separate(epoch: int) -> Tensor:
        file = case.files[epoch % len(case.files)]
        return separate_views(file, fps, case.preprocessing, case.num_clips, case.num_crops)

    variants: dict[str, Callable[[], object]] = {"separate": _next_epoch(separate)}
    for decoder in case.decoders:
        dataset = ViewDataset(
            [case.record(index) for index in range(len(case.files))],
            case.preprocessing,
            num_clips=case.num_clips,
            num_crops=case.num_crops,
            decoder=decoder,
        )
        variants[decoder] = _next_epoch(partial(_our_views, dataset))
    return variants


def separate_views(path: str, fps: float, preprocessing: Preprocessing, num_clips: int, num_crops: int) -> Tensor:
    """Read each view of a video as a separate item (open, decode, resize, keep one crop): uint8 [V, T, c, c, 3]."""
    views = []
    for item in range(num_clips * num_crops):
        reader = decord.VideoReader(path, num_threads=1)
        indices = view_indices(len(reader), fps, preprocessing, num_clips)[item // num_crops]
        frames = torch.from_numpy(resize_short_side(reader.get_batch(indices).asnumpy(), preprocessing))
        views.append(crop_views(frames[None], preprocessing, num_crops)[item % num_crops])
    return torch.stack(views)


def _our_views(dataset: ViewDataset, epoch: int) -> VideoViews:
    probing.forget()
    return dataset[epoch % len(dataset)]


def _clip_key(epoch: int, index: int) -> list[int]:
    """Return the random key of `ClipDataset` with seed 0, so that all variants read the same frames."""
    return [0, epoch, index, 0, 0]


_lengths: dict[str, tuple[int, float]] = {}


def _length(path: str) -> tuple[int, float]:
    """Return the frames and frame rate of a file; looked up once, so that plain reading opens it only once."""
    if path not in _lengths:
        with open_video(path) as video:
            _lengths[path] = video.num_frames, video.fps
    return _lengths[path]


def _next_epoch(step: Callable[[int], object]) -> Callable[[], object]:
    """Return a function that calls ``step`` with 0, 1, 2, ...: other random frames at each call."""
    epoch = -1

    def run() -> object:
        nonlocal epoch
        epoch += 1
        return step(epoch)

    return run
