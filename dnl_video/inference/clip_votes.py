"""From overlapping clips to what happens when: cells, votes, segments. Pure numpy.

Clip j covers [start_j, end_j) and has its middle at m_j. The video is cut into one **cell** per clip, half-way between
the middles of neighbouring clips:

    clip 0   |-------*-------|                    * middle
    clip 1        |-------*-------|
    clip 2             |-------*-------|
    cells    |---------)|---)|---------)          [0, (m_0 + m_1) / 2), [.., (m_1 + m_2) / 2), [.., end)

A cell's scores are the **mean of all clips that cover its clip's middle**: every clip that saw the moment has one vote.
(Where clips do not overlap, each speaks for itself, and a gap between two of them falls to the nearer one.)
Neighbouring cells with the same best class make a segment, whose score is that class's mean over the segment's time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.floating]


@dataclass(frozen=True)
class Timeline:
    """Scores along time: cell j is [edges[j], edges[j + 1]), and the cells tile the video.

    Attributes:
        edges: Seconds, rising, [J + 1].
        scores: Scores of each cell, [J, K].
    """

    edges: Seconds
    scores: NDArray[np.float64]

    def cell_at(self, second: float) -> int:
        """Return the cell of a moment; moments before the first or after the last cell take that one."""
        return int(np.clip(np.searchsorted(self.edges, second, side="right") - 1, 0, len(self.scores) - 1))


@dataclass(frozen=True)
class Segment:
    """A stretch [start_s, end_s) with one best class, and that class's mean score."""

    start_s: float
    end_s: float
    class_index: int
    score: float


def make_timeline(clip_start_s: Seconds, clip_end_s: Seconds, clip_scores: NDArray[np.floating]) -> Timeline:
    """Let overlapping clips vote.

    Args:
        clip_start_s: Starts of the clips, not falling, [J].
        clip_end_s: Their ends, not falling, each after its start, [J].
        clip_scores: Their scores, [J, K].

    Raises:
        ValueError: There are no clips, or their times are not as said.
    """
    start, end = np.asarray(clip_start_s, dtype=np.float64), np.asarray(clip_end_s, dtype=np.float64)
    if not len(start) or (np.diff(start) < 0).any() or (np.diff(end) < 0).any() or not (end > start).all():
        raise ValueError("clips must be in order of time, at least one, and each end after its start")
    middle = (start + end) / 2
    edges = np.concatenate([start[:1], (middle[:-1] + middle[1:]) / 2, end[-1:]])
    # The clips that cover a moment are neighbours.
    first = np.searchsorted(end, middle, side="right")
    last = np.searchsorted(start, middle, side="right")
    votes = [clip_scores[a:b].mean(axis=0, dtype=np.float64) for a, b in zip(first, last, strict=True)]
    return Timeline(edges, np.stack(votes))


def find_segments(timeline: Timeline) -> list[Segment]:
    """Merge neighbouring cells with the same best class (of equal scores, the class with the lower id)."""
    best = timeline.scores.argmax(axis=1)
    width = np.diff(timeline.edges)
    cuts = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
    segments = []
    for a, b in itertools.pairwise(cuts):
        chosen = int(best[a])
        score = np.average(timeline.scores[a:b, chosen], weights=width[a:b])
        segments.append(Segment(float(timeline.edges[a]), float(timeline.edges[b]), chosen, float(score)))
    return segments


def condense(timeline: Timeline, num_cells: int) -> Timeline:
    """Return a coarser timeline: equal cells, each with the mean over its time; one with few cells is left as it is."""
    if len(timeline.scores) <= num_cells:
        return timeline
    edges = np.linspace(timeline.edges[0], timeline.edges[-1], num_cells + 1)
    areas = np.diff(timeline.edges)[:, None] * timeline.scores
    running = np.concatenate([np.zeros((1, areas.shape[1])), np.cumsum(areas, axis=0)])
    at_edges = np.stack([np.interp(edges, timeline.edges, column) for column in running.T], axis=1)
    return Timeline(edges, np.diff(at_edges, axis=0) / np.diff(edges)[:, None])


def leading_classes(timeline: Timeline, k: int) -> list[int]:
    """Return the k classes worth showing: those that are best for the longest time, then those with most score."""
    width = np.diff(timeline.edges)
    best_s = np.bincount(timeline.scores.argmax(axis=1), weights=width, minlength=timeline.scores.shape[1])
    mean = width @ timeline.scores
    return np.lexsort((-mean, -best_s))[:k].tolist()
