from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import data as data_script
from data_variants import (
    STAGES,
    DataCase,
    evaluation_variants,
    float_batch,
    float_view,
    our_batch,
    plain_frames,
    plain_read,
    separate_views,
    stage_seconds,
    training_variants,
)
from dnl_video.config import AugmentConfig
from dnl_video.data.dataset import ClipDataset, ViewDataset
from dnl_video.data.decoding import open_video
from dnl_video.data.transforms import normalize, train_transform
from dnl_video.spec import Preprocessing
from videos import VideoKind, generate

SMALL = VideoKind("small", 80, 64, 4, 6.0)
PREPROCESSING = Preprocessing(num_frames=4, frame_stride=2, short_side=48, crop_size=48)
AUGMENT = AugmentConfig(short_side=(48, 64), crop_size=40)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return generate(SMALL, tmp_path_factory.mktemp("generated"), count=2, seconds=1)


@pytest.fixture(scope="module")
def case(videos: list[Path]) -> DataCase:
    return DataCase("small", tuple(map(str, videos)), ("decord", "av"), 3, PREPROCESSING, AUGMENT, 3, 3)


def test_generated_videos_have_the_size_and_key_frames_of_their_kind_and_are_kept(videos: list[Path]) -> None:
    assert [path.name for path in videos] == ["small-1s-0.mp4", "small-1s-1.mp4"]
    for path in videos:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height, stream.average_rate) == (80, 64, 30)
            # Packets come in decoding order; the times of key frames tell how far they lie apart.
            keys = [packet.pts * packet.time_base for packet in container.demux(stream) if packet.is_keyframe]
        assert len(keys) >= 8
        assert max(np.diff(np.array(keys, float))) < 4.5 / 30
    before = [path.stat().st_mtime_ns for path in videos]
    assert generate(SMALL, videos[0].parent, count=2, seconds=1) == videos
    assert [path.stat().st_mtime_ns for path in videos] == before
    first, second = (plain_read(str(path), [0, 29]).astype(int) for path in videos)
    assert np.abs(first - second).mean() > 10, "the videos differ"
    assert np.abs(first[0] - first[1]).mean() > 5, "the scene moves"


def test_plain_decord_reads_our_frames(videos: list[Path]) -> None:
    with open_video(videos[0]) as video:
        ours = video.read([3, 11, 20])
    np.testing.assert_array_equal(plain_read(str(videos[0]), [3, 11, 20]), ours)


@pytest.mark.parametrize("decoder", ["decord", "av"])
def test_all_variants_show_the_same_frames(case: DataCase, decoder: str) -> None:
    records = [case.record(index) for index in range(case.batch)]
    dataset = ClipDataset(records, PREPROCESSING, AUGMENT, seed=0, decoder=decoder)
    ours = our_batch(dataset, 5)["clip"]
    cut = torch.stack([train_transform(frames, AUGMENT, rng) for rng, frames in plain_frames(case, 5)])
    # Two builds of FFmpeg convert colours; they may round differently.
    assert (ours.int() - cut.int()).abs().max() <= (0 if decoder == "decord" else 8)


def test_the_float_order_shows_the_same_views() -> None:
    frames = np.zeros((2, 128, 170, 3), np.uint8)
    frames[..., 0] = np.arange(170)
    frames[..., 1] = np.arange(128)[:, None]
    augment = AugmentConfig(short_side=(128, 160), crop_size=112)
    for seed in range(10):
        ours = normalize(train_transform(frames, augment, np.random.default_rng(seed))[None], (0.45,) * 3, (0.225,) * 3)
        theirs = float_view(frames, augment, Preprocessing(), np.random.default_rng(seed))
        assert theirs.shape == (3, 2, 112, 112)
        # A pixel at most, which is one step of the gradient, and rounding to integers.
        assert (ours[0] - theirs).abs().max() <= 2 / 255 / 0.225
        assert (ours[0] - theirs).abs().mean() <= 0.7 / 255 / 0.225


def test_float_batches_are_of_the_same_clips(case: DataCase) -> None:
    batch = float_batch(case, 2)
    assert batch.shape == (3, 3, 4, 40, 40)
    records = [case.record(index) for index in range(case.batch)]
    ours = our_batch(ClipDataset(records, PREPROCESSING, AUGMENT, seed=0), 2)["clip"]
    ours = normalize(ours, (0.45,) * 3, (0.225,) * 3)
    for mine, theirs in zip(ours, batch, strict=True):
        correlation = np.corrcoef(mine.flatten().numpy(), theirs.flatten().numpy())[0, 1]
        assert correlation > 0.9


def test_separate_reads_give_our_views(case: DataCase) -> None:
    views = ViewDataset([case.record(0)], PREPROCESSING, num_clips=3, num_crops=3)[0].views
    assert torch.equal(separate_views(case.files[0], 30.0, PREPROCESSING, 3, 3), views)


def test_every_variant_does_the_next_clips_each_time(case: DataCase) -> None:
    variants = training_variants(case)
    first, second = variants["decord"](), variants["decord"]()
    assert not torch.equal(first["clip"], second["clip"])
    for epoch, batch in enumerate((first, second)):
        rngs = [rng for rng, _ in plain_frames(case, epoch)]
        clips = zip(variants["plain"](), rngs, strict=True)
        cut = [train_transform(frames, AUGMENT, rng) for frames, rng in clips]
        assert torch.equal(batch["clip"], torch.stack(cut))


def test_all_parts_of_a_case_are_measured(case: DataCase) -> None:
    result = data_script.measure_data(case, repeats=1, budget_s=0, evaluation=True)
    assert set(result.clip_s) == {"plain", "float", "decord", "av"} == set(training_variants(case))
    assert set(result.video_s) == {"separate", "decord", "av"} == set(evaluation_variants(case))
    assert set(result.stages_s) == {"decord", "av"}
    assert all(set(stages) == set(STAGES) for stages in result.stages_s.values())
    assert all(seconds > 0 for seconds in (*result.clip_s.values(), *result.video_s.values()))
    assert all(seconds >= 0 for seconds in stage_seconds(case, "decord", 0).values())
    assert set(result.faster) == {"plain", "float", "float_normalised", "separate"}
    # One round: the median of ratios is the ratio.
    assert result.faster["plain"]["av"] == pytest.approx(result.clip_s["plain"] / result.clip_s["av"])
    assert result.faster["separate"]["decord"] == pytest.approx(result.video_s["separate"] / result.video_s["decord"])
    assert result.faster["float_normalised"]["av"] < result.faster["float"]["av"]


def test_the_script_prints_tables_and_writes_figures(
    videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "data.json"
    words = ["--files", str(videos[0]), "--decoder", "decord", "--clips", "1", "--repeats", "1"]
    data_script.main([*words, "--budget-s", "0", "--no-evaluation", "--json", str(figures)])
    out = capsys.readouterr().out
    assert "x plain" in out
    assert "30 reads" not in out
    (result,) = json.loads(figures.read_text())["results"]
    assert set(result["clip_s"]) == {"plain", "float", "decord"}
    assert result["case"]["files"] == [str(videos[0])]
    assert result["video_s"] == {}
