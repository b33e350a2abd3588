"""Reads a predictions directory: as a table, video by video, or only the ids of finished videos."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.results.predictions import (
    CLIP_COLUMNS,
    Predictions,
    VideoPrediction,
    damaged,
    list_shards,
    read_arrays,
    read_meta,
    read_rows,
)

Row = dict[str, Any]


def finished_ids(directory: str | os.PathLike[str], *, retry_failed: bool = False) -> set[str]:
    """Return the ids of the videos that are done; empty when there is no directory.

    Split the **whole** list over processes first, then leave out the finished ids: processes that start at different
    times see different finished ids.

    Args:
        directory: The predictions directory.
        retry_failed: Count failed videos as unfinished. A later success then replaces the failure.

    Raises:
        InputError: A file of the directory is damaged.
    """
    rows = (row for *_, path in list_shards(Path(directory)) for row in read_rows(path))
    return {row["id"] for row in rows if row["row"] is not None or not retry_failed}


def read_predictions(
    directory: str | os.PathLike[str], *, order: Sequence[str] | None = None, clip_scores: bool = True
) -> Predictions:
    """Read a predictions directory as one table, which does not depend on the number of shards and processes.

    A video that failed and later succeeded (`--retry-failed`) counts as succeeded.

    Args:
        directory: The predictions directory.
        order: Ids of the videos in the order of the table, such as the manifest's; ids without a prediction are left
            out. By default videos are sorted by id, so that the table does not depend on the number of processes.
        clip_scores: Also read the clips: times, scores and features (most of the data).

    Raises:
        InputError: No video is finished, a file is damaged, an id has two results, or an id is not in `order`.
    """
    directory = Path(directory)
    meta = read_meta(directory)
    shards = {path: read_rows(path) for *_, path in list_shards(directory)}
    kept = _resolve(shards.items())
    if not kept:
        raise InputError(f"{directory} holds no finished video yet; run `dnl-video evaluate` or `predict` again")
    if meta.num_videos is not None and len(kept) > meta.num_videos:
        raise InputError(
            f"{directory} holds {len(kept)} videos, but its meta.json lists {meta.num_videos}; "
            "delete the directory and predict again"
        )
    places = _places(directory, list(kept), order)
    rows: list[Row] = [{}] * len(kept)
    place_of_row: dict[Path, NDArray[np.int64]] = {}
    for path, shard in shards.items():
        for row in shard:
            if kept[row["id"]] == (path, row["row"]):
                rows[places[row["id"]]] = row
            if row["label"] is not None and row["label"] >= len(meta.class_names):
                problem = f"is damaged: video {row['id']!r} has label {row['label']} of {len(meta.class_names)} classes"
                raise InputError(damaged(path, problem))
        place_of_row[path] = np.empty(_num_scored(path, shard), dtype=np.int64)
        for row in shard:
            if row["row"] is not None:
                place_of_row[path][row["row"]] = places[row["id"]]
    scores = np.full((len(kept), len(meta.class_names)), np.nan, dtype=np.float32)
    clip_columns: dict[str, Any] = _read_arrays(place_of_row, scores, clip_scores)
    return Predictions(
        meta=meta,
        video_id=[row["id"] for row in rows],
        path=[row["path"] for row in rows],
        label=np.array([-1 if row["label"] is None else row["label"] for row in rows], dtype=np.int64),
        num_views=np.array([row["num_views"] for row in rows], dtype=np.int64),
        scores=scores,
        error=[row.get("error") for row in rows],
        **clip_columns,
    )


def iter_predictions(directory: str | os.PathLike[str], *, clip_scores: bool = False) -> Iterator[VideoPrediction]:
    """Yield the videos of a predictions directory, in the order of the shards.

    Memory holds one shard and the ids of all videos. A failure is left out when a later run succeeded.

    Args:
        directory: The predictions directory.
        clip_scores: Also read the clips: times, scores and features.

    Raises:
        InputError: A file is damaged, or an id has two results.
    """
    shards = [path for *_, path in list_shards(Path(directory))]
    num_classes = len(read_meta(directory).class_names)
    kept = _resolve((path, read_rows(path)) for path in shards)
    for path in shards:
        shard = read_rows(path)
        rows = [row for row in shard if kept[row["id"]] == (path, row["row"])]
        failed = [row for row in rows if row["row"] is None]
        for row in failed:
            yield VideoPrediction(row["id"], row["path"], row["label"], row["num_views"], error=row.get("error"))
        if len(failed) == len(rows):
            continue
        arrays = read_arrays(path, _num_scored(path, shard), num_classes, clips=clip_scores)
        for row in rows:
            if row["row"] is None:
                continue
            prediction = VideoPrediction(row["id"], row["path"], row["label"], row["num_views"])
            prediction.scores = arrays["scores"][row["row"]]
            for name in arrays.keys() & set(CLIP_COLUMNS):
                setattr(prediction, name, arrays[name][arrays["clip_video"] == row["row"]])
            yield prediction


def _num_scored(path: Path, shard: list[Row]) -> int:
    """Return the number of a shard's videos with scores; they are the rows 0, 1, ... of its arrays."""
    numbers = sorted(row["row"] for row in shard if row["row"] is not None)
    if numbers != list(range(len(numbers))):
        raise InputError(damaged(path, "numbers its rows wrongly"))
    return len(numbers)


def _resolve(shards: Iterable[tuple[Path, list[Row]]]) -> dict[str, tuple[Path, int | None]]:
    """Return the (shard, row) that counts for each id: its only success, else its last failure."""
    kept: dict[str, tuple[Path, int | None]] = {}
    for path, rows in shards:
        for row in rows:
            shard, number = kept.get(row["id"], (path, None))
            if number is None:
                kept[row["id"]] = (path, row["row"])
            elif row["row"] is not None:
                raise InputError(
                    f"video {row['id']!r} has scores in both {shard} and {path.name}; "
                    "delete one of the two with its scores file and run the same command again"
                )
    return kept


def _places(directory: Path, ids: list[str], order: Sequence[str] | None) -> dict[str, int]:
    """Return the row of the table for each id."""
    known = set(ids)
    wanted = sorted(ids) if order is None else dict.fromkeys(video_id for video_id in order if video_id in known)
    places = {video_id: place for place, video_id in enumerate(wanted)}
    unlisted = [video_id for video_id in ids if video_id not in places]
    if unlisted:
        raise InputError(
            f"{directory} holds {len(unlisted)} videos that are not in the list, the first is {unlisted[0]!r}; "
            "give the list that was predicted"
        )
    return places


def _read_arrays(
    place_of_row: dict[Path, NDArray[np.int64]], scores: NDArray[np.float32], with_clips: bool
) -> dict[str, Any]:
    """Fill `scores` [n, K] from the npz files (shard -> place of each row in the table); return the clip columns."""
    clip_videos: dict[Path, NDArray[np.int64]] = {}
    for path, places in place_of_row.items():
        if not len(places):
            continue
        arrays = read_arrays(path, len(places), scores.shape[1], clips=with_clips)
        scores[places] = arrays["scores"]
        if "clip_video" in arrays:
            clip_videos[path] = places[arrays["clip_video"]]
    if not clip_videos:
        return {}
    clip_video = np.concatenate(list(clip_videos.values()))
    # Sort clips by video; the clips of one video keep their order.
    by_video = np.argsort(clip_video, kind="stable")
    columns: dict[str, NDArray[Any]] = {"clip_video": clip_video[by_video]}
    place = np.empty_like(by_video)
    place[by_video] = np.arange(len(by_video))
    # A second pass fills the columns in place, so that memory holds the clips only once.
    last = np.cumsum([len(videos) for videos in clip_videos.values()])
    for path, here in zip(clip_videos, np.split(place, last[:-1]), strict=True):
        arrays = read_arrays(path, len(place_of_row[path]), scores.shape[1], clips=True)
        for name in arrays.keys() & set(CLIP_COLUMNS):
            values = arrays[name]
            if name not in columns:
                columns[name] = np.full((len(clip_video), *values.shape[1:]), np.nan, dtype=values.dtype)
            if values.shape[1:] != columns[name].shape[1:]:
                raise InputError(damaged(path, f"is damaged: {name} of shape {values.shape} differs from other shards"))
            columns[name][here] = values
    return columns
