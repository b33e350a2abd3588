"""Merges a predictions directory into one file, such as predictions.csv with the best classes of each video."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.files import locked, write_atomic, write_csv
from dnl_video.results.predictions import list_shards
from dnl_video.results.reader import iter_predictions


@dataclass(frozen=True)
class TopClasses:
    """The k best classes of n videos."""

    classes: NDArray[np.int32]  # class indices, best first, [n, k]; -1 for failed videos
    scores: NDArray[np.float32]  # their scores, [n, k]; NaN for failed videos
    errors: dict[int, str]  # reasons of failed videos, by place in the list


@contextlib.contextmanager
def merging(directory: Path, settings: str) -> Iterator[bool]:
    """Lock the directory while one process merges its shards; yield False if they are already merged.

    Several processes may finish at the same time and find the directory complete. The first one merges.

    Args:
        directory: The predictions directory.
        settings: Options that change the merged files; with other settings, the shards are merged again.
    """
    names = "\n".join([settings, *(path.name for *_, path in list_shards(directory))])
    digest = hashlib.sha256(names.encode()).hexdigest()
    stamp = directory / ".merged"
    with locked(directory / ".lock"):
        yield not (stamp.exists() and stamp.read_bytes() == digest.encode())
        write_atomic(stamp, digest)


def read_top_classes(
    directory: str | os.PathLike[str], video_ids: Sequence[str], num_classes: int, k: int
) -> TopClasses:
    """Read the best classes of a predictions directory, one shard at a time.

    Args:
        directory: The predictions directory; it must hold every listed video.
        video_ids: The list.
        num_classes: Number of classes K of the directory.
        k: Number of classes to keep, at most K.

    Raises:
        InputError: A file is damaged, a video is not in the list, or a listed video is missing.
    """
    place = {video_id: index for index, video_id in enumerate(video_ids)}
    k = min(k, num_classes)
    classes = np.full((len(place), k), -1, dtype=np.int32)
    scores = np.full((len(place), k), np.nan, dtype=np.float32)
    errors: dict[int, str] = {}
    seen = 0
    for prediction in iter_predictions(directory):
        seen += 1
        row = place.get(prediction.video_id)
        if row is None:
            raise InputError(
                f"{directory} holds {prediction.video_id!r}, which is not in the list; give the list that was predicted"
            )
        if prediction.scores is None:
            errors[row] = str(prediction.error)
            continue
        # Stable: equal scores keep the order of the classes.
        classes[row] = np.argsort(-prediction.scores, kind="stable")[:k]
        scores[row] = prediction.scores[classes[row]]
    if seen < len(place):
        raise InputError(f"{directory} holds {seen} of {len(place)} listed videos; run the same command again")
    return TopClasses(classes, scores, errors)


def write_top_classes(path: Path, videos: Sequence[str], top: TopClasses, class_names: Sequence[str]) -> None:
    """Write ``video,class_1,score_1,…,class_k,score_k,error``, one line per video.

    Raises:
        InputError: The file cannot be written.
    """
    k = top.classes.shape[1]

    def lines() -> Iterator[list[str]]:
        yield ["video", *(name for i in range(1, k + 1) for name in (f"class_{i}", f"score_{i}")), "error"]
        for row, video in enumerate(videos):
            if row in top.errors:
                yield [video, *[""] * (2 * k), top.errors[row]]
                continue
            pairs = zip(top.classes[row].tolist(), top.scores[row].tolist(), strict=True)
            yield [video, *(text for index, score in pairs for text in (class_names[index], f"{score:.6f}")), ""]

    write_csv(path, lines())
