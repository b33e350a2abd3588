"""Reading a predictions directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.results.records import Predictions, VideoPrediction, read_meta
from dnl_video.results.shards import damaged, list_shards, open_npz, read_rows


def finished_ids(directory: str | os.PathLike[str], *, retry_failed: bool = False) -> set[str]:
    """Return the ids of the videos that need no further work; empty for a directory that is not there yet.

    Split the **whole** list over processes first and leave out finished ids afterwards: processes that start at
    different times see different finished ids.

    Args:
        directory: The predictions directory.
        retry_failed: Count videos that failed as unfinished. A later success then replaces the failure.

    Raises:
        InputError: A file of the directory is damaged.
    """
    rows = (row for *_, path in list_shards(Path(directory)) for row in read_rows(path))
    return {row["id"] for row in rows if row["row"] is not None or not retry_failed}


def read_predictions(
    directory: str | os.PathLike[str], *, order: Sequence[str] | None = None, clip_scores: bool = True
) -> Predictions:
    """Read a predictions directory as one table, whatever the number of shards and processes that wrote it.

    A video that failed and later succeeded (`--retry-failed`) counts as succeeded.

    Args:
        directory: The predictions directory.
        order: Ids of videos in the order wanted, such as the manifest's; ids without a prediction yet are left out.
            By default videos are sorted by id, so that the table does not depend on the number of processes.
        clip_scores: Also read clips (the bulk of the data).

    Raises:
        InputError: Nothing to read, damaged files, one id with two results, or an id that is not in `order`.
    """
    directory = Path(directory)
    meta = read_meta(directory)
    shards = [(path, read_rows(path)) for *_, path in list_shards(directory)]
    kept = _resolve(shards)
    if not kept:
        raise InputError(f"{directory} holds no finished video yet; run `dnl-video evaluate` or `predict` again")
    if meta.num_videos is not None and len(kept) > meta.num_videos:
        raise InputError(
            f"{directory} holds {len(kept)} videos, but its meta.json lists {meta.num_videos}; "
            "delete the directory and predict again"
        )
    places = _places(directory, list(kept), order)
    n = len(kept)
    rows: list[dict[str, Any]] = [{}] * n
    scores = np.full((n, len(meta.class_names)), np.nan, dtype=np.float32)
    sources: list[tuple[Path, NDArray[np.int64]]] = []  # (npz, place of each of its rows in the table)
    for index, (path, shard_rows) in enumerate(shards):
        place_of_row: dict[int, int] = {}
        for row in shard_rows:
            if kept[row["id"]] == (index, row["row"]):
                rows[places[row["id"]]] = row
                if row["row"] is not None:
                    place_of_row[row["row"]] = places[row["id"]]
        if place_of_row:
            if sorted(place_of_row) != list(range(len(place_of_row))):
                raise InputError(damaged(path, "numbers its rows wrongly"))
            sources.append((path, np.array([place_of_row[i] for i in range(len(place_of_row))], dtype=np.int64)))
    clips = _read_scores(sources, scores, clip_scores)
    return Predictions(
        meta=meta,
        video_id=[row["id"] for row in rows],
        path=[row["path"] for row in rows],
        label=np.array([-1 if row["label"] is None else row["label"] for row in rows], dtype=np.int64),
        num_views=np.array([row["num_views"] for row in rows], dtype=np.int64),
        scores=scores,
        error=[row.get("error") for row in rows],
        **clips,
    )


def iter_predictions(directory: str | os.PathLike[str], *, clip_scores: bool = False) -> Iterator[VideoPrediction]:
    """Yield the videos of a predictions directory shard by shard, whatever their number.

    Memory holds one shard, and the names of all videos. The order is that of the shards; a failure that a later run
    mended is left out.

    Args:
        directory: The predictions directory.
        clip_scores: Also read the clips' times and scores, where they are stored.

    Raises:
        InputError: Damaged files, or one id with two results.
    """
    shards = [path for *_, path in list_shards(Path(directory))]
    kept = _resolve((path, read_rows(path)) for path in shards)
    for index, path in enumerate(shards):
        rows = [row for row in read_rows(path) if kept[row["id"]] == (index, row["row"])]
        failed = [row for row in rows if row["row"] is None]
        for row in failed:
            yield VideoPrediction(row["id"], row["path"], row["label"], row["num_views"], error=row.get("error"))
        if len(failed) == len(rows):
            continue
        with open_npz(path) as npz:
            columns = {name: npz[name] for name in npz.files if name == "scores" or clip_scores}
            for row in rows:
                if row["row"] is not None:
                    yield _one_prediction(row, columns)


def _one_prediction(row: dict[str, Any], columns: dict[str, NDArray[Any]]) -> VideoPrediction:
    prediction = VideoPrediction(row["id"], row["path"], row["label"], row["num_views"])
    prediction.scores = columns["scores"][row["row"]]
    if "clip_video" in columns:
        mine = columns["clip_video"] == row["row"]
        prediction.clip_scores = columns["clip_scores"][mine]
        prediction.clip_start_s, prediction.clip_end_s = columns["clip_start_s"][mine], columns["clip_end_s"][mine]
    return prediction


def _resolve(shards: Iterable[tuple[Path, list[dict[str, Any]]]]) -> dict[str, tuple[int, int | None]]:
    """Return the (shard, row) that stands for each id: its one success, else its last failure."""
    kept: dict[str, tuple[int, int | None]] = {}
    paths: list[Path] = []
    for index, (path, rows) in enumerate(shards):
        paths.append(path)
        for row in rows:
            before = kept.get(row["id"])
            if before is None or before[1] is None:
                kept[row["id"]] = (index, row["row"])
            elif row["row"] is not None:
                raise InputError(
                    f"video {row['id']!r} has scores in both {paths[before[0]]} and {path.name}; "
                    "delete one of the two with its scores file and run the same command again"
                )
    return kept


def _places(directory: Path, ids: list[str], order: Sequence[str] | None) -> dict[str, int]:
    """Return the row of the table for each id."""
    if order is None:
        return {video_id: place for place, video_id in enumerate(sorted(ids))}
    found = set(ids)
    places: dict[str, int] = {}
    for video_id in order:
        if video_id in found:
            places.setdefault(video_id, len(places))
    if len(places) < len(ids):
        strangers = [video_id for video_id in ids if video_id not in places]
        raise InputError(
            f"{directory} holds {len(strangers)} videos that are not in the list, the first is {strangers[0]!r}; "
            "give the list that was predicted"
        )
    return places


def _read_scores(
    sources: list[tuple[Path, NDArray[np.int64]]], scores: NDArray[np.float32], with_clips: bool
) -> dict[str, Any]:
    """Fill `scores` [n, K] from the npz files; return the clip columns of the table."""
    num_classes = scores.shape[1]
    clip_videos: list[tuple[Path, NDArray[np.int64]]] = []
    for path, places in sources:
        with open_npz(path) as npz:
            values = npz["scores"]
            if values.shape != (len(places), num_classes):
                raise ValueError(f"scores of shape {values.shape}, expected {(len(places), num_classes)}")
            scores[places] = values
            if with_clips and "clip_scores" in npz.files:
                clip_videos.append((path, places[npz["clip_video"]]))
    if not clip_videos:
        return {}
    clip_video = np.concatenate([videos for _, videos in clip_videos])
    # The place of each clip in the table: by video, clips of one video as they were.
    by_video = np.argsort(clip_video, kind="stable")
    places = np.empty_like(by_video)
    places[by_video] = np.arange(len(by_video))
    columns: dict[str, Any] = {
        "clip_video": clip_video[by_video],
        "clip_start_s": np.empty(len(places)),
        "clip_end_s": np.empty(len(places)),
        "clip_scores": np.empty((len(places), num_classes), dtype=np.float32),
    }
    first = 0
    for path, videos in clip_videos:
        here = places[first : first + len(videos)]
        first += len(videos)
        with open_npz(path) as npz:
            for name in ("clip_start_s", "clip_end_s", "clip_scores"):
                columns[name][here] = npz[name]
    return columns
