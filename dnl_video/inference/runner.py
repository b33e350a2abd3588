"""The one loop behind `predict` and `evaluate`: videos of a list to a predictions directory.

Sharded by rank, without collectives: each process writes its own shards, so there is no padding, no duplicate, and
any process may die and be started again.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from dnl_video.config import EvaluationConfig
from dnl_video.cores import default_workers, network_threads
from dnl_video.data.crash_record import STOPPED_REASON, LoaderStopped, loader_faults
from dnl_video.data.dataset import ViewDataset, shard
from dnl_video.data.decoding import VideoDecodeError
from dnl_video.data.loaders import VIEW_TIMEOUT_S, view_loader
from dnl_video.data.manifest import Manifest, VideoRecord
from dnl_video.inference.long_videos import predict_sliding
from dnl_video.inference.predictor import Predictor, VideoScores
from dnl_video.models.weights.checkpoint import Checkpoint
from dnl_video.results.predictions import PredictionsMeta, VideoPrediction
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
        output: The predictions directory; made when absent, continued when it is of the same run.
        options: Views, device, precision.
        hop_s: Slide clips over each video, one every hop_s seconds, in place of `options.num_clips` spread over it.
        rank: This process.
        world_size: Number of processes.
        retry_failed: Try again what failed before.
        progress: Called with (videos done, videos of this process, the new prediction; None at the start).
        clip_progress: Called with (clips done, clips of the video) where clips slide.

    Returns:
        Whether the directory now holds every listed video.

    Raises:
        InputError: The directory belongs to another run, or the device does not exist.
    """
    predictor = Predictor.from_checkpoint(checkpoint, options)
    meta = _meta(checkpoint, manifest, options, hop_s, str(predictor.device))
    if predictor.device.type == "cpu":
        torch.set_num_threads(network_threads(default_workers(options.num_workers)))
    with PredictionsWriter(output, meta, rank=rank, clip_scores=options.clip_scores) as writer:
        done = finished_ids(output, retry_failed=retry_failed)
        records = manifest.records
        mine = shard(len(records), rank, world_size)
        todo = [index for index in mine if records[index].video_id not in done]
        count = len(mine) - len(todo)
        if progress is not None:
            progress(count, len(mine), None)
        results = (
            _spread(predictor, records, todo)
            if hop_s is None
            else _slide(predictor, records, todo, hop_s, clip_progress)
        )
        try:
            with loader_faults(VIEW_TIMEOUT_S):
                for index, result in results:
                    prediction = _record(records[index], result, options.num_crops)
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


def _spread(
    predictor: Predictor, records: tuple[VideoRecord, ...], todo: list[int]
) -> Iterator[tuple[int, VideoScores | str]]:
    """Yield (index, scores or error) of each video, its clips spread over it."""
    options = predictor.options
    dataset = ViewDataset(
        records,
        predictor.preprocessing,
        num_clips=options.num_clips,
        num_crops=options.num_crops,
        frame_order=options.frame_order,
        decoder=options.decoder,
    )
    for item in view_loader(dataset, todo, options.num_workers) if todo else ():
        yield item.index, item.error if item.error is not None else predictor.score(item)


def _slide(
    predictor: Predictor,
    records: Sequence[VideoRecord],
    todo: Iterable[int],
    hop_s: float,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, VideoScores | str]]:
    """Yield (index, scores or error) of each video, clips sliding over it."""
    for index in todo:
        try:
            yield index, predict_sliding(predictor, records[index].path, hop_s=hop_s, progress=progress)
        except VideoDecodeError as error:
            yield index, error.reason


def _record(record: VideoRecord, result: VideoScores | str, num_crops: int) -> VideoPrediction:
    prediction = VideoPrediction(record.video_id, record.path, record.label)
    if isinstance(result, str):
        prediction.error = result
        return prediction
    if not np.isfinite(result.scores).all():
        prediction.error = "the network gave NaN or infinite scores"
        return prediction
    prediction.num_views = len(result.clip_scores) * num_crops
    prediction.scores = result.scores
    prediction.clip_scores = result.clip_scores
    prediction.clip_start_s, prediction.clip_end_s = result.clip_start_s, result.clip_end_s
    return prediction


def _meta(
    checkpoint: Checkpoint, manifest: Manifest, options: EvaluationConfig, hop_s: float | None, device: str
) -> PredictionsMeta:
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
        labelled=all(record.label is not None for record in manifest.records),
        versions={name: version(name) for name in packages} | {"python": platform.python_version()},
        run={
            "command": " ".join(["dnl-video", *sys.argv[1:]]),
            "device": device,
            "precision": options.precision,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )
