from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from dnl_video.data.decoding import VideoDecodeError
from dnl_video.data.sources import checked_pixels, open_source
from dnl_video.errors import InputError
from tests.data.odd_videos import encode, numbers

GOOD = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


@pytest.mark.parametrize("frames", [GOOD, torch.from_numpy(GOOD), GOOD[:, ::-1, :, ::-1][:, ::-1, :, ::-1]])
def test_frames_in_memory(frames):
    with open_source(frames, 4) as video:
        assert (video.num_frames, video.fps, video.size) == (2, 4.0, (4, 5))
        assert video.times_s.tolist() == [0, 0.25, 0.5]
        np.testing.assert_array_equal(video.read([1, 0, 1]), GOOD[[1, 0, 1]])


@pytest.mark.parametrize("rotation", [0, 90])
def test_bytes_and_file_objects_have_the_frames_of_the_file(tmp_path, rotation):
    path = encode(tmp_path / "clip.mp4", frames=40, rotation=rotation)
    with open_source(path) as video:
        expected, times_s = video.read([3, 30]), video.times_s
    assert rotation or numbers(expected) == [3, 30]
    content = path.read_bytes()
    with path.open("rb") as opened:
        for source in (content, bytearray(content), io.BytesIO(content), opened):
            with open_source(source) as video:
                np.testing.assert_array_equal(video.read([3, 30]), expected)
                np.testing.assert_array_equal(video.times_s, times_s)


def test_the_errors_of_files_name_the_source(tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with (tmp_path / "no.mp4").open("rb") as opened:
        for source, name in ((b"", "video in memory"), (io.BytesIO(b"x"), "video in memory"), (opened, r"no\.mp4")):
            with pytest.raises(VideoDecodeError, match=name), open_source(source):
                pass
    with pytest.raises(InputError, match="opened as text; open it with mode 'rb'"), open_source(io.StringIO("x")):
        pass
    for source in (b"", str(tmp_path / "no.mp4")):
        with pytest.raises(InputError, match="fps is 30, but a video file has its own"), open_source(source, 30):
            pass


@pytest.mark.parametrize(
    ("pixels", "layout", "found"),
    [
        (GOOD / 255, "[N, H, W, 3]", "float64 [2, 4, 5, 3] from 0 to 0.466667"),
        (torch.ones(2, 4, 5, 3).bfloat16(), "[N, H, W, 3]", "bfloat16 [2, 4, 5, 3] from 1 to 1"),
        (GOOD.astype(int), "[N, H, W, 3]", "int64 [2, 4, 5, 3] from 0 to 119"),
        (GOOD.transpose(0, 3, 1, 2), "[N, H, W, 3]", "uint8 [2, 3, 4, 5] from 0 to 119"),
        (GOOD[0].transpose(2, 0, 1), "[H, W, 3]", "uint8 [3, 4, 5] from 0 to 59"),
        (GOOD[None].transpose(0, 1, 4, 2, 3), "[V, T, H, W, 3]", "uint8 [1, 2, 3, 4, 5] from 0 to 119"),
        (GOOD[..., 0], "[N, H, W, 3]", "uint8 [2, 4, 5] from 0 to 117"),
        (GOOD[..., :1], "[N, H, W, 3]", "uint8 [2, 4, 5, 1] from 0 to 117"),
        (GOOD, "[V, T, H, W, 3]", "uint8 [2, 4, 5, 3] from 0 to 119"),
        (GOOD[0], "[N, H, W, 3]", "uint8 [4, 5, 3] from 0 to 59"),
        (GOOD[[]], "[N, H, W, 3]", "uint8 [0, 4, 5, 3]"),
        (np.array(3, np.uint8), "[N, H, W, 3]", "uint8 [] from 3 to 3"),
        ([GOOD[0]], "[N, H, W, 3]", "list"),
        (None, "[N, H, W, 3]", "NoneType"),
    ],
)
def test_other_forms_of_pixels_are_refused(pixels, layout, found):
    expected = f"frames: found {found}; give an array or tensor uint8 {layout}, RGB from 0 to 255, channels last"
    with pytest.raises(InputError) as refused:
        checked_pixels(pixels, "frames", layout)
    assert str(refused.value) == expected


@pytest.mark.parametrize("fps", [None, 0, -1, float("nan"), float("inf"), "fast"])
def test_wrong_frame_rates(fps):
    with pytest.raises(InputError, match=f"^fps is {fps}; give a number above 0"), open_source(GOOD, fps):
        pass
