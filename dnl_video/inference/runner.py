"""The one loop behind `predict` and `evaluate`: videos of a list to a predictions directory.

Sharded by rank, without collectives: each process writes its own shards, so there is no padding, no duplicate, and
any process may die and be started again.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from dnl_video.config import EvaluationConfig
from dnl_video.cores import default_workers, network_threads
from dnl_video.data.dataset import VideoViews, ViewDataset
from dnl_video.data.journal import STOPPED_REASON, LoaderStopped, loader_faults
from dnl_video.data.loaders import VIEW_TIMEOUT_S, ShardSampler, view_loader
from dnl_video.data.manifest import Manifest, VideoRecord
from dnl_video.inference.predictor import Predictor
from dnl_video.models.checkpoint import Checkpoint
from dnl_video.results.predictions import PredictionsMeta, PredictionsWriter, VideoPrediction, finished_ids
from dnl_video.spec import to_dict

Progress = Callable[[int, int, VideoPrediction | None], None]


def run_predictions(
    checkpoint: Checkpoint,
    manifest: Manifest,
    output: str | Path,
    options: EvaluationConfig,
    *,
    rank: int = 0,
    world_size: int = 1,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> bool:
    """Score every listed video that the directory does not have yet.

    Args:
        checkpoint: The trained network.
        manifest: The videos.
        output: The predictions directory; made when absent, continued when it is of the same run.
        options: Views, device, precision.
        rank: This process.
        world_size: Number of processes.
        retry_failed: Try again what failed before.
        progress: Called with (videos done, videos of this process, the new prediction; None at the start).

    Returns:
        Whether the directory now holds every listed video.

    Raises:
        InputError: The directory belongs to another run, or the device does not exist.
    """
    predictor = Predictor.from_checkpoint(checkpoint, options)
    meta = _meta(checkpoint, manifest, options, str(predictor.device))
    if predictor.device.type == "cpu":
        torch.set_num_threads(network_threads(default_workers(options.num_workers)))
    with PredictionsWriter(output, meta, rank=rank, clip_scores=options.clip_scores) as writer:
        done = finished_ids(output, retry_failed=retry_failed)
        records = manifest.records
        mine = ShardSampler(len(records), rank=rank, world_size=world_size).indices
        todo = [index for index in mine if records[index].video_id not in done]
        count = len(mine) - len(todo)
        if progress is not None:
            progress(count, len(mine), None)
        dataset = ViewDataset(
            records,
            predictor.preprocessing,
            num_clips=options.num_clips,
            num_crops=options.num_crops,
            frame_order=options.frame_order,
            decoder=options.decoder,
        )
        try:
            with loader_faults(VIEW_TIMEOUT_S):
                for item in view_loader(dataset, todo, options.num_workers) if todo else ():
                    prediction = _predict(predictor, records[item.index], item)
                    writer.add(prediction)
                    count += 1
                    if progress is not None:
                        progress(count, len(mine), prediction)
        except LoaderStopped as stopped:
            for record in (records[index] for index in todo):
                if record.path in stopped.videos:
                    writer.add(VideoPrediction(record.video_id, record.path, record.label, error=STOPPED_REASON))
            raise
    return len(finished_ids(output)) == len(manifest.records)


def shard_from_environment() -> tuple[int, int]:
    """Return (rank, world size) as torchrun sets them; (0, 1) alone."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _predict(predictor: Predictor, record: VideoRecord, item: VideoViews) -> VideoPrediction:
    prediction = VideoPrediction(record.video_id, record.path, record.label)
    if item.views is None:
        prediction.error = item.error
        return prediction
    result = predictor.score(item)
    if not np.isfinite(result.scores).all():
        prediction.error = "the network gave NaN or infinite scores"
        return prediction
    prediction.num_views = len(item.views)
    prediction.scores = result.scores
    prediction.clip_scores = result.clip_scores
    prediction.clip_start_s, prediction.clip_end_s = result.clip_start_s, result.clip_end_s
    return prediction


def _meta(checkpoint: Checkpoint, manifest: Manifest, options: EvaluationConfig, device: str) -> PredictionsMeta:
    packages = ("dnl-video", "torch", "torchvision", "pytorchvideo", "numpy")
    return PredictionsMeta(
        model=to_dict(checkpoint.spec),
        preprocessing=to_dict(checkpoint.preprocessing),
        weights=checkpoint.path,
        weights_sha256=checkpoint.sha256,
        num_clips=options.num_clips,
        num_crops=options.num_crops,
        class_names=list(checkpoint.class_names),
        manifest=manifest.source,
        manifest_sha256=manifest.sha256,
        num_videos=len(manifest.records),
        frame_order=options.frame_order,
        labelled=all(record.label is not None for record in manifest.records),
        versions={name: version(name) for name in packages} | {"python": platform.python_version()},
        run={
            "command": " ".join(["dnl-video", *sys.argv[1:]]),
            "device": device,
            "precision": options.precision,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )
