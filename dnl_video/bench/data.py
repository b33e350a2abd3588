"""What `dnl-video bench data` measures: training batches and the views of evaluation, against `data_baselines`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dnl_video.bench.data_baselines import float_view, plain_read, separate_views
from dnl_video.bench.timing import take_turns
from dnl_video.config import AugmentConfig, Decoder
from dnl_video.data import probing
from dnl_video.data.dataset import ClipDataset, VideoViews, ViewDataset, collate_clips
from dnl_video.data.decoding import open_video
from dnl_video.data.manifest import VideoRecord
from dnl_video.data.sampling import train_indices
from dnl_video.data.transforms import normalize, train_transform
from dnl_video.spec import Preprocessing

CPU = torch.device("cpu")
BASELINES = ("plain", "float")
STAGES = ("open", "decode", "crop and resize", "collate", "normalise")


@dataclass(frozen=True)
class DataCase:
    """What is measured.

    Attributes:
        name: What tables call the videos.
        files: Videos, which take turns.
        decoders: Ours, each measured.
        batch: Clips a batch.
        preprocessing: Clips and views: 8x8, short side and crop 256 in evaluation.
        augment: Training views: short side 256 to 320, crop 224, flip.
        num_clips: Clips a video in evaluation.
        num_crops: Crops a clip in evaluation.
    """

    name: str
    files: tuple[str, ...]
    decoders: tuple[Decoder, ...] = ("decord", "auto")
    batch: int = 8
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    num_clips: int = 10
    num_crops: int = 3

    def record(self, index: int) -> VideoRecord:
        """Return a record as a prepared manifest has it: what reads the file exactly is known."""
        path = self.files[index % len(self.files)]
        return VideoRecord(str(index), path, 0, None, probing.probe_video(path).decoder)


@dataclass(frozen=True)
class DataResult:
    """CPU seconds of a training clip and of a video's views by variant, and of a clip's stages by decoder; medians.

    All variants do the same clips in a round, so how much faster ours are is the median over rounds, by baseline and
    decoder. `float_normalised` is against ours with its normalisation on the same core.
    """

    case: DataCase
    clip_s: dict[str, float]
    stages_s: dict[str, dict[str, float]]
    video_s: dict[str, float]
    faster: dict[str, dict[str, float]]


def measure_data(
    case: DataCase, *, repeats: int, budget_s: float, evaluation: bool, advance: Callable[[str], None]
) -> DataResult:
    """Measure a case; each of its three parts takes at most about ``budget_s`` seconds, or three rounds."""
    clips = take_turns(
        training_variants(case),
        CPU,
        repeats=repeats,
        budget_s=budget_s,
        advance=lambda name: advance(f"{case.name}: training clips, {name}"),
        shuffle=True,
    )
    stages: dict[str, dict[str, float]] = {}
    for decoder in case.decoders:
        advance(f"{case.name}: stages, {decoder}")
        rounds = [stage_seconds(case, decoder, epoch) for epoch in range(max(min(repeats, 5), 2))][1:]
        stages[decoder] = {stage: statistics.median(r[stage] for r in rounds) / case.batch for stage in STAGES}
    faster: dict[str, dict[str, float]] = {
        name: {decoder: _faster(clips, name, decoder) for decoder in case.decoders} for name in BASELINES
    }
    faster["float_normalised"] = {
        decoder: _faster(clips, "float", decoder, stages[decoder]["normalise"] * case.batch)
        for decoder in case.decoders
    }
    videos: dict[str, list[float]] = {}
    if evaluation:
        videos = take_turns(
            evaluation_variants(case),
            CPU,
            repeats=max(repeats // 3, 1),
            budget_s=budget_s,
            advance=lambda name: advance(f"{case.name}: evaluation, {name}"),
            shuffle=True,
        )
        faster["separate"] = {decoder: _faster(videos, "separate", decoder) for decoder in case.decoders}
    return DataResult(
        case,
        {name: statistics.median(values) / case.batch for name, values in clips.items()},
        stages,
        {name: statistics.median(values) for name, values in videos.items()},
        faster,
    )


def _faster(rounds: dict[str, list[float]], baseline: str, ours: str, added_s: float = 0.0) -> float:
    return statistics.median(b / (o + added_s) for b, o in zip(rounds[baseline], rounds[ours], strict=True))


def clip_key(epoch: int, index: int) -> list[int]:
    """Return the random key that `ClipDataset` has with seed 0, so that all variants read the same frames."""
    return [0, epoch, index, 0, 0]


def training_variants(case: DataCase) -> dict[str, Callable[[], object]]:
    """Return a function a variant that makes its next batch: plain decord, float order, and ours by decoder."""
    variants: dict[str, Callable[[], object]] = {
        "plain": _each_epoch(lambda epoch: [frames for _, frames in _plain_frames(case, epoch)]),
        "float": _each_epoch(lambda epoch: float_batch(case, epoch)),
    }
    for decoder in case.decoders:
        records = [case.record(index) for index in range(case.batch)]
        dataset = ClipDataset(records, case.preprocessing, case.augment, seed=0, decoder=decoder)
        variants[decoder] = _each_epoch(lambda epoch, dataset=dataset: our_batch(dataset, epoch))  # type: ignore[misc]
    return variants


def our_batch(dataset: ClipDataset, epoch: int) -> dict[str, Any]:
    """Make a batch of all of a dataset's videos, as a loader's process does."""
    samples = []
    for index in range(len(dataset)):
        _forget_files()
        samples.append(dataset[epoch, index])
    return collate_clips(samples)


def float_batch(case: DataCase, epoch: int) -> torch.Tensor:
    """Make a batch in the order of other code bases, float32 [B, 3, T, c, c]."""
    views = [float_view(frames, case.augment, case.preprocessing, rng) for rng, frames in _plain_frames(case, epoch)]
    return torch.utils.data.default_collate(views)


def stage_seconds(case: DataCase, decoder: Decoder, epoch: int) -> dict[str, float]:
    """Return the CPU seconds of a batch's stages, done as `ClipDataset` does them."""
    seconds = dict.fromkeys(STAGES, 0.0)
    clock = _Clock(seconds)
    samples = []
    for index in range(case.batch):
        rng = np.random.default_rng(clip_key(epoch, index))
        record = case.record(index)
        _forget_files()
        clock.start()
        with open_video(record.path, decoder=decoder, known=record.decoder) as video:
            clock.stop("open")
            frames = video.read(train_indices(video.num_frames, video.fps, case.preprocessing, rng))
        clock.stop("decode")
        clip = train_transform(frames, case.augment, rng)
        clock.stop("crop and resize")
        samples.append({"clips": [clip], "label": 0, "index": index, "failures": []})
    clock.start()
    batch = collate_clips(samples)
    clock.stop("collate")
    normalize(batch["clip"], case.preprocessing.mean, case.preprocessing.std)
    clock.stop("normalise")
    return seconds


