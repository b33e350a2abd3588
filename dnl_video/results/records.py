"""What a predictions directory holds, in memory: the run (meta.json), one video, and the whole table."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.files import dump_json, locked, write_atomic

SCHEMA_VERSION = 1

# How or where a run was made, not what it computes: a restart may change these. Files count by their hashes.
_NOT_COMPARED = ("versions", "run", "weights", "manifest")


@dataclass(frozen=True)
class PredictionsMeta:
    """What one predictions directory is a prediction of.

    Args:
        model: The ModelSpec as a dictionary.
        preprocessing: The Preprocessing as a dictionary.
        weights: Name of the weights, usually the path of their file.
        weights_sha256: SHA-256 of the weights.
        num_clips: Clips per video; 0 where they slide, as many as the video has room for; None where another project's
            results do not say (`foreign.py`), as in the next.
        num_crops: Crops per clip.
        class_names: The model's K class names, in the order of its outputs.
        manifest: Where the list of videos came from.
        manifest_sha256: SHA-256 of the list of videos.
        num_videos: Videos in the list; None where another project's results do not say.
        labelled: Whether every video of the list has a label.
        frame_order: Order of the frames within clips; anything but natural is a probe, not an evaluation.
        hop_s: Seconds from one clip to the next where clips slide; None where num_clips are spread over the video.
        versions: Versions of the packages used. Not compared between runs.
        run: How it was run, such as the command, the device and the date. Not compared between runs.
        schema_version: Version of the layout of the directory.
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
    versions: dict[str, str] = field(default_factory=dict)
    run: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


@dataclass
class VideoPrediction:
    """The scores of one video, or why there are none.

    Args:
        video_id: Unique name of the video.
        path: Its file.
        label: Its class index, or None when unknown.
        num_views: Views that were averaged; 0 when failed.
        scores: Mean of the softmax over all views, float32 [K]; None when failed.
        clip_start_s: Start of each clip in seconds, [J].
        clip_end_s: End of each clip in seconds, [J].
        clip_scores: Scores of each clip, averaged over its crops, float32 [J, K].
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
    error: str | None = None


@dataclass
class Predictions:
    """A predictions directory as one table of n videos, K classes and m clips.

    Args:
        meta: What the predictions are of.
        video_id: Names of the videos, [n].
        path: Their files, [n].
        label: Class indices, int64 [n]; -1 where unknown.
        num_views: Views averaged, int64 [n].
        scores: Video scores, float32 [n, K]; rows of failed videos are NaN.
        error: Why a video failed, or None, [n].
        clip_video: Index of each clip's video, ascending, int64 [m]; None when no clip scores are stored (as for the
            next three). Clips of one video keep the order they were given in.
        clip_start_s: Starts of the clips in seconds, float64 [m].
        clip_end_s: Ends of the clips in seconds, float64 [m].
        clip_scores: Clip scores, float32 [m, K].
        notes: What a reader of figures should know about where they come from, in sentences.
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
        what = "is not a directory" if directory.exists() else "does not exist"
        raise InputError(f"{directory} {what}; give the directory that `dnl-video evaluate` or `predict` wrote")
    try:
        values = json.loads(path.read_bytes())
        if isinstance(values, dict) and "kind" in values and "schema_version" not in values:
            raise InputError(
                f"{directory} holds {values['kind']}, not predictions; "
                "give the directory that `dnl-video evaluate` or `predict` wrote"
            )
        version = values["schema_version"]
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{path} has schema_version {version}, this dnl_video reads up to {SCHEMA_VERSION}; update dnl_video"
            )
        names = {f.name for f in dataclasses.fields(PredictionsMeta)}
        return PredictionsMeta(**{name: value for name, value in values.items() if name in names})
    except FileNotFoundError:
        raise InputError(
            f"{directory} has no meta.json, so it is no predictions directory; "
            "give the directory that `dnl-video evaluate` or `predict` wrote"
        ) from None
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); delete the directory and predict again") from error


def agree_on_meta(directory: Path, meta: PredictionsMeta) -> None:
    """Write meta.json, or check that the one that is there describes the same run.

    Raises:
        InputError: It describes another run; the message names what differs.
    """
    path = directory / "meta.json"
    values = dataclasses.asdict(meta)
    if not path.exists():
        # Of several processes that start together one creates the file; the others compare.
        with locked(directory / ".lock"):
            if not path.exists():
                write_atomic(path, dump_json(values, indent=1) + "\n")
    there = dataclasses.asdict(read_meta(directory))
    now = json.loads(dump_json(values))  # tuples to lists
    differences = [d for key in now if key not in _NOT_COMPARED for d in _differences(key, there[key], now[key])]
    if differences:
        raise InputError(
            f"{directory} holds predictions of another run, which differs in {', '.join(differences)}; "
            "choose another --output or delete the directory"
        )


def _differences(key: str, there: Any, now: Any) -> list[str]:
    if there == now:
        return []
    if isinstance(there, dict) and isinstance(now, dict):
        keys = [*now, *(k for k in there if k not in now)]
        return [d for k in keys for d in _differences(f"{key}.{k}", there.get(k), now.get(k))]
    if isinstance(there, list) or isinstance(now, list) or len(str(there)) > 80:
        return [key]
    if key.endswith("sha256"):
        there, now = str(there)[:12], str(now)[:12]
    return [f"{key} ({there} there, {now} now)"]
