"""Pooled features in Python and in a predictions directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dnl_video.config import EvaluationConfig
from dnl_video.data.decoding import open_video
from dnl_video.data.manifest import read_videos
from dnl_video.errors import InputError
from dnl_video.inference.predictor import Predictor
from dnl_video.inference.runner import run_predictions
from dnl_video.models.weights.checkpoint import load_checkpoint
from dnl_video.results.reader import read_predictions
from tests.conftest import TinyRun

OPTIONS = EvaluationConfig(num_clips=2, num_crops=3, views_per_forward=4, num_workers=0, device="cpu")


@pytest.fixture
def videos(tiny: TinyRun, tmp_path: Path) -> list[str]:
    """Three good videos; the second of four cannot be read."""
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    found = [str(path) for path in tiny.files()[:3]]
    return [found[0], str(tmp_path / "broken.mp4"), *found[1:]]


def test_features_times_the_classifier_are_the_logits(tiny):
    """The views are cut by hand; the demo's head averages logits."""
    video = tiny.files()[0]
    predictor = Predictor.from_checkpoint(tiny.run, OPTIONS)
    found = predictor.features(video)
    assert found.features.shape == (2, 256)
    assert found.features.dtype == np.float32
    with open_video(video) as opened:
        frames = torch.from_numpy(opened.read(range(32)))
    starts = [0, 25]  # 4 frames, every second: 7 of 32
    np.testing.assert_allclose(found.clip_start_s, np.array(starts) / 16)
    np.testing.assert_allclose(found.clip_end_s, (np.array(starts) + 7) / 16)
    projection = predictor.network.blocks[-1].proj
    for features, start in zip(found.features, starts, strict=True):
        views = torch.stack([frames[start : start + 7 : 2, :, left : left + 64] for left in (0, 8, 16)])
        clips = ((views.float() / 255 - 0.45) / 0.225).permute(0, 4, 1, 2, 3)
        with torch.no_grad():
            expected = predictor.network(clips).mean(dim=0)
            logits = torch.from_numpy(features) @ projection.weight.T + projection.bias
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_the_directory_holds_features_and_scores(tiny, videos, tmp_path):
    checkpoint, manifest, output = load_checkpoint(tiny.run), read_videos(videos), tmp_path / "out"
    seen: list[int] = []
    options = {"features": True, "progress": lambda done, total, newest: seen.append(done)}
    assert run_predictions(checkpoint, manifest, output, OPTIONS, **options)
    table = read_predictions(output, order=videos)
    assert table.meta.clip_features
    assert [error is None for error in table.error] == [True, False, True, True]
    assert table.clip_video.tolist() == [0, 0, 2, 2, 3, 3]
    predictor = Predictor.from_checkpoint(checkpoint, OPTIONS)
    alone = predictor.features(videos[3])
    np.testing.assert_allclose(table.clip_features[4:], alone.features, atol=1e-5)
    np.testing.assert_array_equal(table.clip_end_s[4:], alone.clip_end_s)
    np.testing.assert_allclose(table.scores[3], predictor.predict(videos[3]).scores, atol=1e-5)
    # A second run does no work.
    assert seen == [0, 1, 2, 3, 4]
    assert run_predictions(checkpoint, manifest, output, OPTIONS, **options)
    assert seen[5:] == [4]


def test_a_directory_without_features_is_refused(tiny, videos, tmp_path):
    checkpoint, manifest = load_checkpoint(tiny.run), read_videos(videos[:1])
    run_predictions(checkpoint, manifest, tmp_path / "out", OPTIONS)
    with pytest.raises(InputError, match=r"another run, which differs in clip_features \(False there, True now\)"):
        run_predictions(checkpoint, manifest, tmp_path / "out", OPTIONS, features=True)


def test_nan_values_are_a_failure(tiny, videos, tmp_path, monkeypatch):
    checkpoint = load_checkpoint(tiny.run)
    name = next(k for k in checkpoint.state_dict if k.endswith("branch2.norm_c.bias"))
    monkeypatch.setitem(checkpoint.state_dict, name, torch.full_like(checkpoint.state_dict[name], float("nan")))
    run_predictions(checkpoint, read_videos(videos[:1]), tmp_path / "out", OPTIONS, features=True)
    assert read_predictions(tmp_path / "out").error == ["the network gave NaN or infinite scores"]
