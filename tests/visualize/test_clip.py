from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dnl_video.data.decoding import open_video
from dnl_video.data.encoding import write_video
from dnl_video.errors import InputError
from dnl_video.spec import Preprocessing
from dnl_video.visualize.clip import read_clip, refuse_other_clips

PREPROCESSING = Preprocessing(num_frames=4, frame_stride=3, short_side=64, crop_size=64)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "ramp.mp4"
    frames = np.zeros((30, 64, 80, 3), dtype=np.uint8)
    frames += (8 * np.arange(30, dtype=np.uint8))[:, None, None, None]
    write_video(path, frames, 10)
    return path


def test_the_default_clip_and_one_with_a_given_start(video: Path) -> None:
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


def test_messages(video: Path, tmp_path: Path) -> None:
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


def test_networks_that_see_different_clips() -> None:
    refuse_other_clips(PREPROCESSING, Preprocessing(4, 3, short_side=64, crop_size=64, mean=(0.0, 0.0, 0.0)))
    with pytest.raises(InputError, match="see different clips: frame_stride is 3 and 8; compare networks trained with"):
        refuse_other_clips(PREPROCESSING, Preprocessing(4, 8, short_side=64, crop_size=64))
