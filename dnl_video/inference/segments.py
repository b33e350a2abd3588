"""Temporal segments of long videos: overlapping clip scores to timelines, segments.csv and segments.json.

Clip j covers [start_j, end_j); m_j is its middle. The video is divided into one **cell** per clip, with edges half-way
between the middles of neighbouring clips:

    clip 0   |-------*-------|                    * middle
    clip 1        |-------*-------|
    clip 2             |-------*-------|
    cells    |---------)|---)|---------)          [0, (m_0 + m_1) / 2), [.., (m_1 + m_2) / 2), [.., end)

The scores of a cell are the **mean over all clips that cover the middle of its clip**. (If clips do not overlap, each
cell has the scores of its clip, and a gap belongs to the nearer clip.) Neighbouring cells with the same best class form
a segment; its score is the mean score of that class over the time of the segment.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError
from dnl_video.files import dump_json, write_atomic, write_csv
from dnl_video.results.predictions import read_meta
from dnl_video.results.reader import iter_predictions

SCHEMA_VERSION = 1

Seconds = NDArray[np.floating]


@dataclass(frozen=True)
class Timeline:
    """Scores along time: cell j is [edges[j], edges[j + 1]); the cells cover the video without overlap."""

    edges: Seconds  # rising, [J + 1]
    scores: NDArray[np.float64]  # of each cell, [J, K]

    def cell_at(self, second: float) -> int:
        """Return the index of the cell at a time; times outside the video give the first or last cell."""
        return int(np.clip(np.searchsorted(self.edges, second, side="right") - 1, 0, len(self.scores) - 1))


@dataclass(frozen=True)
class Segment:
    """A time range [start_s, end_s) with one best class, and the mean score of that class."""

    start_s: float
    end_s: float
    class_index: int
    score: float


def make_timeline(clip_start_s: Seconds, clip_end_s: Seconds, clip_scores: NDArray[np.floating]) -> Timeline:
    """Average the scores of overlapping clips, one cell per clip (see the top of this module).

    Args:
        clip_start_s: Starts of the clips, not falling, [J].
        clip_end_s: Their ends, not falling, each after its start, [J].
        clip_scores: Their scores, [J, K].

    Raises:
        InputError: There are no clips, or their times are not in order.
    """
    start, end = np.asarray(clip_start_s, dtype=np.float64), np.asarray(clip_end_s, dtype=np.float64)
    if not len(start) or (np.diff(start) < 0).any() or (np.diff(end) < 0).any() or not (end > start).all():
        raise InputError("clips must be in order of time, at least one, and each end after its start")
    middle = (start + end) / 2
    edges = np.concatenate([start[:1], (middle[:-1] + middle[1:]) / 2, end[-1:]])
    # The clips that cover one point in time are neighbours.
    first = np.searchsorted(end, middle, side="right")
    last = np.searchsorted(start, middle, side="right")
    means = [clip_scores[a:b].mean(axis=0, dtype=np.float64) for a, b in zip(first, last, strict=True)]
    return Timeline(edges, np.stack(means))


def read_clips(directory: str | os.PathLike[str]) -> Iterator[tuple[str, Seconds, Seconds, NDArray[np.floating]]]:
    """Yield (video id, clip starts, clip ends, clip scores) of each video with clip scores, in the order of the shards.

    Raises:
        InputError: A file of the directory is damaged.
    """
    for video in iter_predictions(directory, clip_scores=True):
        if video.clip_scores is not None:
            assert video.clip_start_s is not None
            assert video.clip_end_s is not None
            yield video.video_id, video.clip_start_s, video.clip_end_s, video.clip_scores


def find_segments(timeline: Timeline) -> list[Segment]:
    """Merge neighbouring cells with the same best class (with equal scores, the class with the lower id)."""
    best = timeline.scores.argmax(axis=1)
    width = np.diff(timeline.edges)
    cuts = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
    segments = []
    for a, b in itertools.pairwise(cuts):
        score = np.average(timeline.scores[a:b, best[a]], weights=width[a:b])
        segments.append(Segment(float(timeline.edges[a]), float(timeline.edges[b]), int(best[a]), float(score)))
    return segments


def condense(timeline: Timeline, num_cells: int) -> Timeline:
    """Return a coarser timeline: equal cells with the mean over their time. A shorter timeline is unchanged."""
    if len(timeline.scores) <= num_cells:
        return timeline
    edges = np.linspace(timeline.edges[0], timeline.edges[-1], num_cells + 1)
    areas = np.diff(timeline.edges)[:, None] * timeline.scores
    running = np.concatenate([np.zeros((1, areas.shape[1])), np.cumsum(areas, axis=0)])
    at_edges = np.stack([np.interp(edges, timeline.edges, column) for column in running.T], axis=1)
    return Timeline(edges, np.diff(at_edges, axis=0) / np.diff(edges)[:, None])


def leading_classes(timeline: Timeline, k: int) -> list[int]:
    """Return the k main classes: first those that are best for the longest time, then those with the highest mean."""
    width = np.diff(timeline.edges)
    best_s = np.bincount(timeline.scores.argmax(axis=1), weights=width, minlength=timeline.scores.shape[1])
    mean = width @ timeline.scores
    return np.lexsort((-mean, -best_s))[:k].tolist()


def write_segments(
    directory: Path, videos: Sequence[tuple[str, str]], segments: Mapping[str, Sequence[Segment]]
) -> tuple[Path, Path]:
    """Write ``segments.csv`` (``video,start_s,end_s,class,score``) and ``segments.json`` into a predictions directory.

    Args:
        directory: The predictions directory.
        videos: (id, path) of the videos, in the order wanted.
        segments: Segments by id; a failed video has none.

    Raises:
        InputError: A file cannot be written.
    """
    meta = read_meta(directory)
    names = meta.class_names
    rows = [["video", "start_s", "end_s", "class", "score"]]
    entries = []
    for video_id, path in videos:
        found = []
        for one in segments.get(video_id, ()):
            name = names[one.class_index]
            rows.append([path, f"{one.start_s:.3f}", f"{one.end_s:.3f}", name, f"{one.score:.6f}"])
            start_s, end_s = round(one.start_s, 3), round(one.end_s, 3)
            found.append({"start_s": start_s, "end_s": end_s, "class": name, "score": round(one.score, 6)})
        entries.append({"id": video_id, "path": path, "segments": found})
    content = {
        "schema_version": SCHEMA_VERSION,
        "weights_sha256": meta.weights_sha256,
        "hop_s": meta.hop_s,
        "videos": entries,
    }
    table, document = directory / "segments.csv", directory / "segments.json"
    write_csv(table, rows)
    write_atomic(document, dump_json(content, indent=1) + "\n")
    return table, document
