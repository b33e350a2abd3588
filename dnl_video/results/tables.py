"""Reads a predictions directory in the order of its list, and merges it into predictions.csv."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dnl_video.errors import InputError
from dnl_video.files import locked, write_atomic, write_csv
from dnl_video.results.predictions import VideoPrediction, list_shards
from dnl_video.results.reader import iter_predictions


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


def iter_in_order(
    directory: str | os.PathLike[str], video_ids: Sequence[str], *, clip_scores: bool = False
) -> Iterator[VideoPrediction]:
    """Yield the videos of a predictions directory in the order of a list; see `iter_predictions`.

    Memory holds one shard, and the videos that other processes finished before their turn in the list.

    Raises:
        InputError: A file is damaged, a video is not in the list, or a listed video is missing.
    """
    place = {video_id: index for index, video_id in enumerate(video_ids)}
    waiting: dict[int, VideoPrediction] = {}
    done = 0
    for video in iter_predictions(directory, clip_scores=clip_scores):
        if video.video_id not in place:
            raise InputError(
                f"{directory} holds {video.video_id!r}, which is not in the list; give the list that was predicted"
            )
        waiting[place[video.video_id]] = video
        while done in waiting:
            yield waiting.pop(done)
            done += 1
    if done < len(place):
        seen = done + len(waiting)
        raise InputError(f"{directory} holds {seen} of {len(place)} listed videos; run the same command again")


def write_top_classes(path: Path, videos: Iterable[VideoPrediction], class_names: Sequence[str], k: int) -> None:
    """Write ``video,class_1,score_1,…,class_k,score_k,error``, one line per video.

    Raises:
        InputError: The file cannot be written.
    """
    k = min(k, len(class_names))

    def lines() -> Iterator[list[str]]:
        yield ["video", *(name for i in range(1, k + 1) for name in (f"class_{i}", f"score_{i}")), "error"]
        for video in videos:
            cells = [""] * (2 * k)
            if video.scores is not None:
                # Stable: equal scores keep the order of the classes.
                best = np.argsort(-video.scores, kind="stable")[:k].tolist()
                cells = [text for i in best for text in (class_names[i], f"{video.scores[i]:.6f}")]
            yield [video.path, *cells, video.error or ""]

    write_csv(path, lines())
