"""Orientation, interlacing, bit depth and changing sizes: each decoder gives the same frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from dnl_video.data import dataset, pictures
from dnl_video.data.dataset import ViewDataset
from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.manifest import read_manifest
from dnl_video.data.pictures import orientation_of
from dnl_video.data.probing import probe_video
from tests.data.odd_videos import FAST, encode, from_the_start, numbered, numbers, set_matrix

DECODERS = ("decord", "av", "auto")
CORNERS = {"R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255), "W": (255, 255, 255)}
X264 = {"preset": "veryfast", "threads": "1", "g": "12"}


def corners(frame: np.ndarray) -> str:
    """Return the colours at top left, top right, bottom left, bottom right."""
    height, width = frame.shape[:2]
    points = [frame[y, x].astype(int) for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    return "".join(min(CORNERS, key=lambda name: int(np.abs(point - CORNERS[name]).sum())) for point in points)


def four_corners(path: Path) -> Path:
    """Write a video 96x64 with the corners R G over B W."""
    image = np.empty((64, 96, 3), np.uint8)
    for name, y, x in zip("RGBW", (0, 0, 32, 32), (0, 48, 0, 48), strict=True):
        image[y : y + 32, x : x + 48] = CORNERS[name]
    return encode(path, frames=[image] * 4)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("matrix", "expected"),  # as `ffmpeg -i a.mp4 -f rawvideo` of FFmpeg 5.1 shows them
    [
        ((1, 0, 0, 1), "RGBW"),
        ((-1, 0, 0, 1), "GRWB"),
        ((1, 0, 0, -1), "BWRG"),
        ((-1, 0, 0, -1), "WBGR"),
        ((0, 1, -1, 0), "BRWG"),
        ((0, -1, 1, 0), "GWRB"),
        ((0, 1, 1, 0), "RBGW"),
        ((0, -1, -1, 0), "WGBR"),
    ],
)
def test_display_matrices(tmp_path, decoder, matrix, expected):
    path = four_corners(tmp_path / "a.mp4")
    set_matrix(path, *matrix)
    with open_video(path, decoder=decoder) as video:
        frames = video.read([0, 3])
        assert video.size == ((96, 64) if matrix[0] == 0 else (64, 96))
        assert [corners(frame) for frame in frames] == [expected] * 2
        assert corners(next(video.stream([1]))[0]) == expected
    assert probe_video(path).exact is (expected == "RGBW")


def test_a_frame_with_side_data_that_pyav_does_not_know(monkeypatch):
    def fail(_: object) -> None:
        raise ValueError("31 is not a valid Type")

    monkeypatch.setattr(pictures, "_side_data", fail)
    turned = [orientation_of(SimpleNamespace(rotation=rotation)) for rotation in (0, 90, 180, -90)]
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    for quarter_turns, orientation in enumerate(turned):
        assert np.array_equal(orientation.apply(image), np.rot90(image, quarter_turns))


@pytest.mark.parametrize(
    ("name", "codec", "options", "pix_fmt", "reason"),
    [
        ("mbaff.mp4", "libx264", {**X264, "x264-params": "interlaced=1"}, "yuv420p", "interlaced"),
        ("bottom.mkv", "libx264", {**X264, "x264-params": "bff=1"}, "yuv420p", "interlaced"),
        ("fake.mp4", "libx264", {**X264, "x264-params": "fake-interlaced=1"}, "yuv420p", "interlaced"),
        ("ten.mp4", "libx264", X264, "yuv420p10le", "10 bits per colour"),
        ("422.mp4", "libx264", X264, "yuv422p", ""),
        ("422_10.mkv", "libx264", X264, "yuv422p10le", "10 bits per colour"),
        ("444.mp4", "libx264", X264, "yuv444p", ""),
        ("full_range.mp4", "libx264", X264, "yuvj420p", ""),
        ("vp9_444.webm", "libvpx-vp9", {"cpu-used": "8", "g": "12"}, "yuv444p", ""),
        ("one.mkv", "libx264", X264, "yuv420p", "the header tells no length, or one frame"),
        ("one.webm", "libvpx", {"cpu-used": "8"}, "yuv420p", "the header tells no length, or one frame"),
    ],
)
def test_each_decoder_gives_the_frames_of_pyav(tmp_path, name, codec, options, pix_fmt, reason):
    path = encode(tmp_path / name, codec, options, 1 if name.startswith("one") else 30, pix_fmt=pix_fmt)
    truth = from_the_start(path)
    assert probe_video(path).reason.startswith(reason)
    assert probe_video(path).exact is (reason == "")
    for decoder in DECODERS:
        with open_video(path, decoder=decoder) as video:
            assert np.array_equal(video.read(range(video.num_frames)), truth)


def two_sizes(path: Path, codec: str) -> Path:
    """Write 12 frames 96x64 and 12 frames 192x128 in one stream."""
    parts = []
    for scale in (1, 2):
        images = [image.repeat(scale, 0).repeat(scale, 1) for image in numbered(12)]
        options = FAST if codec == "libx264" else {"cpu-used": "8", "deadline": "realtime"}
        parts.append(encode(path.with_name(f"{scale}{path.suffix}"), codec, options, images))
        if codec == "libx264":  # without the .mp4 header each key frame keeps its parameter sets
            parts[-1] = encode(path.with_name(f"{scale}.h264"), codec, options, images)
    if codec == "libx264":
        both = path.with_name("both.h264")
        both.write_bytes(b"".join(part.read_bytes() for part in parts))
        parts = [both]
    with av.open(str(path), "w") as target:
        out, ticks = None, 0
        for part in parts:
            with av.open(str(part)) as source:
                out = out or target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream, packet.time_base = out, Fraction(1, 30)
                        packet.pts = packet.dts = ticks
                        ticks += 1
                        target.mux(packet)
    return path


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("b.webm", "libvpx-vp9")]
)
def test_a_change_of_frame_size(tmp_path, name, codec, decoder):
    path = two_sizes(tmp_path / name, codec)
    assert probe_video(path).reason == "the frame size may change: decord resizes such frames"
    with open_video(path, decoder=decoder) as video, pytest.raises(VideoDecodeError) as caught:
        video.read(range(video.num_frames))
    assert caught.value.reason == "the frame size changes from (64, 96) to (128, 192)"


@pytest.mark.parametrize("recorded", [(12, 64, 96), (11, 64, 96), (12, 64, 64), (12, 96, 64), None])
def test_a_list_that_records_another_file(tmp_path, recorded):
    """decord alone would read the file of this list without its matrix being known."""
    path = encode(tmp_path / "a.mp4", frames=12)
    set_matrix(path, -1, 0, 0, 1)
    with open_video(path, known="decord", recorded=recorded) as video:
        frames = video.read(range(12))
    mirrored = recorded not in ((12, 64, 96), None)
    assert numbers(frames[:, :, ::-1] if mirrored else np.rot90(frames, 2, axes=(1, 2))) == list(range(12))


@pytest.mark.parametrize(
    ("columns", "recorded"),
    [("12,64,96", (12, 64, 96)), ("12,64,", None), ("twelve,64,96", None)],
)
def test_datasets_pass_on_what_a_list_records(tmp_path, monkeypatch, columns, recorded):
    (tmp_path / "list.csv").write_text(f"path,label,num_frames,height,width,decoder\na.mp4,x,{columns},decord\n")
    records = read_manifest(tmp_path / "list.csv").records
    given = []
    monkeypatch.setattr(dataset, "open_video", lambda path, **options: given.append(options))
    ViewDataset(records, None, num_clips=1, num_crops=1)._open(records[0])
    assert (given[0]["known"], given[0]["recorded"]) == ("decord", recorded)
