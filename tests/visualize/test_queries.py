from __future__ import annotations

import numpy as np
import pytest

from dnl_video.errors import InputError
from dnl_video.visualize.queries import Query, checked_queries, default_queries, parse_query, strongest_motion


def test_parsing() -> None:
    assert parse_query("4,0.5,0.25") == Query(4, 0.5, 0.25)
    for text in ("4,0.5", "a,0.5,0.5", "1.5,0.5,0.5", "1,0.5,0.5,0.5"):
        with pytest.raises(InputError, match=r"is not t,x,y; give a frame of the clip.*for example 4,0\.5,0\.25"):
            parse_query(text)


def test_queries_outside_the_clip_are_refused() -> None:
    with pytest.raises(InputError, match="query frame 8 is outside the clip; its frames are 0 to 7"):
        checked_queries([Query(8, 0.5, 0.5)], 8)
    for x, y in ((1.1, 0.5), (0.5, -0.1), (float("nan"), 0.5)):
        with pytest.raises(InputError, match=r"query place x .* is outside the frame; both go from 0"):
            checked_queries([Query(0, x, y)], 8)
    assert checked_queries([Query(7, 1, 0.25)], 8) == [Query(7, 1, 0.25, "(7, 1, 0.25)")]


def test_pixels() -> None:
    assert Query(0, 0.5, 0.25).pixel(8, 4) == (1.5, 1.5)  # between the second and third row and column
    assert Query(0, 0, 1).pixel(8, 4) == (7.5, -0.5)


def test_the_place_of_the_strongest_motion() -> None:
    frames = np.random.default_rng(0).integers(100, 110, (6, 60, 90, 3), dtype=np.uint8)
    frames[:, 5, 7] = np.arange(6, dtype=np.uint8)[:, None] % 2 * 250  # a flickering pixel is not motion
    frames[4:, 40:50, 70:80] = 220
    found = strongest_motion(frames, range(6))
    assert found is not None
    assert found.frame == 4
    assert abs(found.x * 90 - 75) <= 3
    assert abs(found.y * 60 - 45) <= 3
    # The slow pathway sees the change only in its next frame.
    slow = strongest_motion(frames, [0, 2, 5])
    assert slow is not None
    assert slow.frame == 5


def test_defaults() -> None:
    still = np.zeros((6, 30, 30, 3), dtype=np.uint8)
    assert default_queries(still, [0, 2, 4]) == [Query(2, 0.5, 0.5, "centre")]
    assert default_queries(still[:1], [0]) == [Query(0, 0.5, 0.5, "centre")]
    still[3:, :10, :10] = 255
    assert [query.origin for query in default_queries(still, range(6))] == ["strongest motion", "centre"]
