"""Scores the videos of a list into a predictions directory, for `predict`, `evaluate` and `features`.

The list is split by rank, without collectives: each process writes its own shards, no video is padded or duplicated,
and any process may die and be restarted.
"""

from __future__ import annotations

import logging
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from dnl_video.config import EvaluationConfig
from dnl_video.cores import default_workers, network_threads
from dnl_video.data.crash_record import STOPPED_REASON, LoaderStopped, loader_faults
from dnl_video.data.dataset import shard
from dnl_video.data.decoding import VideoDecodeError
from dnl_video.data.loaders import VIEW_TIMEOUT_S, view_loader
from dnl_video.data.manifest import Manifest, VideoRecord
from dnl_video.inference.predictor import Predictor
from dnl_video.inference.scores import VideoScores
from dnl_video.launcher import local_processes
from dnl_video.models.weights.checkpoint import Checkpoint
from dnl_video.results.predictions import CLIP_COLUMNS, PredictionsMeta, VideoPrediction
from dnl_video.results.reader import finished_ids
from dnl_video.results.writer import PredictionsWriter
from dnl_video.spec import to_dict

Progress = Callable[[int, int, VideoPrediction | None], None]


def run_predictions(
    checkpoint: Checkpoint,
    manifest: Manifest,
    output: str | Path,
    options: EvaluationConfig,
    *,
    features: bool = False,
    hop_s: float | None = None,
    rank: int = 0,
    world_size: int = 1,
    retry_failed: bool = False,
    progress: Progress | None = None,
    clip_progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Score every listed video that the directory does not have yet.

    Args:
        checkpoint: The trained network.
        manifest: The videos.
        output: The predictions directory; made when missing, continued when it belongs to the same run.
        options: Views, device, precision.
        features: Also store the pooled features of the clips; not with hop_s.
        hop_s: Slide clips over each video, one every hop_s seconds; None spreads `options.num_clips` over it.
        rank: Rank of this process.
        world_size: Number of processes.
        retry_failed: Score the videos again that failed before.
        progress: Called with (videos done, videos of this process, the new prediction; None at the start).
        clip_progress: Called with (clips done, clips of the video) while clips slide.

    Returns:
        Whether the directory now holds every listed video.

    Raises:
        InputError: The directory belongs to another run, or the device does not exist.
        LoaderStopped: A loader process died or hung. The videos that it was reading are recorded as failed.
    """
    predictor, records = Predictor.from_checkpoint(checkpoint, options), manifest.records
    meta = _meta(checkpoint, manifest, predictor, features, hop_s)
    if predictor.device.type == "cpu":
        torch.set_num_threads(network_threads(default_workers(options.num_workers), local_processes()))
    logging.getLogger(__name__).debug("device %s, precision %s", predictor.device, options.precision)
    with PredictionsWriter(output, meta, rank=rank, clip_scores=options.clip_scores) as writer:
        done = finished_ids(output, retry_failed=retry_failed)
        mine = shard(len(records), rank, world_size)
        todo = [index for index in mine if records[index].video_id not in done]
        count = len(mine) - len(todo)
        if progress is not None:
            progress(count, len(mine), None)
        try:
            with loader_faults(VIEW_TIMEOUT_S):
                for index, result in _score(predictor, records, todo, features, hop_s, clip_progress):
                    prediction = _prediction(records[index], result, options.num_crops)
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


def _score(
    predictor: Predictor,
    records: Sequence[VideoRecord],
    todo: Sequence[int],
    features: bool,
    hop_s: float | None,
    clip_progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, VideoScores | str]]:
    """Yield (index, scores or error) of each video."""
    if hop_s is None:
        workers, processes = predictor.options.num_workers, local_processes()
        for item in view_loader(predictor.dataset(records), todo, workers, processes) if todo else ():
            yield item.index, predictor.score(item, features=features) if item.error is None else item.error
        return
    for index in todo:
        try:
            yield index, predictor.predict_sliding(records[index].path, hop_s=hop_s, progress=clip_progress)
        except VideoDecodeError as error:
            yield index, error.reason


def _prediction(record: VideoRecord, result: VideoScores | str, num_crops: int) -> VideoPrediction:
    prediction = VideoPrediction(record.video_id, record.path, record.label)
    if isinstance(result, str):
        prediction.error = result
    elif not np.isfinite(result.scores).all():
        prediction.error = "the network gave NaN or infinite scores"
    else:
        prediction.num_views = len(result.clip_scores) * num_crops
        prediction.scores = result.scores
        for name in CLIP_COLUMNS:
            setattr(prediction, name, getattr(result, name))
    return prediction


def _meta(
    checkpoint: Checkpoint, manifest: Manifest, predictor: Predictor, features: bool, hop_s: float | None
) -> PredictionsMeta:
    options = predictor.options
    packages = ("dnl-video", "torch", "torchvision", "pytorchvideo", "numpy")
    return PredictionsMeta(
        model=to_dict(checkpoint.spec),
        preprocessing=to_dict(checkpoint.preprocessing),
        weights=checkpoint.path,
        weights_sha256=checkpoint.sha256,
        num_clips=options.num_clips if hop_s is None else 0,
        num_crops=options.num_crops,
        class_names=list(checkpoint.class_names),
        manifest=manifest.source,
        manifest_sha256=manifest.sha256,
        num_videos=len(manifest.records),
        frame_order=options.frame_order,
        hop_s=hop_s,
        clip_features=features,
        labelled=all(record.label is not None for record in manifest.records),
        versions={name: version(name) for name in packages} | {"python": platform.python_version()},
        run={
            "command": shlex.join(["dnl-video", *sys.argv[1:]]),
            "device": str(predictor.device),
            "precision": options.precision,
            "parameters": f"{sum(p.numel() for p in predictor.network.parameters()):,}",
            **({"seed": str(checkpoint.config["seed"])} if "seed" in checkpoint.config else {}),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )
