from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnl_video.inference.segments import Segment, Timeline, condense, find_segments, leading_classes, make_timeline


def one_hot(*classes: int, num_classes: int = 3) -> np.ndarray:
    return np.eye(num_classes)[list(classes)]


def test_cells_and_votes_by_hand():
    """Clips [0, 4), [2, 6), [4, 8), [6, 10) with middles 2, 4, 6, 8."""
    start = np.array([0.0, 2.0, 4.0, 6.0])
    scores = np.array([[1.0, 0.0], [0.6, 0.4], [0.2, 0.8], [0.0, 1.0]])
    timeline = make_timeline(start, start + 4, scores)
    assert timeline.edges.tolist() == [0, 3, 5, 7, 10]
    # Half-open: second 2 is in clips 0 and 1, second 4 in 1 and 2 (clip 0 has just ended), and so on.
    expected = [[0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.0, 1.0]]
    np.testing.assert_allclose(timeline.scores, expected)
    first, second = find_segments(timeline)
    assert first == Segment(0.0, 3.0, 0, pytest.approx(0.8))
    # Weighted by time: 2 s of 0.6, 2 s of 0.9, 3 s of 1.
    assert second == Segment(3.0, 10.0, 1, pytest.approx((2 * 0.6 + 2 * 0.9 + 3 * 1.0) / 7))
    assert [timeline.cell_at(s) for s in (-1, 0, 2.99, 3, 6.9, 7, 9.99, 10, 11)] == [0, 0, 0, 1, 2, 3, 3, 3, 3]


def test_clips_without_overlap_keep_their_scores():
    timeline = make_timeline(np.array([0.0, 10.0, 20.0]), np.array([2.0, 12.0, 22.0]), one_hot(0, 1, 1))
    assert find_segments(timeline) == [Segment(0.0, 6.0, 0, 1.0), Segment(6.0, 22.0, 1, 1.0)]


def test_one_clip_and_ties():
    assert find_segments(make_timeline(np.array([0.0]), np.array([0.5]), np.full((1, 3), 1 / 3))) == [
        Segment(0.0, 0.5, 0, pytest.approx(1 / 3))
    ]


def test_a_change_is_found_at_its_time():
    """Clips of 2 s every 0.5 s; the scores are the shares of a clip before and after second 10."""
    start = np.arange(0, 18.5, 0.5)
    after = np.clip(start + 2 - 10, 0, 2) / 2
    first, second = find_segments(make_timeline(start, start + 2, np.stack([1 - after, after], axis=1)))
    assert first.end_s == second.start_s == pytest.approx(10, abs=0.25)
    assert (first.class_index, second.class_index) == (0, 1)
    assert second.end_s == 20


@given(st.lists(st.tuples(st.floats(0.05, 5), st.integers(0, 3)), min_size=1, max_size=40), st.floats(0.2, 6))
@settings(deadline=None)
def test_segments_tile_the_video_and_agree_with_a_loop(hops, span):
    start = np.cumsum([hop for hop, _ in hops]) - hops[0][0]
    rng = np.random.default_rng(len(hops))
    scores = rng.dirichlet(np.ones(4), len(start)) + one_hot(*(c for _, c in hops), num_classes=4)
    timeline = make_timeline(start, start + span, scores)
    for cell, (a, b) in enumerate(zip(start, start + span, strict=True)):
        middle = (a + b) / 2
        votes = [scores[j] for j in range(len(start)) if start[j] <= middle < start[j] + span]
        np.testing.assert_allclose(timeline.scores[cell], np.mean(votes, axis=0))
    segments = find_segments(timeline)
    assert segments[0].start_s == 0
    assert segments[-1].end_s == pytest.approx(start[-1] + span)
    for before, after in itertools.pairwise(segments):
        assert before.end_s == after.start_s
        assert before.class_index != after.class_index
    for one in segments:
        middle = (one.start_s + one.end_s) / 2
        assert timeline.scores[timeline.cell_at(middle)].argmax() == one.class_index


def test_leading_classes_are_ranked_by_time_then_by_score():
    # Class 2 is best for 5 s, class 0 for 3 s; of the others class 3 has more score than class 1.
    timeline = Timeline(np.array([0.0, 3.0, 8.0]), np.array([[0.9, 0.0, 0.0, 0.1], [0.2, 0.0, 0.6, 0.2]]))
    assert leading_classes(timeline, 4) == [2, 0, 3, 1]
    assert leading_classes(timeline, 1) == [2]


def test_condensed_scores_are_means_over_time():
    timeline = Timeline(np.array([0.0, 1.0, 2.0, 6.0]), np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    assert condense(timeline, 3) is timeline
    coarse = condense(timeline, 2)
    assert coarse.edges.tolist() == [0, 3, 6]
    # 1 s of 1, 1 s of 0, 1 s of 0.5; then 0.5.
    np.testing.assert_allclose(coarse.scores, [[0.5, 0.5], [0.5, 0.5]])
    skewed = condense(Timeline(np.array([0.0, 3.0, 4.0, 8.0]), one_hot(0, 1, 2)), 2)
    np.testing.assert_allclose(skewed.scores, [[0.75, 0.25, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("start", "end"),
    [([], []), ([1.0, 0.0], [2.0, 3.0]), ([0.0, 1.0], [3.0, 2.0]), ([0.0], [0.0]), ([0.0, 3.0], [2.0, 3.0])],
)
def test_clips_out_of_order_are_refused(start, end):
    with pytest.raises(ValueError, match="in order of time, at least one, and each end after its start"):
        make_timeline(np.array(start), np.array(end), np.ones((len(start), 2)))
