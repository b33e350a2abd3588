"""The format of a predictions directory, which `predict`, `evaluate` and `features` write.

One directory holds one table of videos. Any number of processes append to it, at the same time or after a restart::

    meta.json                  the run: model, weights, protocol, classes, list of videos
    scores-<rank>-<seq>.npz    scores [n, K]; for the clips clip_video, clip_start_s, clip_end_s [m],
                               clip_scores [m, K] and, from `features`, clip_features [m, C]
    videos-<rank>-<seq>.jsonl  one line per video: id, path, label, num_views, row of `scores`, and top5 or error
    .lock                      held while meta.json or merged files are written
    .writer-<rank>.lock        held by the process that writes the shards of this rank

A shard is complete when its jsonl exists: the npz is written first, and both writes are atomic. A killed process loses
at most the videos since its last flush, and a reader never sees half a shard.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.files import list_folder

SCHEMA_VERSION = 1
# Columns with one entry per clip, besides clip_video; also fields of VideoPrediction and Predictions.
CLIP_COLUMNS = ("clip_start_s", "clip_end_s", "clip_scores", "clip_features")

_GIVE = "give the directory that `dnl-video evaluate` or `predict` wrote"
_SHARD = re.compile(r"videos-(\d+)-(\d+)\.jsonl")


@dataclass(frozen=True)
class PredictionsMeta:
    """The run that a predictions directory belongs to.

    Args:
        model: The ModelSpec as a dictionary.
        preprocessing: The Preprocessing as a dictionary.
        weights: Name of the weights, usually the path of their file.
        weights_sha256: SHA-256 of the weights.
        num_clips: Clips per video; 0 for sliding clips, whose number depends on the video; None when unknown, as in
            the results of other projects (see `foreign`).
        num_crops: Crops per clip; None as for num_clips.
        class_names: Names of the model's K classes, in the order of its outputs.
        manifest: Source of the list of videos.
        manifest_sha256: SHA-256 of the list of videos.
        num_videos: Videos in the list; None as for num_clips.
        labelled: Whether every video of the list has a label.
        frame_order: Order of the frames within clips; accuracy with another order than natural is only a diagnostic.
        hop_s: Seconds between the starts of sliding clips; None when num_clips are spread over the video.
        clip_features: Whether the pooled features of the clips are stored.
        versions: Versions of the packages used. Not compared between runs.
        run: Command, device and date of the run. Not compared between runs.
        schema_version: Version of the directory's format.
    """

    model: dict[str, Any]
    preprocessing: dict[str, Any]
    weights: str
    weights_sha256: str
    num_clips: int | None
    num_crops: int | None
    class_names: list[str]
    manifest: str
    manifest_sha256: str
    num_videos: int | None
    labelled: bool
    frame_order: str = "natural"
    hop_s: float | None = None
    clip_features: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    run: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


@dataclass
class VideoPrediction:
    """The scores of one video, or the reason why it failed.

    Args:
        video_id: Unique name of the video.
        path: Its file.
        label: Its class index; None when unknown.
        num_views: Number of averaged views; 0 when failed.
        scores: Mean of the softmax over all views, float32 [K]; None when failed.
        clip_start_s: Start of each clip in seconds, [J].
        clip_end_s: End of each clip in seconds, [J].
        clip_scores: Scores of each clip, averaged over its crops, float32 [J, K].
        clip_features: Pooled features of each clip, averaged over its crops, float32 [J, C].
        error: Why it failed, or None.
    """

    video_id: str
    path: str
    label: int | None = None
    num_views: int = 0
    scores: NDArray[np.floating] | None = None
    clip_start_s: NDArray[np.floating] | None = None
    clip_end_s: NDArray[np.floating] | None = None
    clip_scores: NDArray[np.floating] | None = None
    clip_features: NDArray[np.floating] | None = None
    error: str | None = None


@dataclass
class Predictions:
    """A predictions directory as one table of n videos, K classes and m clips.

    Args:
        meta: The run.
        video_id: Names of the videos, [n].
        path: Their files, [n].
        label: Class indices, int64 [n]; -1 when unknown.
        num_views: Number of averaged views, int64 [n].
        scores: Video scores, float32 [n, K]; rows of failed videos are NaN.
        error: Why a video failed, or None, [n].
        clip_video: Index of each clip's video, ascending, int64 [m]; clips of one video keep their order. None, like
            the columns below, when not stored.
        clip_start_s: Starts of the clips in seconds, float64 [m].
        clip_end_s: Ends of the clips in seconds, float64 [m].
        clip_scores: Clip scores, float32 [m, K].
        clip_features: Pooled features of the clips, float32 [m, C].
        notes: Sentences about the origin of the scores, for readers of the report.
    """

    meta: PredictionsMeta
    video_id: list[str]
    path: list[str]
    label: NDArray[np.int64]
    num_views: NDArray[np.int64]
    scores: NDArray[np.float32]
    error: list[str | None]
    clip_video: NDArray[np.int64] | None = None
    clip_start_s: NDArray[np.float64] | None = None
    clip_end_s: NDArray[np.float64] | None = None
    clip_scores: NDArray[np.float32] | None = None
    clip_features: NDArray[np.float32] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def evaluated(self) -> NDArray[np.bool_]:
        """Videos that have scores, bool [n]."""
        return np.array([error is None for error in self.error], dtype=bool)


def read_meta(directory: str | os.PathLike[str]) -> PredictionsMeta:
    """Read `meta.json` of a predictions directory.

    Raises:
        InputError: The directory or the file is missing, damaged, or written by a newer version.
    """
    directory = Path(directory)
    path = directory / "meta.json"
    if not directory.is_dir():
        problem = "is not a directory" if directory.exists() else "does not exist"
        raise InputError(f"{directory} {problem}; {_GIVE}")
    if not path.exists():
        raise InputError(f"{directory} has no meta.json, so it is not a predictions directory; {_GIVE}")
    try:
        values = json.loads(path.read_bytes())
        version = values.get("schema_version")
        if version is None and "kind" in values:
            raise InputError(f"{directory} holds {values['kind']} in an older format, one npz per video; {_GIVE}")
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{path} has schema_version {version}, this dnl_video reads up to {SCHEMA_VERSION}; update dnl_video"
            )
        names = {f.name for f in dataclasses.fields(PredictionsMeta)}
        return PredictionsMeta(**{name: value for name, value in values.items() if name in names})
    except InputError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); delete the directory and predict again") from error


def list_shards(directory: Path) -> list[tuple[int, int, Path]]:
    """Return (rank, seq, jsonl) of every complete shard, sorted; empty when there is no directory."""
    found = ((_SHARD.fullmatch(path.name), path) for path in list_folder(directory))
    return sorted((int(match[1]), int(match[2]), path) for match, path in found if match)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a jsonl, without their top5 (the npz has all scores).

    Raises:
        InputError: The file is empty or damaged.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; make it readable") from error
    if not lines:
        raise InputError(damaged(path, "is empty"))
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            row.pop("top5", None)
            row["id"], row["path"], row["label"], row["num_views"], row["row"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(damaged(path, f"is damaged in line {number}")) from error
        rows.append(row)
    return rows


@contextlib.contextmanager
def open_npz(jsonl: Path) -> Iterator[Any]:
    """Open the npz that belongs to a jsonl.

    Raises:
        InputError: The file is missing or damaged, or its arrays do not fit in the block.
    """
    path = _npz_of(jsonl)
    try:
        with np.load(path, allow_pickle=False) as npz:
            yield npz
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        problem = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise InputError(damaged(path, problem)) from error


def damaged(path: Path, problem: str) -> str:
    """Return the error message for a shard that cannot be used."""
    jsonl = path.with_name(path.name.replace("scores-", "videos-").replace(".npz", ".jsonl"))
    return (
        f"{path} {problem}; delete {jsonl.name} and {_npz_of(jsonl).name} and run the same command again: "
        "only their videos are redone"
    )


def _npz_of(jsonl: Path) -> Path:
    return jsonl.with_name(jsonl.name.replace("videos-", "scores-").replace(".jsonl", ".npz"))
