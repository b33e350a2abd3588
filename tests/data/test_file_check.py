from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from dnl_video.data import file_check
from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.encoding import resize_frames, write_video
from dnl_video.data.file_check import GOP, check_file, hash_file, resized, transcode_file
from tests.data.odd_videos import FILM_TICKS, encode, film, numbers, set_matrix
from tests.data.test_frame_folders import write_frames


def transcode(source: Path, target: Path, short_side: int) -> dict[str, Any]:
    return transcode_file(str(source), 12.5, 8, str(target), short_side, 1)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1920, 1080), 256, (456, 256)),  # 455.1
        ((1080, 1920), 320, (320, 568)),  # 568.9
        ((340, 256), 320, (340, 256)),  # never enlarged
        ((341, 257), 320, (340, 256)),  # yuv420p needs even sides
        ((256, 256), 256, (256, 256)),
    ],
)
def test_sizes(size, short_side, expected):
    assert resized(*size, short_side) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate_is_a_fact_and_stays(tmp_path, suffix):
    source = film(tmp_path / f"film{suffix}")
    assert check_file(str(source), 0, 8)["variable_rate"] is True
    assert transcode(source, tmp_path / "small.mp4", 48)["variable_rate"] is True
    with open_video(tmp_path / "small.mp4") as video:
        np.testing.assert_allclose(video.times_s[:-1], np.array(FILM_TICKS) / 600, atol=1e-3)
    # A segment from 2.5 s (frame 75) to 5 s (before frame 107).
    facts = transcode_file(str(source), 0, 8, str(tmp_path / "cut.mp4"), 48, 1, (2.5, 5.0))
    with open_video(tmp_path / "cut.mp4") as video:
        np.testing.assert_allclose(video.times_s[:-1], np.array(FILM_TICKS[75:107]) / 600 - 2.5, atol=1e-3)
    assert facts["variable_rate"] is True
    write_video(tmp_path / "constant.mkv", np.zeros((50, 32, 32, 3), np.uint8), 30000 / 1001)
    assert check_file(str(tmp_path / "constant.mkv"), 0, 8)["variable_rate"] is False
    assert transcode(tmp_path / "constant.mkv", tmp_path / "small.mp4", 32)["variable_rate"] is False


