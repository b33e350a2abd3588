"""Written videos are read back; interrupted writes leave no video."""

import ctypes
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from dnl_video.data.encoding import write_video
from dnl_video.data.folders import walk_videos
from dnl_video.errors import InputError
from tests.data.odd_videos import run_python

_M_PERTURB = -6  # malloc.h: glibc fills new memory with a byte, so that reading uninitialised memory shows


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(video=0))
        facts = SimpleNamespace(
            name=stream.codec_context.name, pix_fmt=stream.codec_context.pix_fmt, average_rate=stream.average_rate
        )
        return facts, frames, np.stack([f.to_ndarray(format="rgb24") for f in frames])


def colors(count=30, height=48, width=64):
    """Frames of one colour each, left half darker."""
    frames = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
        frames[i] = (7 * i % 256, 100, 255 - 7 * i % 256)
        frames[i, :, : width // 2] //= 2
    return frames


@pytest.mark.parametrize("fps", [16, 25, Fraction(30000, 1001), 29.97, 12.5])
def test_frames_rate_size_and_colors_come_back(tmp_path, fps):
    frames = colors()
    write_video(tmp_path / "a.mp4", frames, fps)
    stream, decoded, images = read(tmp_path / "a.mp4")
    assert stream.name == "h264"
    assert stream.pix_fmt == "yuv420p"
    assert stream.average_rate == Fraction(fps).limit_denominator(1001)
    assert images.shape == frames.shape
    times = np.array([float(f.pts * f.time_base) for f in decoded])
    np.testing.assert_allclose(times, np.arange(len(frames)) / float(fps), atol=1e-3)
    # Away from the edge in the middle, where the colour planes are halved.
    error = np.abs(images.astype(int) - frames)[:, :, [*range(28), *range(36, 64)]]
    assert error.mean() < 2
    assert error.max() < 12


@pytest.mark.parametrize("gop", [1, 5, 12])
def test_groups_of_pictures_are_short_and_closed(tmp_path, gop):
    write_video(tmp_path / "a.mp4", colors(40), 16, gop=gop)
    _, decoded, images = read(tmp_path / "a.mp4")
    keys = [i for i, frame in enumerate(decoded) if frame.key_frame]
    assert keys[0] == 0
    assert max(np.diff([*keys, 40])) <= gop
    # Closed: decoding from a key frame on gives the same pictures as decoding from the start.
    start = keys[-1]
    with av.open(str(tmp_path / "a.mp4")) as container:
        container.seek(decoded[start].pts, stream=container.streams.video[0])
        tail = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    np.testing.assert_array_equal(np.stack(tail), images[start:])


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_same_frames_give_the_same_bytes(tmp_path, threads):
    rows, columns = np.mgrid[0:128, 0:144]
    times = np.arange(24)[:, None, None]
    moving = np.stack([2 * columns + 3 * times, 3 * rows + times, 2 * (rows + columns) - 5 * times], axis=-1)
    frames = ((moving + np.random.default_rng(0).integers(0, 30, moving.shape)) % 256).astype(np.uint8)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)
    written = set()
    try:
        for fill in (0, 40, 85, 120, 170, 200, 255):
            mallopt(_M_PERTURB, fill)
            write_video(tmp_path / "a.mp4", frames, 30, options={"threads": threads})
            written.add((tmp_path / "a.mp4").read_bytes())
    finally:
        mallopt(_M_PERTURB, 0)
    assert len(written) == 1


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mov", "a.m4v"])
def test_other_containers(tmp_path, name):
    write_video(tmp_path / name, colors(10), 10)
    assert read(tmp_path / name)[2].shape == (10, 48, 64, 3)


def test_frames_are_written_to_a_temporary_file(tmp_path):
    path = tmp_path / "new folder" / "long.mp4"
    seen = []

    def frames():
        for image in colors(30):
            seen.append(path.exists())
            yield image

    write_video(path, frames(), 16)
    assert seen == [False] * 30
    assert [p.name for p in path.parent.iterdir()] == ["long.mp4"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_keeps_the_old_file_and_no_temporary_file(tmp_path, error):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def frames():
        yield from colors(20)
        raise error

    with pytest.raises(error):
        write_video(path, frames(), 16)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_write_leaves_no_video_and_the_next_one_succeeds(tmp_path):
    path = tmp_path / "a.mp4"
    script = f"""
        import os, numpy as np
        from dnl_video.data.encoding import write_video
        def frames():
            for i in range(30):
                yield np.full((48, 64, 3), i, np.uint8)
            os._exit(9)
        write_video({str(path)!r}, frames(), 16)
    """
    assert run_python(script).returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    assert walk_videos(tmp_path) == []
    write_video(path, colors(10), 16)
    assert walk_videos(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ([], {}, "there are no frames to write"),
        (colors(4, 47), {}, r"frames are 64x47 \(width x height\), but yuv420p needs even sizes; crop"),
        (
            [*colors(2), *colors(1, 24, 32)],
            {},
            r"frame 2 has shape \(24, 32, 3\), frame 0 \(48, 64, 3\); give one size",
        ),
        (colors(3), {"fps": 0}, "fps is 0; give frames per second above 0"),
        (colors(3), {"name": "a.txt"}, r"cannot write suffix '.txt'; allowed: .mp4"),
    ],
)
def test_bad_input_is_an_error_and_keeps_the_old_file(tmp_path, frames, options, message):
    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(InputError, match=message):
        write_video(tmp_path / options.get("name", "a.mp4"), frames, options.get("fps", 16))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.mp4", b"old")]
