from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from dnl_video.data.decoding import VideoDecodeError
from dnl_video.data.sources import checked_fps, checked_pixels, open_source
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
        for source, name in ((b"", "video of bytes"), (io.BytesIO(b"x"), "video of a file object"), (opened, "no.mp4")):
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
        (GOOD / 255, "[N, H, W, 3]", r"float64 \[2, 4, 5, 3\] from 0 to 0.466667; .*multiply values between 0 and 1"),
        (torch.rand(2, 4, 5, 3).bfloat16(), "[N, H, W, 3]", r"bfloat16 \[2, 4, 5, 3\] from 0.*multiply values"),
        (GOOD.astype(int), "[N, H, W, 3]", r"int64 \[2, 4, 5, 3\]; .*convert to uint8"),
        (GOOD.transpose(0, 3, 1, 2), "[N, H, W, 3]", r"uint8 \[2, 3, 4, 5\]; .*move the channels to the end"),
        (GOOD[0].transpose(2, 0, 1), "[H, W, 3]", r"uint8 \[3, 4, 5\]; .*move the channels to the end"),
        (GOOD[None].transpose(0, 1, 4, 2, 3), "[V, T, H, W, 3]", r"uint8 \[1, 2, 3, 4, 5\]; .*move the channels"),
        (GOOD[..., 0], "[N, H, W, 3]", r"uint8 \[2, 4, 5\]; .*repeat grey values three times"),
        (GOOD[..., :1], "[N, H, W, 3]", r"uint8 \[2, 4, 5, 1\]; .*repeat grey values three times"),
        (GOOD[..., 0], "[V, T, H, W, 3]", r"uint8 \[2, 4, 5\]; .*5 dimensions, the last of size 3"),
        (GOOD[0], "[N, H, W, 3]", r"uint8 \[4, 5, 3\]; .*4 dimensions, the last of size 3"),
        (GOOD[[], :], "[N, H, W, 3]", r"uint8 \[0, 4, 5, 3\]; .*these are empty"),
        (np.uint8(3)[...], "[N, H, W, 3]", r"uint8 \[\]; .*4 dimensions, the last of size 3"),
        ([GOOD[0]], "[N, H, W, 3]", r"list; give an array or tensor uint8 \[N, H, W, 3\], RGB from 0 to 255"),
        (None, "[N, H, W, 3]", "NoneType; give an array or tensor uint8"),
    ],
)
def test_other_forms_of_pixels_are_named(pixels, layout, found):
    with pytest.raises(InputError, match=f"^frames: found {found}"):
        checked_pixels(pixels, "frames", layout)


@pytest.mark.parametrize("fps", [None, 0, -1, float("nan"), float("inf"), "fast"])
def test_wrong_frame_rates(fps):
    with pytest.raises(InputError, match=f"fps is {fps}; give the frames per second of the frames, a number above 0"):
        checked_fps(fps)
