from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dnl_video
from dnl_video.config import EvaluationConfig
from dnl_video.data.dataset import VideoViews
from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.encoding import write_video
from dnl_video.errors import InputError
from dnl_video.inference import device
from dnl_video.inference.predictor import Predictor
from dnl_video.models.weights.checkpoint import load_checkpoint
from dnl_video.spec import Preprocessing


class MeanColour(nn.Module):
    """Logits are the mean of each colour of the normalised clip."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(2, 3, 4))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


PREPROCESSING = Preprocessing(num_frames=4, frame_stride=2, short_side=64, crop_size=64)


def mean_colour(**options: Any) -> Predictor:
    return Predictor(MeanColour(), PREPROCESSING, ["r", "g", "b"], EvaluationConfig(device="cpu", **options))


def test_scores_are_the_mean_of_softmax_over_views(tiny):
    video = tiny.files()[0]
    result = mean_colour(num_clips=3, num_crops=3, views_per_forward=2).predict(video)
    # By hand: 32 frames of 80 x 64; clips of frames s, s+2, s+4, s+6 for s = 0, 13, 25; crops at x 0, 8, 16.
    with open_video(video) as opened:
        frames = opened.read(np.arange(32)).astype(np.float64) / 255
    expected = []
    for start in (0, 13, 25):
        for left in (0, 8, 16):
            view = frames[start : start + 7 : 2, :, left : left + 64]
            expected.append(softmax(((view - 0.45) / 0.225).mean(axis=(0, 1, 2))))
    np.testing.assert_allclose(result.scores, np.mean(expected, axis=0), atol=1e-5)
    np.testing.assert_allclose(result.clip_scores, np.reshape(expected, (3, 3, 3)).mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(result.clip_start_s, np.array([0, 13, 25]) / 16)
    np.testing.assert_allclose(result.clip_end_s, np.array([7, 20, 32]) / 16)
    best = result.top(2)
    assert best[0][1] >= best[1][1]
    assert best[0][0] == "rgb"[int(np.argmax(result.scores))]


def test_equal_views_are_computed_once(tmp_path, tiny):
    """A square video of five frames has one view of 10 x 3; frames 0, 2, 4 and, past the end, 4."""
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    video = tmp_path / "short.mp4"
    write_video(video, frames, 10.0, options={"preset": "ultrafast", "threads": "1"})
    predictor, seen = Predictor.from_checkpoint(tiny.run, EvaluationConfig(device="cpu")), []
    hook = predictor.scorer.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found = predictor.predict(video)
    assert seen == [1]
    hook.remove()
    with open_video(video) as opened:
        view = torch.from_numpy(opened.read([0, 2, 4, 4]))
    every = predictor.score_views(view.repeat(30, 1, 1, 1, 1)).numpy()
    np.testing.assert_allclose(found.scores, every.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.clip_scores, every[::3], atol=1e-6)
    pooled = predictor.features(video).features
    assert pooled.shape == (10, 256)
    assert (pooled == pooled[0]).all()


def test_a_predictor_of_a_run(tiny):
    video = tiny.files()[0]
    predictor = dnl_video.Predictor.from_checkpoint(tiny.run, EvaluationConfig(num_clips=2, num_crops=1, device="cpu"))
    scores = predictor.predict(video)
    assert scores.scores.sum() == pytest.approx(1, abs=1e-5)
    assert [name for name, _ in scores.top(8)] != []
    assert set(scores.class_names) == {name for name, _ in scores.top(8)}


def test_views_per_forward_does_not_change_scores(tiny):
    views = torch.randint(0, 256, (5, 4, 64, 64, 3), dtype=torch.uint8)
    scores = [
        Predictor.from_checkpoint(tiny.run, EvaluationConfig(views_per_forward=n, device="cpu")).score_views(views)
        for n in (1, 2, 5)
    ]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores[0], scores[2], atol=1e-5, rtol=1e-4)


def test_a_broken_file_and_a_missing_one(tiny, tmp_path):
    predictor = mean_colour()
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    with pytest.raises(VideoDecodeError, match=r"broken\.mp4"):
        predictor.predict(tmp_path / "broken.mp4")
    with pytest.raises(InputError, match=r"nowhere\.mp4"):
        predictor.predict(tmp_path / "nowhere.mp4")


def test_a_cpu_uses_the_folded_copy_and_keeps_the_network(tiny):
    video = tiny.files()[0]
    checkpoint = load_checkpoint(tiny.run)
    network = checkpoint.build()
    options = EvaluationConfig(num_clips=2, num_crops=3, device="cpu")
    fast = Predictor(network, checkpoint.preprocessing, checkpoint.class_names, options)
    assert fast.network is network
    assert fast.scorer is not network
    scores = fast.predict(video).scores
    fast.scorer = network
    np.testing.assert_allclose(scores, fast.predict(video).scores, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_emulated_half_precision_is_refused(precision, monkeypatch):
    monkeypatch.setattr(device, "cpu_flags", lambda: {"avx2"})
    with pytest.raises(InputError, match=f"precision '{precision}' is emulated on this CPU .* use --precision 32-true"):
        mean_colour(precision=precision)
    monkeypatch.setattr(device, "cpu_flags", lambda: {"avx512_bf16", "avx512_fp16"})
    mean_colour(precision=precision)
    monkeypatch.setattr(device, "cpu_flags", set)
    mean_colour(precision=precision)


def test_features_of_an_unknown_network():
    predictor = mean_colour()
    views = VideoViews(0, torch.zeros(1, 4, 64, 64, 3, dtype=torch.uint8), np.zeros(1), np.ones(1), None)
    with pytest.raises(ValueError, match="MeanColour has no known last features; give a network of create_model"):
        predictor.score(views, features=True)
    with pytest.raises(InputError, match="is a folder; give one video file, or use `dnl-video features` for many"):
        predictor.features(Path(__file__).parent)
