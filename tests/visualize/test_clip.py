from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dnl_video.data.decoding import open_video
from dnl_video.data.encoding import write_video
from dnl_video.errors import InputError
from dnl_video.spec import Preprocessing
from dnl_video.visualize.clip import (
    Query,
    checked_queries,
    default_queries,
    parse_query,
    read_clip,
    refuse_other_clips,
    strongest_motion,
)
from tests.data.odd_videos import film

PREPROCESSING = Preprocessing(num_frames=4, frame_stride=3, short_side=64, crop_size=64)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "ramp.mp4"
    frames = np.zeros((30, 64, 80, 3), dtype=np.uint8)
    frames += (8 * np.arange(30, dtype=np.uint8))[:, None, None, None]
    write_video(path, frames, 10)
    return path


def test_the_default_clip_and_one_with_a_given_start(video):
    with open_video(video) as opened:
        truth = opened.read(range(30))
    middle = read_clip(video, PREPROCESSING)
    assert middle.name == "ramp.mp4"
    np.testing.assert_allclose(middle.seconds, [1.0, 1.3, 1.6, 1.9])  # the middle of 20 possible starts
    assert middle.end_s == pytest.approx(2.0)
    np.testing.assert_array_equal(middle.frames, truth[10:20:3, :, 8:72])
    chosen = read_clip(video, PREPROCESSING, 2.5)
    np.testing.assert_allclose(chosen.seconds, [2.5, 2.8, 2.9, 2.9])  # the last frame repeats
    np.testing.assert_array_equal(chosen.frames, truth[[25, 28, 29, 29], :, 8:72])


def test_the_seconds_of_a_variable_rate(tmp_path):
    path = film(tmp_path / "film.mp4")
    clip = read_clip(path, PREPROCESSING, 3.1)
    np.testing.assert_allclose(clip.seconds, [3.1, 3.2, 3.7, 4.2])  # frames 93, 96, 99 and 102
    assert clip.end_s == pytest.approx(4.2 + 1 / 6)
    by_time = dataclasses.replace(PREPROCESSING, frame_stride=1, target_fps=6.0)
    np.testing.assert_allclose(read_clip(path, by_time, 2.9).seconds, [2.9, 3.0667, 3.2, 3.3667], atol=1e-4)
    with pytest.raises(InputError, match=r"clip start 19\.3 s lies outside .*; give 0 to 19\.03 s"):
        read_clip(path, PREPROCESSING, 19.3)


def test_messages(video, tmp_path):
    for start in (-1, 3.0, float("nan")):
        with pytest.raises(InputError, match=rf"clip start {start:g} s lies outside .*ramp\.mp4; give 0 to 2\.90 s"):
            read_clip(video, PREPROCESSING, start)
    with pytest.raises(InputError, match=r"nowhere\.mp4 does not exist; give one video file"):
        read_clip(tmp_path / "nowhere.mp4", PREPROCESSING)
    with pytest.raises(InputError, match="is a folder; give one video file"):
        read_clip(tmp_path, PREPROCESSING)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken\.mp4.*; give another video"):
        read_clip(tmp_path / "broken.mp4", PREPROCESSING)


def test_networks_that_see_different_clips():
    refuse_other_clips(PREPROCESSING, Preprocessing(4, 3, short_side=64, crop_size=64, mean=(0.0, 0.0, 0.0)))
    with pytest.raises(InputError, match="see different clips: frame_stride is 3 and 8; compare networks trained with"):
        refuse_other_clips(PREPROCESSING, Preprocessing(4, 8, short_side=64, crop_size=64))
    with pytest.raises(InputError, match="see different clips: antialias is True and False;"):
        refuse_other_clips(PREPROCESSING, Preprocessing(4, 3, short_side=64, crop_size=64, antialias=False))


def test_parsing():
    assert parse_query("4,0.5,0.25") == Query(4, 0.5, 0.25)
    for text in ("4,0.5", "a,0.5,0.5", "1.5,0.5,0.5", "1,0.5,0.5,0.5"):
        with pytest.raises(InputError, match=r"is not t,x,y; give a frame of the clip.*for example 4,0\.5,0\.25"):
            parse_query(text)


def test_queries_outside_the_clip_are_refused():
    with pytest.raises(InputError, match="query frame 8 is outside the clip; its frames are 0 to 7"):
        checked_queries([Query(8, 0.5, 0.5)], 8)
    for x, y in ((1.1, 0.5), (0.5, -0.1), (float("nan"), 0.5)):
        with pytest.raises(InputError, match=r"query place x .* is outside the frame; both go from 0"):
            checked_queries([Query(0, x, y)], 8)
    assert checked_queries([Query(7, 1, 0.25)], 8) == [Query(7, 1, 0.25, "(7, 1, 0.25)")]


def test_pixels():
    assert Query(0, 0.5, 0.25).pixel(8, 4) == (1.5, 1.5)  # between the second and third row and column
    assert Query(0, 0, 1).pixel(8, 4) == (7.5, -0.5)


def test_the_place_of_the_strongest_motion():
    frames = np.random.default_rng(0).integers(100, 110, (6, 60, 90, 3), dtype=np.uint8)
    frames[:, 5, 7] = np.arange(6, dtype=np.uint8)[:, None] % 2 * 250  # a flickering pixel is not motion
    frames[4:, 40:50, 70:80] = 220
    found = strongest_motion(frames, range(6))
    assert found.frame == 4
    assert abs(found.x * 90 - 75) <= 3
    assert abs(found.y * 60 - 45) <= 3
    # The slow pathway sees the change only in its next frame.
    slow = strongest_motion(frames, [0, 2, 5])
    assert slow.frame == 5


def test_defaults():
    still = np.zeros((6, 30, 30, 3), dtype=np.uint8)
    assert default_queries(still, [0, 2, 4]) == [Query(2, 0.5, 0.5, "centre")]
    assert default_queries(still[:1], [0]) == [Query(0, 0.5, 0.5, "centre")]
    still[3:, :10, :10] = 255
    assert [query.origin for query in default_queries(still, range(6))] == ["strongest motion", "centre"]
