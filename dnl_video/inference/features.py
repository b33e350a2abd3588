"""Videos of a list to files of pooled features, one per video.

    meta.json              network, weights' sha256, preprocessing, views
    <video>.npz            features [J, C], clip_start_s [J], clip_end_s [J], video_id, path
    failed-<rank>.jsonl    a line per video that could not be read: video_id, path, error

Sharded by rank without collectives, like `runner`. Each file appears whole, so a restart does only what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnl_video.config import EvaluationConfig
from dnl_video.cores import default_workers, network_threads
from dnl_video.data.crash_record import STOPPED_REASON, LoaderStopped, loader_faults
from dnl_video.data.dataset import VideoViews, ViewDataset, shard
from dnl_video.data.listings import VIDEO_EXTENSIONS
from dnl_video.data.loaders import VIEW_TIMEOUT_S, view_loader
from dnl_video.data.manifest import Manifest, VideoRecord
from dnl_video.errors import InputError
from dnl_video.files import atomic_path, lock_file, write_atomic
from dnl_video.inference.predictor import Predictor
from dnl_video.models.weights.checkpoint import Checkpoint
from dnl_video.results.predictions import VideoPrediction
from dnl_video.spec import to_dict

Progress = Callable[[int, int, VideoPrediction | None], None]
_KIND = "dnl_video features"


@dataclass(frozen=True)
class FeatureFiles:
    """What a folder of features holds of a list.

    Attributes:
        written: Videos with a file.
        failed: Reason by id of the videos that could not be read.
        missing: Videos that nobody has done yet.
    """

    written: int
    failed: dict[str, str]
    missing: int


def run_features(
    checkpoint: Checkpoint,
    manifest: Manifest,
    output: str | Path,
    options: EvaluationConfig,
    *,
    rank: int = 0,
    world_size: int = 1,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> FeatureFiles:
    """Write the features of every listed video that the folder does not have yet.

    Args:
        checkpoint: The trained network.
        manifest: The videos.
        output: The folder; made when absent, continued when it is of the same network and views.
        options: Views, device, precision.
        rank: This process.
        world_size: Number of processes.
        retry_failed: Try again what failed before.
        progress: Called with (videos done, videos of this process, the newest; None at the start).

    Raises:
        InputError: The folder belongs to other features or cannot be made, or the device does not exist.
    """
    output = Path(output)
    predictor = Predictor.from_checkpoint(checkpoint, options)
    _agree_on_meta(output, _meta(checkpoint, options))
    if predictor.device.type == "cpu":
        torch.set_num_threads(network_threads(default_workers(options.num_workers)))
    records = manifest.records
    files = [output / name for name in file_names(records)]
    mine = shard(len(records), rank, world_size)
    lock = lock_file(output / f".writer-{rank:04d}.lock", f"another process writes to {output}; wait for it")
    try:
        failed = {} if retry_failed else read_failures(output)
        todo = [i for i in mine if records[i].video_id not in failed and not files[i].exists()]
        _clean_up(output, {files[i] for i in todo})
        count = len(mine) - len(todo)
        if progress is not None:
            progress(count, len(mine), None)
        dataset = ViewDataset(
            records,
            predictor.preprocessing,
            num_clips=options.num_clips,
            num_crops=options.num_crops,
            decoder=options.decoder,
        )
        log = output / f"failed-{rank:04d}.jsonl"
        try:
            with loader_faults(VIEW_TIMEOUT_S):
                for item in view_loader(dataset, todo, options.num_workers) if todo else ():
                    record = records[item.index]
                    error = _write(predictor, record, item, files[item.index])
                    if error is not None:
                        _log_failure(log, record, error)
                    count += 1
                    if progress is not None:
                        progress(count, len(mine), VideoPrediction(record.video_id, record.path, None, error=error))
        except LoaderStopped as stopped:
            for record in (records[index] for index in todo):
                if record.path in stopped.videos:
                    _log_failure(log, record, STOPPED_REASON)
            raise
    finally:
        lock.release()
    return _state(output, records, files)


def file_names(records: Sequence[VideoRecord]) -> list[str]:
    """Return a file name below the output folder for each video.

    The id without its video extension, folders kept; of an id that leads elsewhere (an absolute path, or one through
    ``..``) its last part. Where two would be the same, both get a hash of their id.
    """
    names = []
    for record in records:
        path = Path(record.video_id)
        inside = path.name if path.is_absolute() or ".." in path.parts else path.as_posix()
        suffix = Path(inside).suffix
        names.append(inside[: -len(suffix)] if suffix.lower() in VIDEO_EXTENSIONS else inside)
    counts = Counter(names)
    return [
        f"{name}.npz" if counts[name] == 1 else f"{name}-{hashlib.sha256(r.video_id.encode()).hexdigest()[:8]}.npz"
        for name, r in zip(names, records, strict=True)
    ]


def _write(predictor: Predictor, record: VideoRecord, item: VideoViews, file: Path) -> str | None:
    """Write a video's file; return why not, where that fails."""
    if item.views is None:
        return item.error
    found = predictor.embed(item)
    if not np.isfinite(found.features).all():
        return "the network gave NaN or infinite features"
    arrays: dict[str, Any] = {
        "features": found.features,
        "clip_start_s": found.clip_start_s,
        "clip_end_s": found.clip_end_s,
        "video_id": record.video_id,
        "path": record.path,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        np.savez(temporary, **arrays)
    return None


def _state(output: Path, records: Sequence[VideoRecord], files: Sequence[Path]) -> FeatureFiles:
    failures = read_failures(output)
    without = [record.video_id for record, file in zip(records, files, strict=True) if not file.exists()]
    failed = {video_id: failures[video_id] for video_id in without if video_id in failures}
    return FeatureFiles(len(records) - len(without), failed, len(without) - len(failed))


def read_failures(output: Path) -> dict[str, str]:
    """Return the reason by id of the videos that could not be read."""
    found = {}
    for log in sorted(output.glob("failed-*.jsonl")):
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the last line of a killed process
                continue
            found[row["video_id"]] = row["error"]
    return found


def _log_failure(path: Path, record: VideoRecord, error: str) -> None:
    line = json.dumps({"video_id": record.video_id, "path": record.path, "error": error}) + "\n"
    # A killed process may have left half a line.
    torn = path.exists() and path.read_bytes()[-1:] != b"\n"
    with path.open("a", encoding="utf-8") as log:
        log.write("\n" + line if torn else line)


def _clean_up(output: Path, files: set[Path]) -> None:
    """Remove what killed processes left of these files."""
    for left in output.rglob(".*.npz.*.tmp"):
        if left.with_name(left.name[1:].rsplit(".", 2)[0]) in files:
            left.unlink(missing_ok=True)


def _meta(checkpoint: Checkpoint, options: EvaluationConfig) -> dict[str, Any]:
    return {
        "kind": _KIND,
        "weights": checkpoint.path,
        "weights_sha256": checkpoint.sha256,
        "model": to_dict(checkpoint.spec),
        "preprocessing": to_dict(checkpoint.preprocessing),
        "num_clips": options.num_clips,
        "num_crops": options.num_crops,
    }


def read_features_meta(output: Path) -> dict[str, Any] | None:
    """Return what meta.json says of a folder of features; None where it is absent or of something else."""
    try:
        there = json.loads((output / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return there if isinstance(there, dict) and there.get("kind") == _KIND else None


def _agree_on_meta(output: Path, meta: dict[str, Any]) -> None:
    """Write meta.json, or check that the one there says the same."""
    path = output / "meta.json"
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {output}: {error.strerror}; choose another --output") from error
    if not path.exists():
        write_atomic(path, json.dumps(meta, indent=1) + "\n")
        return
    there = read_features_meta(output)
    if there is None:
        raise InputError(f"{path} is not of features; choose another --output")
    # Plain JSON on both sides: a tuple written comes back as a list.
    plain = json.loads(json.dumps(meta))
    for name in ("weights_sha256", "model", "preprocessing", "num_clips", "num_crops"):
        if there.get(name) != plain[name]:
            raise InputError(
                f"{output} holds features with another {name} ({there.get(name)}, not {plain[name]}); "
                "choose another --output"
            )
