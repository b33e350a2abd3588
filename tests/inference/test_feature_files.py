from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dnl_video.config import EvaluationConfig
from dnl_video.data.decoding import open_video
from dnl_video.data.manifest import Manifest, VideoRecord, read_videos
from dnl_video.errors import InputError
from dnl_video.inference.features import file_names, run_features
from dnl_video.inference.predictor import Predictor
from dnl_video.models.weights.checkpoint import load_checkpoint
from dnl_video.results.predictions import VideoPrediction
from tests.conftest import TinyRun

OPTIONS = EvaluationConfig(num_clips=2, num_crops=3, views_per_forward=4, num_workers=0, device="cpu")


@pytest.fixture
def videos(tiny: TinyRun, tmp_path: Path) -> Path:
    """Three good videos and one that cannot be read."""
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    found = sorted((tiny.folder / "videos" / "val").rglob("*.mp4"))[:3]
    for target, source in zip(("a.mp4", "b.mp4", "sub/c.mp4"), found, strict=True):
        shutil.copy(source, folder / target)
    (folder / "broken.mp4").write_bytes(b"nothing")
    return folder


def records(*ids: str) -> list[VideoRecord]:
    return [VideoRecord(video_id, f"/data/{video_id}", None, None) for video_id in ids]


def test_features_times_the_classifier_are_the_logits(tiny: TinyRun) -> None:
    """From frames by hand to features, and on to the network's own logits (the demo's head averages logits)."""
    video = next((tiny.folder / "videos" / "val").rglob("*.mp4"))
    predictor = Predictor.from_checkpoint(tiny.run, OPTIONS)
    found = predictor.features(video)
    assert found.features.shape == (2, 256)
    assert found.features.dtype == np.float32
    with open_video(video) as opened:
        frames = torch.from_numpy(opened.read(range(32)))
    starts = [0, 25]  # 4 frames, every second: 7 of 32
    np.testing.assert_allclose(found.clip_start_s, np.array(starts) / 16)
    np.testing.assert_allclose(found.clip_end_s, (np.array(starts) + 7) / 16)
    projection = predictor.network.blocks[-1].proj  # type: ignore[union-attr, index]
    for features, start in zip(found.features, starts, strict=True):
        views = torch.stack([frames[start : start + 7 : 2, :, left : left + 64] for left in (0, 8, 16)])
        clips = ((views.float() / 255 - 0.45) / 0.225).permute(0, 4, 1, 2, 3)
        with torch.no_grad():
            expected = predictor.network(clips).mean(dim=0)
            logits = torch.from_numpy(features) @ projection.weight.T + projection.bias  # type: ignore[operator]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_a_second_run_redoes_nothing_and_failures_are_kept(tiny: TinyRun, videos: Path, tmp_path: Path) -> None:
    checkpoint, manifest, output = load_checkpoint(tiny.run), read_videos([str(videos)]), tmp_path / "out"
    seen: list[str | None] = []

    def progress(done: int, total: int, newest: VideoPrediction | None) -> None:
        assert done <= total == 4
        if newest is not None:
            seen.append(newest.error and newest.video_id)

    state = run_features(checkpoint, manifest, output, OPTIONS, progress=progress)
    assert (state.written, state.missing, list(state.failed)) == (3, 0, ["broken.mp4"])
    assert seen == [None, None, "broken.mp4", None]
    files = sorted(str(p.relative_to(output)) for p in output.rglob("*") if p.is_file() and p.suffix != ".lock")
    assert files == ["a.npz", "b.npz", "failed-0000.jsonl", "meta.json", "sub/c.npz"]
    with np.load(output / "sub" / "c.npz") as stored:
        assert set(stored) == {"features", "clip_start_s", "clip_end_s", "video_id", "path"}
        assert (str(stored["video_id"]), str(stored["path"])) == ("sub/c.mp4", str(videos / "sub" / "c.mp4"))
        expected = Predictor.from_checkpoint(checkpoint, OPTIONS).features(videos / "sub" / "c.mp4")
        np.testing.assert_allclose(stored["features"], expected.features, atol=1e-5)
        np.testing.assert_array_equal(stored["clip_end_s"], expected.clip_end_s)

    seen.clear()
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.npz")}
    again = run_features(checkpoint, manifest, output, OPTIONS, progress=progress)
    assert (seen, again) == ([], state)
    # A lost file, and what a killed process leaves: half a file and half a line.
    (output / "b.npz").unlink()
    (output / ".b.npz.0123abcd.tmp").write_bytes(b"half")
    with (output / "failed-0000.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"video_id": "bro')
    assert run_features(checkpoint, manifest, output, OPTIONS, progress=progress) == state
    assert seen == [None]
    assert not list(output.glob(".*.tmp"))
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path.name != "b.npz")
    # Mended meanwhile: only where asked to try again.
    shutil.copy(videos / "a.mp4", videos / "broken.mp4")
    assert run_features(checkpoint, manifest, output, OPTIONS).written == 3
    mended = run_features(checkpoint, manifest, output, OPTIONS, retry_failed=True)
    assert (mended.written, mended.failed) == (4, {})


