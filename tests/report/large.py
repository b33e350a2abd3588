"""A predictions directory of Kinetics' size, with classes that are confused in groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dnl_video.results.predictions import PredictionsMeta, VideoPrediction
from dnl_video.results.writer import PredictionsWriter


def write_large(directory: Path, num_videos: int, num_classes: int, num_clips: int = 10) -> Path:
    """Write predictions of about 75 % top-1, where one video in 400 failed."""
    meta = PredictionsMeta(
        model={"architecture": "slow_r50", "context": "dnl"},
        preprocessing={"num_frames": 8, "frame_stride": 8, "crop_size": 256},
        weights="best.ckpt",
        weights_sha256="a" * 64,
        num_clips=num_clips,
        num_crops=3,
        class_names=[f"an action whose name is long {c:03d}" for c in range(num_classes)],
        manifest="kinetics_val.csv",
        manifest_sha256="b" * 64,
        num_videos=num_videos,
        labelled=True,
    )
    with PredictionsWriter(directory, meta, flush_every=500, flush_seconds=1e9) as out:
        for video in _videos(num_videos, num_classes, num_clips):
            out.add(video)
    return directory


def _videos(num_videos: int, num_classes: int, num_clips: int) -> Iterator[VideoPrediction]:
    rng = np.random.default_rng(0)
    starts = np.linspace(0.0, 7.0, num_clips)
    strength = rng.uniform(1.0, 6.0, size=num_classes)  # some classes are harder
    for i in range(num_videos):
        label = i % num_classes
        name, path = f"v{i:06d}", f"/data/kinetics400/val/class {label:03d}/video_{i:06d}_000010_000020.mp4"
        if i % 397 == 17:
            yield VideoPrediction(name, path, label, error=f"{path}: cannot be decoded (packet {i})")
            continue
        logits = rng.standard_normal((num_clips, num_classes), dtype=np.float32)
        logits += 1.3 * rng.standard_normal(num_classes, dtype=np.float32)
        logits[:, label] += strength[label]
        logits[:, label // 5 * 5 : label // 5 * 5 + 5] += 2
        clips = np.exp(logits)
        clips /= clips.sum(axis=1, keepdims=True)
        yield VideoPrediction(name, path, label, 3 * num_clips, clips.mean(axis=0), starts, starts + 2.5, clips)
