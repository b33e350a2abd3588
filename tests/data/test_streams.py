"""Which stream of a file is its video."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.probing import probe_video
from tests.data.odd_videos import FAST, numbered, numbers

GREY = [np.full((64, 96, 3), 100, np.uint8)] * 12


def write_tracks(path: Path, *tracks: list[np.ndarray], sound: bool = False, cover: bytes = b"") -> Path:
    """Write one track for each series of frames: H.264, or MJPEG if there is only one frame."""
    with av.open(str(path), "w") as container:
        streams = []
        for frames in tracks:
            codec, pix_fmt = ("mjpeg", "yuvj420p") if len(frames) == 1 else ("libx264", "yuv420p")
            stream = container.add_stream(codec, rate=30, options=FAST if codec == "libx264" else {})
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = pix_fmt
            streams.append(stream)
        voice = container.add_stream("aac", rate=16000) if sound else None
        if cover:
            container.add_attachment("cover.jpg", "image/jpeg", cover)
        for stream, frames in zip(streams, tracks, strict=True):
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
        if voice is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16000
            container.mux(voice.encode(silence))
            container.mux(voice.encode(None))
    return path


def enable(path: Path, *enabled: bool) -> Path:
    """Set the flag of each track of an .mp4 that makes it a default stream (track_enabled, ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    place = 0
    for value in enabled:
        place = content.index(b"tkhd", place) + 8
        content[place - 1] = content[place - 1] & ~1 | value
    path.write_bytes(content)
    return path


def read_numbers(path: Path, decoder: str) -> list[int]:
    with open_video(path, decoder=decoder) as video:
        return numbers(video.read(range(video.num_frames)))


@pytest.mark.parametrize("decoder", ["decord", "av", "auto"])
@pytest.mark.parametrize(
    ("defaults", "numbered_first", "is_numbered"),
    [
        ((True, False), True, True),  # the first is the default one
        ((True, False), False, False),
        ((False, True), True, False),
        ((False, True), False, True),
        ((True, True), True, True),  # none is preferred: the bit rate decides, and grey has a low one
        ((True, True), False, True),
        ((False, False), True, True),
        ((False, False), False, True),
    ],
)
def test_several_video_streams(tmp_path, decoder, defaults, numbered_first, is_numbered):
    tracks = [list(numbered(12)), GREY]
    path = write_tracks(tmp_path / "a.mp4", *(tracks if numbered_first else tracks[::-1]))
    enable(path, *defaults)
    if defaults[0] == defaults[1]:
        with av.open(str(path)) as container:
            assert container.streams.best("video").index == (0 if numbered_first else 1)
    assert read_numbers(path, decoder) == (list(range(12)) if is_numbered else [0] * 12)
    probe = probe_video(path)
    assert (probe.decoder, probe.reason) == ("av", "2 video streams, of which decord may read another one")


def jpeg() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (96, 64), "red").save(data, "jpeg")
    return data.getvalue()


@pytest.mark.parametrize("decoder", ["decord", "av", "auto"])
@pytest.mark.parametrize("kind", ["first.mp4", "first.mkv", "second.mp4", "attached.mkv"])
def test_a_cover_picture_is_not_the_video(tmp_path, decoder, kind):
    film, picture = list(numbered(12)), GREY[:1]
    if kind == "attached.mkv":
        path = write_tracks(tmp_path / kind, film, cover=jpeg())
    else:
        path = write_tracks(tmp_path / kind, *([picture, film] if "first" in kind else [film, picture]))
    assert probe_video(path).packets.video_streams == 2
    assert read_numbers(path, decoder) == list(range(12))


@pytest.mark.parametrize("kind", ["track.mp4", "track.mkv", "attached.mkv", "only.mov"])
def test_a_song_with_a_cover_is_no_video(tmp_path, kind):
    if kind == "attached.mkv":
        path = write_tracks(tmp_path / kind, sound=True, cover=jpeg())
    else:
        path = write_tracks(tmp_path / kind, GREY[:1], sound="track" in kind)
    with pytest.raises(VideoDecodeError) as caught:
        open_video(path)
    assert caught.value.reason == "cannot be opened (no video stream, only a cover picture)"


def test_streams_that_cannot_be_decoded(tmp_path):
    keys = {f"encryption_{name}": 32 * "a" for name in ("key", "kid")}
    path = tmp_path / "encrypted.mp4"
    with av.open(str(path), "w", options={"encryption_scheme": "cenc-aes-ctr", **keys}) as container:
        stream = container.add_stream("libx264", rate=30, options=FAST)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for image in GREY:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    unknown = write_tracks(tmp_path / "unknown.mp4", GREY)
    unknown.write_bytes(unknown.read_bytes().replace(b"avc1", b"xyz1").replace(b"avcC", b"xyzC"))
    for file, reason in ((path, "the video is encrypted"), (unknown, "no video stream of a codec that FFmpeg decodes")):
        with pytest.raises(VideoDecodeError) as caught:
            open_video(file)
        assert caught.value.reason == f"cannot be opened ({reason})"


@pytest.mark.parametrize("decoder", ["decord", "av"])
def test_a_file_name_that_looks_like_a_url(tmp_path, monkeypatch, decoder):
    write_tracks(tmp_path / "12:30.mp4", list(numbered(3)))
    monkeypatch.chdir(tmp_path)
    assert read_numbers(Path("12:30.mp4"), decoder) == [0, 1, 2]
