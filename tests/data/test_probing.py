from __future__ import annotations

import functools
import os
import re
from pathlib import Path

import av
import numpy as np
import pytest

from dnl_video.data import packets, probing
from dnl_video.data.decoding import open_video
from dnl_video.data.h264_header import recovers_at_once
from dnl_video.data.packets import read_packets
from dnl_video.data.probing import VideoDecodeError, one_line, probe_video
from tests.data.odd_videos import encode, write


def test_probe(tmp_path):
    path = encode(tmp_path / "a.mp4", frames=45)
    probe = probe_video(path)
    packets = probe.packets
    assert (probe.frames, packets.fps, packets.width, packets.height) == (45, 30.0, 96, 64)
    assert (packets.codec, packets.container.split(",")[1], packets.duration_s) == ("h264", "mp4", 1.5)
    assert (probe.exact, probe.reason, probe.decoder) == (True, "", "decord")
    odd = probe_video(encode(tmp_path / "a.avi", "mpeg4", {}, 45))
    assert (odd.frames, odd.exact, odd.decoder) == (None, False, "av")


def test_readers_name_damaged_data_alike():
    decord = (
        "[10:11:12] /src/video/ffmpeg/threaded_decoder.cc:292: Check failed: avcodec_send_packet(dec_ctx_.get(), "
        "pkt.get()) >= 0 (-1094995529 vs. 0) Thread worker: Error sending packet.\n"
    )
    pyav = av.error.InvalidDataError(-1094995529, "Invalid data found when processing input", "a.mp4")
    assert one_line(Exception(decord)) == one_line(pyav) == "Invalid data found when processing input"


def test_a_file_is_probed_once_until_it_changes(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.mp4", frames=5)
    assert probe_video(path).frames == 5
    real = probing.read_packets
    monkeypatch.setattr(probing, "read_packets", None)
    assert probe_video(str(path)).frames == 5
    monkeypatch.setattr(probing, "read_packets", real)
    encode(path, frames=7)
    os.utime(path, (1, 1))
    assert probe_video(path).frames == 7
    assert probing._probe.cache_info().maxsize == 512


def test_the_cache_keeps_the_last_files(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(probing, "read_packets", lambda name: read.append(name) or read_packets(name))
    monkeypatch.setattr(probing, "_probe", functools.lru_cache(3)(probing._probe.__wrapped__))
    paths = [encode(tmp_path / f"{i}.mp4", frames=2) for i in range(5)]
    for path in (*paths, *paths[2:], paths[1]):
        probe_video(path)
    assert read == [str(path) for path in (*paths, paths[1])]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "file not found"),
        (b"", "file is empty"),
        (b"no video" * 99, "cannot be opened (not a video: begins with no video"),
    ],
)
def test_files_that_are_not_videos(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoDecodeError) as caught:
        probe_video(tmp_path / "a.mp4")
    assert str(caught.value).startswith(f"{tmp_path / 'a.mp4'}: {reason}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 300, r"cannot be opened \(File name too long\)"), ("a\0b", r"cannot be opened \(.*embedded null")],
)
def test_names_that_no_file_can_have(tmp_path, name, reason):
    with pytest.raises(VideoDecodeError) as caught:
        open_video(f"{tmp_path / name}.mp4")
    assert re.match(reason, caught.value.reason)


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.mp4", frames=5)

    def refuse(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(packets, "why_not_opened", refuse)
    with pytest.raises(VideoDecodeError) as caught:
        open_video(path)
    assert caught.value.reason == "cannot be opened (Permission denied)"


def test_choice_of_the_reader(tmp_path):
    """auto takes PyAV for H.264, where it skips unwanted pictures, and decord for other exact files."""
    h264 = encode(tmp_path / "a.mp4", frames=5)
    vp8 = encode(tmp_path / "a.webm", "libvpx", {"cpu-used": "8"}, 5)
    avi = encode(tmp_path / "a.avi", "mpeg4", {}, 5)

    def reader(path: Path, **options) -> str:
        with open_video(path, **options) as video:
            return type(video._reader).__name__

    assert [reader(path) for path in (h264, vp8, avi)] == ["DecordReader", "DecordReader", "AVReader"]
    assert [reader(path, decoder="auto") for path in (h264, vp8, avi)] == ["AVReader", "DecordReader", "AVReader"]
    assert [reader(path, decoder="av") for path in (h264, vp8, avi)] == ["AVReader"] * 3
    assert [reader(path, known="decord") for path in (h264, vp8)] == ["DecordReader"] * 2


def test_unwanted_pictures_are_not_decoded(tmp_path, monkeypatch):
    """Reading every fourth frame decodes fewer pictures and returns the same ones."""
    path = write("closed.mp4", tmp_path)
    asked = list(range(0, 72, 4))
    with open_video(path, decoder="av") as video:
        whole = video.read(range(72))
        reader = video._reader
        times = reader._times[asked].tolist()
        dropped = [frame.pts for frame in reader._decode_needed(times)]
        assert set(times) <= set(dropped)
        assert len(dropped) < 72 * 2 / 3  # three in four are B-frames, a third of those referred to
        assert np.array_equal(video.read(asked), whole[asked])


@pytest.mark.parametrize(
    ("sei", "at_once"),
    [
        ([6, 1, 0xC4, 0x80], True),  # recovery_frame_cnt 0 is the bit 1
        ([6, 1, 0x20, 0x80], False),  # 00100: 3 frames
        ([5, 2, 6, 1, 6, 1, 0x80, 0x80], True),  # user data whose bytes look like another message
        ([5, 255, 0, *[6] * 255, 6, 1, 0x40, 0x80], False),  # a size of two bytes
        ([1, 4, 0, 0], False),  # cut off
        ([255, 255, 255], False),
        ([5, 255, 255, 255], False),
        ([], False),
    ],
)
def test_recovery_points(sei, at_once):
    assert recovers_at_once(bytes(sei)) is at_once


def test_x264_marks_open_groups_as_recovery_points(tmp_path):
    """Otherwise open groups would be decoded from the start of the file, which is slow."""
    path = write("open.mp4", tmp_path)
    packets = read_packets(str(path))
    with av.open(str(path)) as container:
        keys = sum(frame.key_frame for frame in container.decode(video=0))
    assert packets.random_access.sum() == packets.key.sum() == keys == 6
    (tmp_path / "refresh").mkdir()
    packets = read_packets(str(write("refresh.mp4", tmp_path / "refresh")))
    assert packets.random_access.sum() == 1 < packets.key.sum()