def test_a_torn_line_does_not_swallow_the_next(tiny: TinyRun, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "failed-0000.jsonl").write_text('{"video_id": "x', encoding="utf-8")
    manifest = read_videos([str(videos / "broken.mp4")])
    state = run_features(load_checkpoint(tiny.run), manifest, tmp_path / "out", OPTIONS)
    assert list(state.failed) == [str(videos / "broken.mp4")]


def test_processes_share_the_list(tiny: TinyRun, videos: Path, tmp_path: Path) -> None:
    checkpoint, manifest = load_checkpoint(tiny.run), read_videos([str(videos)])
    first = run_features(checkpoint, manifest, tmp_path, OPTIONS, rank=0, world_size=2)
    assert (first.written, first.failed, first.missing) == (1, {"broken.mp4": first.failed["broken.mp4"]}, 2)
    second = run_features(checkpoint, manifest, tmp_path, OPTIONS, rank=1, world_size=2)
    assert (second.written, list(second.failed), second.missing) == (3, ["broken.mp4"], 0)


def test_other_settings_are_refused(tiny: TinyRun, videos: Path, tmp_path: Path) -> None:
    checkpoint, manifest = load_checkpoint(tiny.run), read_videos([str(videos / "a.mp4")])
    output = tmp_path / "out"
    run_features(checkpoint, manifest, output, OPTIONS)
    other = EvaluationConfig(num_clips=3, num_crops=3, num_workers=0, device="cpu")
    with pytest.raises(
        InputError, match=r"holds features with another num_clips \(2, not 3\); choose another --output"
    ):
        run_features(checkpoint, manifest, output, other)
    for text in ('{"model": {}}', "half"):
        (output / "meta.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"meta\.json is not of features; choose another --output"):
            run_features(checkpoint, manifest, output, OPTIONS)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="cannot make the folder"):
        run_features(checkpoint, manifest, tmp_path / "file" / "below", OPTIONS)


def test_features_that_are_no_numbers_are_a_failure(
    tiny: TinyRun, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(tiny.run)
    name = next(k for k in checkpoint.state_dict if k.endswith("branch2.norm_c.bias"))
    monkeypatch.setitem(checkpoint.state_dict, name, torch.full_like(checkpoint.state_dict[name], float("nan")))
    manifest = Manifest("x", read_videos([str(videos / "a.mp4")]).records, None, "")
    state = run_features(checkpoint, manifest, tmp_path / "out", OPTIONS)
    assert list(state.failed.values()) == ["the network gave NaN or infinite features"]
    assert json.loads((tmp_path / "out" / "failed-0000.jsonl").read_text())["path"] == str(videos / "a.mp4")


def test_file_names() -> None:
    assert file_names(records("a.mp4", "sub/b.MKV", "c", "v1.2", "/data/x/d.webm", "../e.mp4")) == [
        "a.npz",
        "sub/b.npz",
        "c.npz",
        "v1.2.npz",
        "d.npz",
        "e.npz",
    ]
    names = file_names(records("a.mp4", "a.mkv", "b.mp4"))
    assert names[2] == "b.npz"
    assert len(set(names)) == 3
    assert all(name.startswith("a-") for name in names[:2])
    assert file_names(records("a.mkv", "a.mp4"))[1] == names[0]  # the order of the list does not matter