def evaluation_variants(case: DataCase) -> dict[str, Callable[[], object]]:
    """Return a function a variant that makes the next video's views: 30 separate reads, and ours by decoder."""
    with open_video(case.files[0]) as video:
        fps = video.fps
    variants: dict[str, Callable[[], object]] = {
        "separate": _each_epoch(
            lambda epoch: separate_views(
                case.files[epoch % len(case.files)], fps, case.preprocessing, case.num_clips, case.num_crops
            )
        )
    }
    for decoder in case.decoders:
        dataset = ViewDataset(
            [case.record(index) for index in range(len(case.files))],
            case.preprocessing,
            num_clips=case.num_clips,
            num_crops=case.num_crops,
            decoder=decoder,
        )
        variants[decoder] = _each_epoch(lambda epoch, dataset=dataset: our_views(dataset, epoch))  # type: ignore[misc]
    return variants


def our_views(dataset: ViewDataset, epoch: int) -> VideoViews:
    """Make the views of the next video."""
    _forget_files()
    return dataset[epoch % len(dataset)]


def _forget_files() -> None:
    # Among the videos of a real list a process meets each one once in an epoch.
    probing.forget()


def _plain_frames(case: DataCase, epoch: int) -> Sequence[tuple[np.random.Generator, np.ndarray]]:
    found = []
    for index in range(case.batch):
        path = case.files[index % len(case.files)]
        rng = np.random.default_rng(clip_key(epoch, index))
        found.append((rng, plain_read(path, train_indices(*_length(path), case.preprocessing, rng))))
    return found


_lengths: dict[str, tuple[int, float]] = {}


def _length(path: str) -> tuple[int, float]:
    """Return a file's frames and rate; looked up once, so that plain reading pays for no second opening."""
    if path not in _lengths:
        with open_video(path) as video:
            _lengths[path] = video.num_frames, video.fps
    return _lengths[path]


def _each_epoch(step: Callable[[int], object]) -> Callable[[], object]:
    """Return a function that calls ``step`` with 0, 1, 2, ... and so draws anew each time."""
    epoch = -1

    def run() -> object:
        nonlocal epoch
        epoch += 1
        return step(epoch)

    return run


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._last = 0.0

    def start(self) -> None:
        self._last = time.process_time()

    def stop(self, stage: str) -> None:
        now = time.process_time()
        self._seconds[stage] += now - self._last
        self._last = now
