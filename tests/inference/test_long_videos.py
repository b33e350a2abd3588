from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from dnl_video.config import EvaluationConfig
from dnl_video.data.decoding import VideoDecodeError
from dnl_video.data.encoding import write_video
from dnl_video.inference.predictor import Predictor
from dnl_video.inference.segments import find_segments, make_timeline
from dnl_video.spec import Preprocessing
from tests.data.odd_videos import film

FAST = {"preset": "ultrafast", "threads": "1"}
PREPROCESSING = Preprocessing(num_frames=4, frame_stride=5, short_side=32, crop_size=32)


class Brightest(nn.Module):
    """Logits are the mean of each colour: a red clip has class 0, a green one class 1, a blue one class 2."""

    def forward(self, clips: Tensor) -> Tensor:
        return 3 * clips.mean(dim=(2, 3, 4))


def predictor(num_workers: int = 0, **options: int) -> Predictor:
    chosen = EvaluationConfig(device="cpu", num_workers=num_workers, **options)
    return Predictor(Brightest(), PREPROCESSING, ["red", "green", "blue"], chosen)


def colours(*stretches: tuple[int, int], fps: int = 10) -> Iterator[np.ndarray]:
    """Yield frames of each (colour, seconds)."""
    for colour, seconds in stretches:
        frame = np.full((32, 48, 3), 40, np.uint8)
        frame[..., colour] = 220
        for _ in range(seconds * fps):
            yield frame


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 seconds: red to 14, blue to 20, green to 47, red to the end."""
    path = tmp_path_factory.mktemp("minute") / "minute.mp4"
    write_video(path, colours((0, 14), (2, 6), (1, 27), (0, 13)), 10, options=FAST)
    return path


@pytest.mark.parametrize("num_workers", [0, 2])
def test_segments_follow_the_content(minute, num_workers):
    seen: list[tuple[int, int]] = []
    scores = predictor(num_workers, num_crops=3, views_per_forward=12).predict_sliding(
        minute, hop_s=0.5, progress=lambda done, total: seen.append((done, total))
    )
    # Clips span 16 of 600 frames: 117 starts 0, 5, ..., 580 and one at 584.
    assert scores.clip_scores.shape == (118, 3)
    assert seen == [(done, 118) for done in [*range(4, 118, 4), 118]]
    np.testing.assert_allclose(scores.scores, scores.clip_scores.mean(axis=0))
    assert scores.clip_start_s[-2:].tolist() == [58.0, 58.4]
    assert scores.clip_end_s[-1] == 60.0
    segments = find_segments(make_timeline(scores.clip_start_s, scores.clip_end_s, scores.clip_scores))
    assert [one.class_index for one in segments] == [0, 2, 1, 0]
    assert [one.start_s for one in segments] == pytest.approx([0, 14, 20, 47], abs=0.5)
    assert segments[-1].end_s == 60.0
    assert all(one.score > 0.8 for one in segments)


@pytest.mark.parametrize("target_fps", [None, 10.0])
def test_the_class_of_a_film_with_a_variable_rate_changes_at_the_right_time(tmp_path, target_fps):
    film(tmp_path / "film.mp4", colours((0, 96), (2, 96), fps=1))
    found = predictor()
    found.preprocessing = Preprocessing(2, 1, target_fps, short_side=32, crop_size=32)
    scores = found.predict_sliding(tmp_path / "film.mp4", hop_s=0.1)
    segments = find_segments(make_timeline(scores.clip_start_s, scores.clip_end_s, scores.clip_scores))
    assert [one.class_index for one in segments] == [0, 2]
    assert [one.start_s for one in segments] == pytest.approx([0, 3.2], abs=0.1)
    assert segments[-1].end_s == pytest.approx(19.2)


def test_a_video_shorter_than_a_clip_is_one_clip(tmp_path):
    write_video(tmp_path / "short.mp4", colours((1, 1)), 10, options=FAST)
    scores = predictor().predict_sliding(tmp_path / "short.mp4")
    assert scores.clip_scores.shape == (1, 3)
    assert scores.clip_end_s.tolist() == [1.0]
    assert scores.top(1)[0][0] == "green"


def test_a_broken_video(tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(VideoDecodeError, match=r"no\.mp4: cannot be opened"):
        predictor().predict_sliding(tmp_path / "no.mp4")


@pytest.mark.full
def test_memory_does_not_grow_with_length(tmp_path, full_size):
    """Six times the length, with a network slower than the decoder, so that decoding runs ahead."""
    size, lengths = ((480, 640), (20, 120)) if full_size else ((240, 320), (4, 24))
    peaks = _peaks_mib([_noise(tmp_path / f"{seconds}.mp4", seconds, size) for seconds in lengths])
    # At full size the longer video's extra frames would be 2600 MiB, at the small size 140.
    assert peaks[1] - peaks[0] < (150 if full_size else 50)


def _noise(path: Path, seconds: int, size: tuple[int, int]) -> Path:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    frames = (np.roll(picture, i, axis=1) for i in range(seconds * 30))
    write_video(path, frames, 30, crf=35, options=FAST)
    return path


def _peaks_mib(videos: list[Path]) -> list[float]:
    """Return the peak memory of a process after each of the videos."""
    code = f"""
        import time, torch
        from pathlib import Path
        from tests.inference.test_long_videos import Brightest
        from dnl_video.config import EvaluationConfig
        from dnl_video.inference.predictor import Predictor
        from dnl_video.spec import Preprocessing

        class Slow(Brightest):
            def forward(self, clips):
                time.sleep(0.05)
                return super().forward(clips)

        torch.set_num_threads(1)
        options = EvaluationConfig(device="cpu", num_workers=1, num_crops=1, views_per_forward=4)
        preprocessing = Preprocessing(num_frames=8, frame_stride=2, short_side=64, crop_size=64)
        predictor = Predictor(Slow(), preprocessing, ["r", "g", "b"], options)
        peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
        for video in {[str(video) for video in videos]!r}:
            assert len(predictor.predict_sliding(video, hop_s=0.2).clip_scores) > 15
            print(peak())
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]