def test_resizing_equals_pillow():
    rows, columns = np.mgrid[0:96, 0:160]
    frame = np.stack([rows * 2, columns, (rows + columns) // 2], axis=-1).astype(np.uint8)
    ours = resize_frames(frame[None], 80, 48)[0].astype(int)
    theirs = np.asarray(Image.fromarray(frame).resize((80, 48), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(ours - theirs)[2:-2, 2:-2].max() <= 6
    assert np.array_equal(resize_frames(frame[None], 160, 96)[0], frame)


def test_a_transcoded_video_has_the_same_frames_in_closed_short_groups(tmp_path, write_coloured, monkeypatch):
    monkeypatch.setattr(file_check, "_FRAMES_PER_READ", 7)
    source = tmp_path / "s.mp4"
    frames = np.zeros((60, 96, 128, 3), np.uint8)
    frames[:] = 4 * np.arange(60, dtype=np.uint8)[:, None, None, None]
    write_video(source, frames, 30000 / 1001, crf=1, gop=250, options={"bf": "3", "threads": "1"})
    facts = transcode(source, tmp_path / "new" / "t.mp4", 48)
    assert (facts["num_frames"], facts["width"], facts["height"], facts["codec"]) == (60, 64, 48, "h264")
    assert facts["fps"] == pytest.approx(30000 / 1001, abs=1e-5)
    assert facts["bytes"] == (tmp_path / "new" / "t.mp4").stat().st_size
    with open_video(tmp_path / "new" / "t.mp4") as video:
        greens = video.read(range(60))[..., 1].mean(axis=(1, 2))
    assert np.abs(greens - 4 * np.arange(60)).max() <= 2
    with av.open(str(tmp_path / "new" / "t.mp4")) as container:
        keys = [i for i, f in enumerate(container.decode(video=0)) if f.key_frame]
    assert keys[0] == 0
    assert max(np.diff([*keys, 60])) <= GOP


@pytest.mark.parametrize(
    ("matrix", "sample_aspect", "size", "expected"),
    [
        ((1, 0, 0, 1), Fraction(16, 11), (124, 100), Fraction(500, 341)),  # both show 20:11
        ((0, 1, -1, 0), Fraction(16, 11), (100, 124), Fraction(341, 500)),
        ((1, 0, 0, 1), None, (124, 100), None),
    ],
)
def test_pixels_that_are_not_square(tmp_path, matrix, sample_aspect, size, expected):
    source = tmp_path / "s.mp4"
    frames = np.zeros((3, 576, 720, 3), np.uint8)
    write_video(source, frames, 25, sample_aspect=sample_aspect, options={"preset": "ultrafast", "threads": "1"})
    set_matrix(source, *matrix)
    facts = transcode(source, tmp_path / "t.mp4", 100)
    assert (facts["width"], facts["height"]) == size
    with av.open(str(tmp_path / "t.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.sample_aspect_ratio or None) == expected
        assert next(container.decode(stream)).rotation == 0


def test_rotation_is_honoured_and_sound_dropped(tmp_path, shared_clips):
    facts = transcode(shared_clips / "rotated_90.mov", tmp_path / "r.mp4", 100)
    with open_video(shared_clips / "rotated_90.mov") as before, open_video(tmp_path / "r.mp4") as after:
        assert (facts["num_frames"], facts["width"]) == (before.num_frames, 100)
        height, width = after.size
        assert height > width
        expected = resize_frames(before.read([1]), width, height).astype(int)
        assert np.abs(after.read([1]).astype(int) - expected).mean() < 3
    transcode(shared_clips / "flipping_pancake.mkv", tmp_path / "f.mp4", 64)
    with av.open(str(tmp_path / "f.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_a_video_with_a_decode_error_is_broken_and_leaves_no_file(tmp_path, write_coloured, monkeypatch):
    source = write_coloured(tmp_path / "s.mp4", red=1)

    def fail(frames: np.ndarray, width: int, height: int) -> np.ndarray:
        raise VideoDecodeError(str(source), "broken in the middle")

    monkeypatch.setattr(file_check, "resize_frames", fail)
    assert transcode(source, tmp_path / "t.mp4", 32) == {"error": "broken in the middle"}
    assert [path.name for path in tmp_path.iterdir()] == ["s.mp4"]


def test_a_sample_reaches_the_last_frame(tmp_path, write_coloured, monkeypatch):
    asked: list[list[int]] = []
    source = write_coloured(tmp_path / "s.mp4", red=1)
    read = type(open_video(source)).read

    def spy(video: object, indices: np.ndarray, **options: object) -> np.ndarray:
        asked.append(list(indices))
        return read(video, indices, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("dnl_video.data.decoding.Video.read", spy)
    for sample in (1, 4, 100):
        assert check_file(str(source), 30.0, sample)["num_frames"] == 24
    assert asked == [[0], [0, 8, 15, 23], list(range(24))]


def _cut(source: Path, target: Path, start: float, end: float) -> tuple[dict[str, Any], list[int]]:
    facts = transcode_file(str(source), 12.5, 8, str(target), None, 1, (start, end))
    if "error" in facts:
        return facts, []
    with open_video(target) as video:
        return facts, numbers(video.read(range(video.num_frames)))


def test_a_segment_has_the_frames_that_begin_in_it(tmp_path):
    mp4, mkv = (encode(tmp_path / f"s.{kind}", frames=150) for kind in ("mp4", "mkv"))  # 30 frames per second
    for source in (mp4, mkv):
        facts, frames = _cut(source, tmp_path / "t.mp4", 1, 3)
        assert frames == list(range(30, 90))
        assert (facts["num_frames"], facts["duration_s"], facts["width"], facts["height"]) == (60, 2.0, 96, 64)
        assert facts["fps"] == pytest.approx(30, abs=1e-4)
    assert _cut(mp4, tmp_path / "t.mp4", 4, 9)[1] == list(range(120, 150))  # as far as the file goes
    facts, _ = _cut(mp4, tmp_path / "late.mp4", 5, 15)
    assert facts == {"error": "ends at 5.0 s, before the segment from 5 to 15 s"}
    assert not (tmp_path / "late.mp4").exists()


def test_a_segment_is_in_presentation_time(tmp_path):
    # 60 frames 1/30 s apart, then 60 frames 1/10 s apart; the frames begin at 0 to 7.9 s.
    slow = encode(tmp_path / "s.mp4", frames=120, times=lambda i: 20 * i if i < 60 else 1200 + 60 * (i - 60))
    facts, frames = _cut(slow, tmp_path / "t.mp4", 4, 6)
    assert frames == list(range(80, 100))
    assert facts["fps"] == pytest.approx(10)
    folder = write_frames(tmp_path / "frames", [f"{i}.png" for i in range(25)])  # 12.5 frames per second
    assert transcode_file(str(folder), 12.5, 8, str(tmp_path / "f.mp4"), None, 1, (1.0, 2.0))["num_frames"] == 12


def test_empty_and_cut_off_images_of_a_folder_are_found(tmp_path):
    folder = write_frames(tmp_path / "v", [f"{i}.png" for i in range(1, 26)])
    (folder / "flow_x_1.png").touch()  # not read
    assert check_file(str(folder), 30.0, 2)["num_frames"] == 25
    content = (folder / "9.png").read_bytes()
    (folder / "9.png").write_bytes(content[:60])
    assert "cannot be decoded" in check_file(str(folder), 30.0, 2)["error"]
    for name in ("9.png", "12.png"):
        (folder / name).write_bytes(b"")
    assert check_file(str(folder), 30.0, 2) == {"error": "2 images are empty, for example 9.png"}


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    assert hash_file(str(tmp_path / "gone.mp4")) == {"error": "No such file or directory"}
