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

import dataclasses
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dnl_video.config import FrameOrder
from dnl_video.errors import InputError
from dnl_video.files import list_folder
from dnl_video.spec import ModelSpec, Preprocessing, check_fields, from_dict, shortened

SCHEMA_VERSION = 1
# Columns with one entry per clip, besides clip_video; also fields of VideoPrediction and Predictions.
CLIP_COLUMNS = ("clip_start_s", "clip_end_s", "clip_scores", "clip_features")

_GIVE = "give the directory that `dnl-video evaluate` or `predict` wrote"
_SHARD = re.compile(r"videos-(\d+)-(\d+)\.jsonl")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def _is_index(value: Any) -> bool:
    return value is None or _is_count(value)


# The fields of a row, each with the test of its values.
_ROW = {"id": _is_text, "path": _is_text, "label": _is_index, "num_views": _is_count, "row": _is_index}


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
    frame_order: FrameOrder = "natural"
    hop_s: float | None = None
    clip_features: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    run: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    RANGES: ClassVar[dict[str, str]] = {
        "[0, 1000000]": "num_clips",
        "[1, 1000]": "num_crops",
        "[0, 1000000000000]": "num_videos",
        "(0, 1000000]": "hop_s",
        "[1, 1]": "schema_version",
    }

    def __post_init__(self) -> None:
        check_fields(self)
        for kind, name in ((ModelSpec, "model"), (Preprocessing, "preprocessing")):
            from_dict(kind, getattr(self, name))
        if not self.class_names:
            raise InputError("class_names is []; give the names of the classes")
        outputs = self.model.get("num_classes", len(self.class_names))
        if len(self.class_names) != outputs:
            raise InputError(f"class_names has {len(self.class_names)} names, but model.num_classes is {outputs}")


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
    advice = "delete the directory and predict again"
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); make it readable") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); {advice}") from error
    if isinstance(values, dict):
        version = values.setdefault("schema_version")
        if version is None and "kind" in values:
            raise InputError(f"{directory} holds {values['kind']} in an older format, one npz per video; {_GIVE}")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise InputError(
                f"{path} has schema_version {version}, this dnl_video reads up to {SCHEMA_VERSION}; update dnl_video"
            )
        names = {f.name for f in dataclasses.fields(PredictionsMeta)}
        values = {name: value for name, value in values.items() if name in names}
    try:
        return from_dict(PredictionsMeta, values)
    except InputError as error:
        raise InputError(f"{path} is damaged ({error}); {advice}") from error


def list_shards(directory: Path) -> list[tuple[int, int, Path]]:
    """Return (rank, seq, jsonl) of every complete shard, sorted; empty when there is no directory."""
    found = ((_SHARD.fullmatch(path.name), path) for path in list_folder(directory))
    return sorted((int(match[1]), int(match[2]), path) for match, path in found if match)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a jsonl, without their top5 (the npz has all scores).

    Raises:
        InputError: The file is empty or damaged, or a field has a value that is not allowed.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); make it readable") from error
    if not lines:
        raise InputError(damaged(path, "is empty"))
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            row.pop("top5", None)
            wrong = [name for name, allowed in _ROW.items() if not allowed(row[name])]
            failed = row["row"] is None
            if not (_is_text(row["error"]) if failed else row.get("error") is None):
                wrong.append("error")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            missing = f": {error} is missing" if isinstance(error, KeyError) else ""
            raise InputError(damaged(path, f"is damaged in line {number}{missing}")) from error
        if wrong:
            problem = f"is damaged in line {number}: {wrong[0]} is {shortened(row[wrong[0]])}"
            raise InputError(damaged(path, problem))
        rows.append(row)
    return rows


def read_arrays(jsonl: Path, num_rows: int, num_classes: int, *, clips: bool) -> dict[str, NDArray[Any]]:
    """Read the arrays of a shard: `scores` [num_rows, K] and, if wanted and stored, the columns of its m clips.

    Raises:
        InputError: The npz is missing or damaged, or an array has another type, shape or range.
    """
    path = _npz_of(jsonl)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if clips or name == "scores.npy"]
            arrays = {name.removesuffix(".npy"): _read_array(archive, name) for name in names}
        _check_arrays(arrays, num_rows, num_classes)
    except PermissionError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); make it readable") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        problem = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise InputError(damaged(path, problem)) from error
    return arrays


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read an array; nothing is allocated for a shape that does not agree with the stored bytes."""
    entry = archive.getinfo(name)
    with archive.open(entry) as file:
        if entry.compress_type != zipfile.ZIP_STORED or np.lib.format.read_magic(file) != (1, 0):  # type: ignore[no-untyped-call]
            raise ValueError(f"{name} has another format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
        num_bytes = math.prod(shape) * dtype.itemsize
        if fortran or dtype.kind not in "fi" or num_bytes != entry.file_size - file.tell():
            raise ValueError(f"{name} of type {dtype} and shape {shape} does not fit its bytes")
        return np.ndarray(shape, dtype, bytearray(file.read()))


def _check_arrays(arrays: Mapping[str, NDArray[Any]], num_rows: int, num_classes: int) -> None:
    """Raise ValueError for an array with another shape than documented, or clips of no row or no time."""
    clip_video = arrays.get("clip_video")
    expected: dict[str, tuple[int, ...]] = {"scores": (num_rows, num_classes)}
    if clip_video is not None:
        (m,) = clip_video.shape
        features = arrays["clip_features"].shape[1:2] if "clip_features" in arrays else ()
        expected |= {"clip_video": (m,), "clip_start_s": (m,), "clip_end_s": (m,)}
        expected |= {"clip_scores": (m, num_classes), "clip_features": (m, *features)}
        outside = ((clip_video < 0) | (clip_video >= num_rows)).any()
        if clip_video.dtype.kind != "i" or outside or (np.diff(clip_video) < 0).any():
            raise ValueError(f"clip_video must ascend from 0 to {num_rows - 1} at most")
    required = {"scores"} if clip_video is None else {"scores", "clip_start_s", "clip_end_s"}
    for name in sorted(arrays.keys() | required):
        shape = arrays[name].shape
        if shape != expected.get(name):
            raise ValueError(f"{name} of shape {shape}, expected {expected.get(name)}")
        if name.endswith("_s") and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds times that are not finite")


def damaged(path: Path, problem: str) -> str:
    """Return the error message for a shard that cannot be used."""
    jsonl = path.with_name(path.name.replace("scores-", "videos-").replace(".npz", ".jsonl"))
    return (
        f"{path} {problem}; delete {jsonl.name} and {_npz_of(jsonl).name} and run the same command again: "
        "only their videos are redone"
    )


def _npz_of(jsonl: Path) -> Path:
    return jsonl.with_name(jsonl.name.replace("videos-", "scores-").replace(".jsonl", ".npz"))
