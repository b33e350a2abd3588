"""Videos given in Python: frames in memory, many files, streams."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import signal
import time
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dnl_video.config import EvaluationConfig
from dnl_video.data import dataset
from dnl_video.data.crash_record import STOPPED_REASON
from dnl_video.data.decoding import open_video
from dnl_video.errors import InputError
from dnl_video.inference.predictor import Predictor
from dnl_video.inference.scores import VideoScores
from dnl_video.spec import Preprocessing
from tests.data.odd_videos import encode

STRIDE = Preprocessing(num_frames=4, frame_stride=2, short_side=32, crop_size=32)
RULES = {
    "stride": STRIDE,
    "resized": dataclasses.replace(STRIDE, short_side=24, crop_size=20),
    "target_fps": dataclasses.replace(STRIDE, target_fps=9.0),
    "loop": dataclasses.replace(STRIDE, frame_stride=5, past_end="loop"),
    "pyslowfast": dataclasses.replace(STRIDE, sampling="pyslowfast"),
}
forked = pytest.mark.skipif(
    multiprocessing.get_start_method(allow_none=False) != "fork", reason="loader processes must see the test's patch"
)


class Ordered(nn.Module):
    """Logits are the mean of each colour, with more weight for later frames."""

    def forward(self, clips: Tensor) -> Tensor:
        return (clips.mean(dim=(3, 4)) * torch.linspace(1, 4, clips.shape[2])).sum(dim=2)


def predictor(preprocessing: Preprocessing = STRIDE, **options: Any) -> Predictor:
    return Predictor(Ordered(), preprocessing, ["r", "g", "b"], EvaluationConfig(device="cpu", **options))


def noise(n: int, width: int = 48) -> np.ndarray:
    """Return frames of different mean colours, [n, 32, width, 3]."""
    rng = np.random.default_rng(n)
    pixels = rng.integers(0, 100, (n, 32, width, 3)) + rng.integers(0, 155, (n, 1, 1, 3))
    return pixels.astype(np.uint8)


def lossless(path: Path, frames: np.ndarray, fps: Fraction = Fraction(25)) -> Path:
    """Write frames to a file that decodes to the same bytes."""
    encode(path, "libx264rgb", {"qp": "0", "preset": "ultrafast"}, frames, rate=fps, pix_fmt="rgb24")
    with open_video(path) as video:
        np.testing.assert_array_equal(video.read(range(len(frames))), frames)
        assert video.fps == pytest.approx(float(fps))
    return path


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("n", "fps"), [(5, 25), (64, 25), (70, Fraction(30000, 1001))])
def test_frames_have_the_scores_of_their_file(tmp_path, rule, n, fps):
    frames, used = noise(n), predictor(RULES[rule], num_clips=3)
    path = lossless(tmp_path / "file.mp4", frames, Fraction(fps))
    expected = used.predict(path)
    for source, rate in ((frames, fps), (torch.from_numpy(frames), float(fps)), (path.read_bytes(), None)):
        found = used.predict(source, fps=rate)
        for name in ("scores", "clip_scores", "clip_start_s", "clip_end_s"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6, err_msg=name)
    assert n < 60 or not np.allclose(expected.clip_scores[0], expected.clip_scores[1], atol=1e-3)


def test_features_of_frames(tiny):
    used = Predictor.from_checkpoint(tiny.run, num_clips=2, device="cpu")
    with open_video(tiny.files()[0]) as video:
        frames, fps = video.read(range(video.num_frames)), video.fps
    expected = used.features(tiny.files()[0])
    np.testing.assert_allclose(used.features(frames, fps=fps).features, expected.features, atol=1e-5)


def test_views_and_frames_of_another_form_are_refused():
    used = predictor()
    for views in (torch.rand(2, 4, 32, 32, 3), torch.zeros(2, 3, 4, 32, 32, dtype=torch.uint8), None):
        with pytest.raises(InputError, match=r"^views: found .*; give an array or tensor uint8 \[V, T, H, W, 3\]"):
            used.score_views(views)
    with pytest.raises(InputError, match=r"^frames: found float32 .* from 0 to 1; "):
        used.predict(np.eye(3, dtype=np.float32).repeat(3).reshape(1, 3, 3, 3), fps=30)
    with pytest.raises(InputError, match=r"^fps is None"):
        used.predict(noise(8))
    views = noise(8).reshape(2, 4, 32, 48, 3)
    expected = used.score_views(torch.from_numpy(views.copy()))
    views.flags.writeable = False
    torch.testing.assert_close(used.score_views(views), expected)


def test_options_by_keyword(tiny):
    options = EvaluationConfig(num_clips=5, views_per_forward=3, device="cpu")
    made = Predictor.from_checkpoint(tiny.run, options, num_clips=2, num_crops=1, num_frames=6)
    assert made.options == EvaluationConfig(num_clips=2, num_crops=1, views_per_forward=3, device="cpu")
    assert options.num_clips == 5
    assert made.preprocessing.num_frames == 6
    assert made.predict(noise(40), fps=16).clip_scores.shape == (2, 8)
    assert repr(made) == "Predictor(i3d_r50 dnl, 8 classes, 2 clips x 1 crops of 6x2 frames, cpu)"
    assert repr(predictor()) == "Predictor(Ordered, 3 classes, 10 clips x 3 crops of 4x2 frames, cpu)"
    defaults = Predictor.from_checkpoint(tiny.run).options
    assert (defaults.num_clips, defaults.num_crops) == (10, 3)
    for wrong, message in (
        ({"num_clips": 0}, "num_clips is 0; give a whole number"),
        ({"num_crops": 2}, "num_crops is 2; allowed: 1, 3"),
        ({"num_frames": 0}, "num_frames is 0; give a whole number"),
        ({"device": "tpu"}, "device 'tpu' is unknown"),
    ):
        with pytest.raises(InputError, match=message):
            Predictor.from_checkpoint(tiny.run, **wrong)
    with pytest.raises(TypeError, match="num_clip'"):
        Predictor.from_checkpoint(tiny.run, num_clip=3)


def test_scores_as_plain_types():
    scores = VideoScores(
        np.float32([0.25, 0.75]), np.float32([[0, 1], [0.5, 0.5]]), np.array([0.0, 1]), np.array([2.0, 3]), ("a", "b")
    )
    expected: dict[str, Any] = {
        "class": "b",
        "score": 0.75,
        "scores": [0.25, 0.75],
        "clip_scores": [[0, 1], [0.5, 0.5]],
    }
    expected |= {"clip_start_s": [0, 1], "clip_end_s": [2, 3], "class_names": ["a", "b"]}
    assert json.loads(json.dumps(scores.to_dict())) == expected
    with_features = dataclasses.replace(scores, clip_features=np.float32([[1], [2]]))
    assert with_features.to_dict() == expected | {"clip_features": [[1], [2]]}
    assert repr(scores) == "VideoScores(b 75.0 %, a 25.0 %; 2 clips up to 3.00 s)"


@pytest.fixture
def videos(tiny, tmp_path) -> list[Path]:
    """Five videos; the second is broken, the fourth missing."""
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    files = tiny.files()
    return [files[0], tmp_path / "broken.mp4", files[1], tmp_path / "missing.mp4", files[2]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_many_videos_come_in_order_with_their_errors(videos, num_workers):
    used = predictor(num_clips=2)
    results = list(used.predict_many(iter(videos), num_workers=num_workers))
    assert [path for path, _, _ in results] == [str(path) for path in videos]
    reasons = [None, "cannot be opened (not a video: begins with nothing)", None, "file not found", None]
    assert [error for _, _, error in results] == reasons
    for path, scores, error in results:
        assert (scores is None) == (error is not None)
        if scores is not None:
            np.testing.assert_array_equal(scores.clip_scores, used.predict(path).clip_scores)
    assert list(used.predict_many([], num_workers=num_workers)) == []


@pytest.mark.parametrize("close", [True, False])
def test_an_iterator_that_is_left_early_ends_its_processes(videos, close):
    threads = torch.get_num_threads()
    results = predictor(num_clips=2).predict_many(videos, num_workers=2)
    next(results)
    assert len(multiprocessing.active_children()) == 2
    started = time.monotonic()
    if close:
        results.close()
    else:
        del results
    assert time.monotonic() - started < 4
    assert multiprocessing.active_children() == []
    assert torch.get_num_threads() == threads
    assert signal.getsignal(signal.SIGCHLD) is not None


@forked
def test_a_video_that_crashes_the_decoder_is_an_error_and_the_others_are_scored(videos, monkeypatch):
    victim = videos[2]

    def fatal(path, **options):
        if str(path) == str(victim):
            with open_video(path, **options):
                os.kill(os.getpid(), signal.SIGABRT)
        return open_video(path, **options)

    monkeypatch.setattr(dataset, "open_video", fatal)
    results = list(predictor(num_clips=2).predict_many(videos, num_workers=2))
    assert [path for path, _, _ in results] == [str(path) for path in videos]
    reasons = ["cannot be opened (not a video: begins with nothing)", STOPPED_REASON, "file not found"]
    assert [error for _, _, error in results] == [None, *reasons, None]
    assert [scores is None for _, scores, _ in results] == [False, True, True, True, False]


@forked
def test_a_loader_process_that_dies_raises_nothing_in_the_code_of_the_caller(tiny, tmp_path, monkeypatch):
    videos, reading = tiny.files()[:3], tmp_path / "reading"

    def slow(path, **options):
        video = open_video(path, **options)
        if str(path) == str(videos[1]):
            reading.touch()
            time.sleep(60)
        return video

    monkeypatch.setattr(dataset, "open_video", slow)
    results = predictor(num_clips=2).predict_many(videos, num_workers=1)
    assert next(results)[2] is None
    while not reading.exists():
        time.sleep(0.01)
    (loader,) = multiprocessing.active_children()
    loader.kill()
    time.sleep(0.5)  # PyTorch's signal handler would raise here
    assert [error for _, _, error in results] == [STOPPED_REASON, None]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("n", "hop_s"), [(1, 1.0), (5, 0.2), (7, 0.2), (8, 0.02), (60, 0.2), (61, 0.31), (60, 1.7)])
def test_a_stream_has_the_clips_of_its_file(tmp_path, rule, n, hop_s):
    if rule == "pyslowfast" and n in (7, 8):
        n += 2  # for at most T * stride frames, a stream of unknown length cannot follow this rule to the frame
    frames, used = noise(n, width=32 if rule == "loop" else 48), predictor(RULES[rule])
    expected = used.predict_sliding(lossless(tmp_path / "file.mp4", frames), hop_s=hop_s)
    found = list(used.stream(iter(frames), 25, hop_s))
    np.testing.assert_allclose([start for start, _, _ in found], expected.clip_start_s, atol=1e-6)
    np.testing.assert_allclose([end for _, end, _ in found], expected.clip_end_s, atol=1e-6)
    np.testing.assert_allclose([scores for _, _, scores in found], expected.clip_scores, atol=1e-6)


def test_a_clip_is_yielded_when_its_last_frame_has_come():
    taken = 0

    def camera() -> Iterator[np.ndarray]:
        nonlocal taken
        for frame in noise(50):
            taken += 1
            yield frame

    # Clips of 7 frames, every fifth: the last one begins at D = 43 and comes after the end.
    seen = [(start, end, taken) for start, end, _ in predictor().stream(camera(), 10, hop_s=0.5)]
    expected = [(start / 10, (start + 7) / 10, start + 7) for start in [*range(0, 41, 5), 43]]
    np.testing.assert_allclose(seen, expected)


def test_the_iterator_may_fill_one_array_again_and_again():
    frames, used = noise(30, width=32), predictor()
    buffer = np.empty_like(frames[0])

    def camera() -> Iterator[np.ndarray]:
        for frame in frames:
            buffer[:] = frame
            yield buffer

    for found, expected in zip(used.stream(camera(), 10), used.stream(frames, 10), strict=True):
        np.testing.assert_array_equal(found[2], expected[2])


class Watched(np.ndarray):
    """An array that a WeakSet can hold."""

    __hash__ = object.__hash__


@pytest.mark.parametrize("hop_s", [0.1, 100.0])
def test_a_stream_keeps_the_frames_of_one_span(monkeypatch, hop_s):
    alive: weakref.WeakSet[Watched] = weakref.WeakSet()
    most = 0

    def resize(frames, preprocessing):
        nonlocal most
        most = max(most, len(alive))
        alive.add(chunk := frames.view(Watched))
        return chunk

    monkeypatch.setattr("dnl_video.data.transforms.resize_short_side", resize)
    frame = noise(1)[0]
    clips = sum(1 for _ in predictor().stream((frame.copy() for _ in range(400)), 10, hop_s))
    assert clips == {0.1: 394, 100.0: 2}[hop_s]
    assert 7 <= most <= 8


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ([], {}, "the frames ended before the first one; check the camera, file or address"),
        ([noise(1)[0] / 255], {}, r"frame: found float64 \[32, 48, 3\] from 0"),
        ([noise(1)[0], noise(1)[0, ..., 0]], {}, r"frame: found uint8 \[32, 48\].*give .* uint8 \[H, W, 3\], RGB"),
        (
            [noise(1)[0], noise(1)[0, :, :40]],
            {},
            "frame 1 has another shape than those before; give frames of one size",
        ),
    ],
)
def test_frames_of_a_stream_that_are_refused(frames, options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        list(predictor().stream(frames, 25, **options))


@pytest.mark.parametrize(("fps", "hop_s"), [(0, 1.0), (math.nan, 1.0), (25, 0.0), (25, math.nan)])
def test_a_stream_checks_its_numbers_at_once(fps, hop_s):
    with pytest.raises(InputError, match=r"fps is|hop_s is"):
        predictor().stream(iter(()), fps, hop_s)
