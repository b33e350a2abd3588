"""Predictions directories for tests of reports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dnl_video.report import build_report
from dnl_video.results.predictions import PredictionsMeta, VideoPrediction
from dnl_video.results.reader import read_predictions
from dnl_video.results.writer import PredictionsWriter

NAMES = ["left", "right", "up", "down", "growing", "shrinking", "cw", "ccw"]


def make_meta(num_videos: int, class_names: Iterable[str] = NAMES, **changes: Any) -> PredictionsMeta:
    values: dict[str, Any] = {
        "model": {"architecture": "slow_r50", "context": "dnl", "context_options": {"pool": [1, 2, 2]}},
        "preprocessing": {"num_frames": 8, "frame_stride": 8, "crop_size": 256, "target_fps": None},
        "weights": "runs/a/best.ckpt",
        "weights_sha256": "a" * 64,
        "num_clips": 10,
        "num_crops": 3,
        "class_names": list(class_names),
        "manifest": "data/val.csv",
        "manifest_sha256": "b" * 64,
        "num_videos": num_videos,
        "labelled": True,
        "versions": {"dnl_video": "0.1.0"},
        "run": {"device": "cpu"},
    }
    return PredictionsMeta(**{**values, **changes})


def write(directory: Path, videos: Iterable[VideoPrediction], meta: PredictionsMeta, **options: Any) -> Path:
    with PredictionsWriter(directory, meta, **options) as out:
        for video in videos:
            out.add(video)
    return directory


def report_of(
    directory: Path, videos: Iterable[VideoPrediction], meta: PredictionsMeta, **options: Any
) -> dict[str, Any]:
    """Return the report of a directory that is written first."""
    return build_report(read_predictions(write(directory, videos, meta, **options)))


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (e / e.sum(axis=-1, keepdims=True)).astype(np.float32)


def make_videos(
    n: int, num_classes: int = 8, num_clips: int = 10, failed: Collection[int] = (), seed: int = 0, signal: float = 2
) -> Iterator[VideoPrediction]:
    rng = np.random.default_rng(seed)
    for i in range(n):
        label, path = i % num_classes, f"val/v{i:05d}.mp4"
        if i in failed:
            yield VideoPrediction(f"v{i:05d}", path, label, error=f"{path}: cannot decode frame {i}")
            continue
        logits = rng.normal(size=(num_clips, num_classes)) + rng.normal(size=num_classes)
        logits[:, label] += signal
        clips = softmax(logits)
        start = np.arange(num_clips, dtype=float)
        yield VideoPrediction(f"v{i:05d}", path, label, 3 * num_clips, clips.mean(axis=0), start, start + 2, clips)


def write_large(directory: Path, num_videos: int, num_classes: int, num_clips: int = 10) -> Path:
    """Write predictions of many classes with long names, of which one video in 400 failed."""
    names = [f"an action whose name is long {c:03d}" for c in range(num_classes)]
    videos = make_videos(num_videos, num_classes, num_clips, failed=range(17, num_videos, 397), signal=4)
    return write(directory, videos, make_meta(num_videos, names, num_clips=num_clips), flush_every=500)
