from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from dnl_video.data import readers
from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.sliding_clips import SlidingClips, read_ahead
from dnl_video.spec import Preprocessing
from tests.data.odd_videos import film


class Chunk(np.ndarray):
    """An array of frames that a WeakSet can hold."""

    __hash__ = object.__hash__


PREPROCESSING = Preprocessing(num_frames=4, frame_stride=3, short_side=32, crop_size=32)


@pytest.fixture(scope="module")
def video(tmp_path_factory, write_coloured) -> Path:
    """75 frames, 10 a second, 48 x 64, frame i in green 10 i mod 256."""
    return write_coloured(tmp_path_factory.mktemp("sliding") / "long.mp4", 50, 75)


@pytest.mark.parametrize("loader", [list, read_ahead])
@pytest.mark.parametrize(("num_crops", "clips_at_once"), [(1, 1), (1, 4), (3, 2)])
def test_clips_equal_those_read_one_by_one(video, num_crops, clips_at_once, loader):
    clips = SlidingClips(
        str(video), PREPROCESSING, hop_s=0.8, num_crops=num_crops, clips_at_once=clips_at_once, threads=2
    )
    # D = 65, a clip every 8 frames.
    starts = [0, 8, 16, 24, 32, 40, 48, 56, 64, 65]
    assert clips.indices.tolist() == [[s, s + 3, s + 6, s + 9] for s in starts]
    np.testing.assert_allclose(clips.clip_start_s, np.array(starts) / 10)
    np.testing.assert_allclose(clips.clip_end_s, np.array(starts) / 10 + 1)
    batches = list(loader(clips))
    assert [batch.index for batch in batches] == list(range(0, 10, clips_at_once))
    views = torch.cat([batch.views for batch in batches])
    assert views.shape == (10 * num_crops, 4, 32, 32, 3)
    # Frames have one colour each, so neither resizing nor cropping changes it.
    with open_video(video) as opened:
        frames = opened.read(clips.indices.ravel()).reshape(10, 4, 48, 64, 3)
    expected = np.repeat(frames.mean(axis=(2, 3)), num_crops, axis=0)
    np.testing.assert_allclose(views.double().mean(dim=(2, 3)).numpy(), expected, atol=1)


def test_frames_are_kept_only_as_long_as_a_clip_needs_them(video, monkeypatch):
    """Of 75 frames no more than a span (10) and a chunk (4) are alive at once."""
    monkeypatch.setattr(readers, "CHUNK", 4)
    alive: weakref.WeakSet[Chunk] = weakref.WeakSet()
    most = 0

    def resize(frames, preprocessing):
        chunk = frames.view(Chunk)
        alive.add(chunk)
        return chunk

    monkeypatch.setattr("dnl_video.data.transforms.resize_short_side", resize)
    for _ in SlidingClips(str(video), PREPROCESSING, hop_s=0.1):
        most = max(most, 4 * len(alive))
    assert 10 <= most <= 10 + 3 * 4  # a chunk may be held for one frame of it, at either end


def test_a_short_video_gives_one_clip(tmp_path, write_coloured):
    clips = SlidingClips(str(write_coloured(tmp_path / "short.mp4", 9, 5)), PREPROCESSING, hop_s=0.1)
    (batch,) = list(clips)
    assert clips.indices.tolist() == [[0, 3, 4, 4]]
    assert batch.views.shape == (1, 4, 32, 32, 3)
    assert clips.clip_end_s.tolist() == [0.5]


def test_clips_slide_over_the_seconds_of_a_film(tmp_path):
    path = str(film(tmp_path / "film.mp4"))
    clips = SlidingClips(path, Preprocessing(num_frames=4, frame_stride=3, short_side=32, crop_size=32), hop_s=0.8)
    # Every 24 frames at 30 frames per second, then every 5 (4.8) at 6; the last one starts at 182.
    assert clips.indices[:8, 0].tolist() == [0, 24, 48, 72, 96, 101, 106, 110]
    assert clips.indices[-1].tolist() == [182, 185, 188, 191]
    np.testing.assert_allclose(clips.clip_start_s[:7], [0, 0.8, 1.6, 2.4, 3.2, 3.2 + 5 / 6, 3.2 + 10 / 6])
    np.testing.assert_allclose(clips.clip_end_s[[0, 3, 4, -1]], [1 / 3, 2.4 + 1 / 3, 3.2 + 10 / 6, 19.2])


@pytest.mark.parametrize("loader", [iter, read_ahead])
def test_an_error_in_the_middle_of_a_video(video, loader, monkeypatch):
    def broken(*_):
        yield np.zeros((32, 48, 64, 3), np.uint8)
        raise OSError("bad packet")

    monkeypatch.setattr("dnl_video.data.decoding.AVReader.chunks", broken)
    clips = loader(SlidingClips(str(video), PREPROCESSING, hop_s=0.1, clips_at_once=2))
    # The first 32 frames hold clips 0 … 22.
    assert [next(clips).index for _ in range(11)] == list(range(0, 22, 2))
    with pytest.raises(VideoDecodeError, match=r"long\.mp4: cannot be decoded \(bad packet\)"):
        list(clips)


def test_no_video(tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(VideoDecodeError, match=r"no\.mp4: cannot be opened"):
        SlidingClips(str(tmp_path / "no.mp4"), PREPROCESSING, hop_s=1.0)
