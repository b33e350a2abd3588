from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dnl_video.config import AugmentConfig
from dnl_video.data import dataset as dataset_module
from dnl_video.data import decoding
from dnl_video.data.dataset import ClipDataset, ViewDataset, collate_clips
from dnl_video.data.decoding import VideoDecodeError, open_video
from dnl_video.data.manifest import VideoRecord
from dnl_video.data.sampling import reorder_frames, view_indices
from dnl_video.data.transforms import crop_views
from dnl_video.spec import Preprocessing
from tests.data.odd_videos import film

# 4 frames every 2 of 24: starts 0 to 17. The videos are 48 x 64 at 10 fps.
PREPROCESSING = Preprocessing(num_frames=4, frame_stride=2, short_side=48, crop_size=48)
AUGMENT = AugmentConfig(short_side=(40, 56), crop_size=32, flip=0.5)
REDS = (20, 80, 140, 200)


@pytest.fixture(scope="module")
def records(tmp_path_factory, write_coloured) -> tuple[VideoRecord, ...]:
    """Four videos: red 20, 80, 140 and 200 with labels 0 to 3."""
    folder = tmp_path_factory.mktemp("videos")
    return tuple(
        VideoRecord(f"v{i}", str(write_coloured(folder / f"v{i}.mp4", red)), i, f"class {i}")
        for i, red in enumerate(REDS)
    )


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Names of the files opened, in order."""
    names: list[str] = []

    def counting(path, **options):
        names.append(Path(path).name)
        return open_video(path, **options)

    monkeypatch.setattr(dataset_module, "open_video", counting)
    return names


def with_bad(records, *positions: int) -> list[VideoRecord]:
    """Return the records with missing files at some positions."""
    bad = {i: dataclasses.replace(records[i], path=f"/nowhere/bad{i}.mp4") for i in positions}
    return [bad.get(i, record) for i, record in enumerate(records)]


def seen(clip: torch.Tensor) -> tuple[float, list[float]]:
    """Return the red of a clip [T, H, W, 3], and its frame numbers."""
    means = clip.double().mean(dim=(1, 2))
    return float(means[:, 0].mean()), (means[:, 1] / 10).tolist()


def test_clip_shows_the_right_frames_of_the_right_video(records):
    dataset = ClipDataset(records, PREPROCESSING, AUGMENT, seed=0)
    assert len(dataset) == 4
    starts = set()
    for epoch in range(10):
        for index in range(4):
            sample = dataset[epoch, index]
            assert set(sample) == {"clips", "label", "index", "failures"}
            assert sample["clips"][0].shape == (4, 32, 32, 3)
            assert sample["clips"][0].dtype == torch.uint8
            assert (sample["label"], sample["index"], sample["failures"]) == (index, index, [])
            red, frames = seen(sample["clips"][0])
            assert red == pytest.approx(REDS[index], abs=3)
            start = round(frames[0])
            assert frames == pytest.approx([start, start + 2, start + 4, start + 6], abs=0.4)
            starts.add(start)
    assert len(starts) > 8
    assert starts <= set(range(18))


def test_a_clip_is_a_function_of_seed_epoch_and_index(records):
    first, second = (ClipDataset(records, PREPROCESSING, AUGMENT, seed=5) for _ in range(2))
    other_seed = ClipDataset(records, PREPROCESSING, AUGMENT, seed=6)
    for key in [(0, 0), (7, 3), (2, 1)]:
        assert torch.equal(first[key]["clips"][0], second[key]["clips"][0])
    # In another order, after other draws.
    assert torch.equal(second[7, 3]["clips"][0], first[7, 3]["clips"][0])
    starts = {tuple(seen(dataset[epoch, 0]["clips"][0])[1]) for dataset in (first, other_seed) for epoch in range(5)}
    assert len(starts) >= 5


def test_workers_change_nothing(records):
    keys = [(epoch, index) for epoch in (0, 1) for index in (3, 1, 0, 2)]
    batches = []
    for num_workers in (0, 2):
        dataset = ClipDataset(with_bad(records, 1), PREPROCESSING, AUGMENT, seed=0)
        loader = DataLoader(dataset, batch_size=2, sampler=keys, collate_fn=collate_clips, num_workers=num_workers)
        batches.append(list(loader))
    assert len(batches[0]) == len(batches[1]) == 4
    for here, there in zip(*batches, strict=True):
        assert torch.equal(here["clip"], there["clip"])
        assert here["label"].tolist() == there["label"].tolist()
        assert here["index"].tolist() == there["index"].tolist()
        assert here["failures"] == there["failures"]
    assert [batch["index"].tolist() for batch in batches[0]] == [[3, 1], [0, 2], [3, 1], [0, 2]]
    assert batches[0][0]["failures"] == [("/nowhere/bad1.mp4", "file not found")]
    assert batches[0][1]["failures"] == []


def test_a_bad_video_is_replaced_and_reported(records, opened, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    mixed = (*records[:2], VideoRecord("v2", str(broken), 2, None), records[3])
    dataset = ClipDataset(mixed, PREPROCESSING, AUGMENT, seed=0)
    labels = set()
    for epoch in range(12):
        sample = dataset[epoch, 2]
        assert sample["index"] == 2
        assert sample["label"] in (0, 1, 3)
        assert seen(sample["clips"][0])[0] == pytest.approx(REDS[sample["label"]], abs=3)  # label and video match
        ((path, reason),) = sample["failures"]
        assert path == str(broken)
        assert reason.startswith("cannot be opened (")
        labels.add(sample["label"])
    assert labels == {0, 1, 3}
    assert opened.count("broken.mp4") == 1  # known as bad, not opened again
    # A dataset that has not met the bad video yet draws the same.
    fresh = ClipDataset(mixed, PREPROCESSING, AUGMENT, seed=0)[11, 2]
    assert torch.equal(fresh["clips"][0], sample["clips"][0])
    assert fresh["failures"] == sample["failures"]


def test_replacements_depend_on_seed_epoch_and_index(records):
    # Every second video is bad. The label of a sample tells which of the 20 good ones replaces it.
    many = [dataclasses.replace(records[i % 4], label=i) for i in range(40)]
    many = with_bad(many, *range(0, 40, 2))

    def replacements(seed: int, epoch: int) -> list[int]:
        dataset = ClipDataset(many, PREPROCESSING, AUGMENT, seed=seed)
        return [dataset[epoch, index]["label"] for index in range(0, 40, 2)]

    first = replacements(0, 0)
    assert first == replacements(0, 0)
    assert len(set(first)) >= 8
    for other in (replacements(0, 1), replacements(1, 0)):
        assert sum(a != b for a, b in zip(first, other, strict=True)) >= 12


def test_each_replacement_is_another_video(records):
    dataset = ClipDataset(with_bad(records, 0, 1, 3), PREPROCESSING, AUGMENT, seed=0)
    for epoch in range(5):
        sample = dataset[epoch, 0]
        assert sample["label"] == 2
        paths = [path for path, _ in sample["failures"]]
        assert paths[0] == "/nowhere/bad0.mp4"
        assert len(set(paths)) == len(paths) <= 3


def test_too_many_bad_videos_stop_with_the_list(records):
    dataset = ClipDataset(with_bad(records, 0, 1, 2, 3), PREPROCESSING, AUGMENT, seed=0)
    with pytest.raises(VideoDecodeError) as caught:
        dataset[0, 1]
    start = "4 videos in a row cannot be read, check the data: /nowhere/bad1.mp4 (file not found); /nowhere/bad"
    assert str(caught.value).startswith(start)
    assert all(f"/nowhere/bad{i}.mp4 (file not found)" in str(caught.value) for i in range(4))
    limited = ClipDataset(dataset.records, PREPROCESSING, AUGMENT, seed=0, max_attempts=2)
    with pytest.raises(VideoDecodeError, match=r"^2 videos in a row cannot be read, check the data: "):
        limited[0, 1]
    single = ClipDataset(with_bad(records, 0)[:1], PREPROCESSING, AUGMENT, seed=0, max_attempts=1)
    with pytest.raises(VideoDecodeError, match=r"^1 videos in a row .*: /nowhere/bad0\.mp4 \(file not found\)$"):
        single[0, 0]


def test_the_error_of_a_worker_keeps_the_list(records):
    dataset = ClipDataset(with_bad(records, 0, 1, 2, 3), PREPROCESSING, AUGMENT, seed=0)
    loader = DataLoader(dataset, sampler=[(0, 0)], collate_fn=collate_clips, num_workers=1)
    batches = iter(loader)
    expected = r"^4 videos in a row cannot be read, check the data: /nowhere/bad0\.mp4 \(file not found\); .*\)$"
    with pytest.raises(VideoDecodeError, match=expected):
        next(batches)
    batches._shutdown_workers()  # left to the garbage collector, torch waits five seconds for the worker


def test_views_are_the_right_frames_and_crops(records):
    dataset = ViewDataset(records, PREPROCESSING, num_clips=3, num_crops=3)
    item = dataset[2]
    assert len(dataset) == 4
    assert (item.index, item.error) == (2, None)
    assert item.views.shape == (9, 4, 48, 48, 3)
    assert item.views.dtype == torch.uint8
    # Span 7, D = 17: starts 0, 8.5 -> 9, 17.
    for j, start in enumerate((0, 9, 17)):
        for r in range(3):
            red, frames = seen(item.views[3 * j + r])
            assert red == pytest.approx(140, abs=3)
            assert frames == pytest.approx([start, start + 2, start + 4, start + 6], abs=0.4)
    # 10 frames per second: from the first frame's beginning to the last one's end.
    assert item.clip_start_s.tolist() == pytest.approx([0.0, 0.9, 1.7])
    assert item.clip_end_s.tolist() == pytest.approx([0.7, 1.6, 2.4])


def test_every_video_has_its_own_order_of_shuffled_frames(records):
    same = ViewDataset([records[0]] * 6, PREPROCESSING, num_clips=1, num_crops=1, frame_order="shuffled")
    orders = [tuple(round(frame) for frame in seen(same[index].views[0])[1]) for index in range(6)]
    assert {tuple(sorted(order)) for order in orders} == {(8, 10, 12, 14)}
    assert len(set(orders)) > 2
    assert tuple(round(frame) for frame in seen(same[5].views[0])[1]) == orders[5]


def test_views_are_resized_to_the_short_side(records):
    preprocessing = Preprocessing(num_frames=2, frame_stride=4, short_side=24, crop_size=20)
    item = ViewDataset(records, preprocessing, num_clips=1, num_crops=1)[0]
    assert item.views.shape == (1, 2, 20, 20, 3)
    assert seen(item.views[0])[0] == pytest.approx(20, abs=3)


def test_views_of_a_short_looped_video(tmp_path, write_coloured):
    path = write_coloured(tmp_path / "short.mp4", 90, num_frames=5)
    preprocessing = Preprocessing(num_frames=4, frame_stride=3, short_side=48, crop_size=48, past_end="loop")
    item = ViewDataset([VideoRecord("s", str(path), None, None)], preprocessing, num_clips=2, num_crops=1)[0]
    assert seen(item.views[0])[1] == pytest.approx([0, 3, 1, 4], abs=0.4)
    assert item.clip_start_s.tolist() == [0.0, 0.0]
    assert item.clip_end_s.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("num_frames", "width", "order", "distinct"),
    [
        (24, 64, "natural", 10 * 3),
        (5, 64, "natural", 1 * 3),  # shorter than the span of 7
        (9, 64, "natural", 3 * 3),  # starts 0, 1, 2
        (24, 48, "natural", 10 * 1),  # square: one crop
        (9, 48, "natural", 3 * 1),
        (9, 64, "reversed", 3 * 3),
        (9, 48, "shuffled", 10),
        (5, 48, "repeated", 1),
    ],
)
def test_equal_views_are_cut_once(tmp_path, write_coloured, num_frames, width, order, distinct):
    path = write_coloured(tmp_path / "short.mp4", 90, num_frames, width=width)
    views = ViewDataset([VideoRecord("s", str(path))], PREPROCESSING, num_clips=10, num_crops=3, frame_order=order)
    item = views[0]
    assert len(item.views) == distinct
    with open_video(path) as video:
        frames = torch.from_numpy(video.read(range(num_frames)))
    indices = view_indices(num_frames, 10.0, PREPROCESSING, 10)
    indices = reorder_frames(indices, order, np.random.default_rng(0))
    expected = torch.cat([crop_views(frames[clip][None], PREPROCESSING, 3) for clip in indices])
    assert torch.equal(item.expand(item.views), expected)
    np.testing.assert_allclose(item.clip_end_s, (indices.max(axis=1) + 1) / 10, atol=1e-6)


@pytest.mark.parametrize("decoder", ["decord", "av"])
@pytest.mark.parametrize("known", ["", "decord"])
def test_clip_times_come_from_presentation_times(tmp_path, decoder, known):
    path = str(film(tmp_path / "film.mp4"))
    record = VideoRecord("film", path, decoder=known)
    native = Preprocessing(num_frames=4, frame_stride=2, short_side=64, crop_size=64)
    item = ViewDataset([record], native, num_clips=3, num_crops=1, decoder=decoder)[0]
    # Clips from frames 0, 93 (r(92.5)) and 185; the film lasts 19.2 s.
    np.testing.assert_allclose(item.clip_start_s, [0, 93 / 30, 3.2 + 89 / 6], atol=1e-5)
    np.testing.assert_allclose(item.clip_end_s, [7 / 30, 3.2 + 4 / 6, 19.2], atol=1e-5)
    # By time: 6 frames a second, so every fifth frame of the first half, and every one of the second.
    by_time = dataclasses.replace(native, target_fps=12.0)
    item = ViewDataset([record], by_time, num_clips=3, num_crops=1, decoder=decoder)[0]
    np.testing.assert_allclose(item.clip_end_s - item.clip_start_s, [16 / 30, 22 / 30, 4 / 6], atol=1e-5)
    with open_video(path, known=known) as video:
        indices = view_indices(192, video.fps, by_time, 3, video.clock(by_time))
    assert indices[0].tolist() == [0, 5, 10, 15]
    assert indices[1:].tolist() == [[94, 97, 98, 99], [188, 189, 190, 191]]
    clips = ClipDataset([record], by_time, AugmentConfig(repeats=20), seed=0, decoder=decoder)[0, 0]["clips"]
    assert len({tuple(clip[:, 0, 0, 0].tolist()) for clip in clips}) > 5


def test_clip_times_of_a_loop_that_begins_with_a_late_frame(tmp_path, write_coloured):
    path = write_coloured(tmp_path / "short.mp4", 9, 5)
    preprocessing = Preprocessing(num_frames=2, frame_stride=3, short_side=48, crop_size=48, past_end="loop")
    # Frame orders are tests of the network; reversed, clip [0, 3] begins with frame 3.
    dataset = ViewDataset(
        [VideoRecord("9", str(path))], preprocessing, num_clips=2, num_crops=1, frame_order="reversed"
    )
    assert dataset[0].clip_start_s.tolist() == pytest.approx([0.0, 0.1])
    assert dataset[0].clip_end_s.tolist() == pytest.approx([0.4, 0.5])


def test_views_of_bad_videos_are_errors_not_replacements(records, tmp_path):
    (tmp_path / "empty.mp4").touch()
    bad = [VideoRecord("e", str(tmp_path / "empty.mp4"), 0, None), VideoRecord("m", "/nowhere/m.mp4", None, None)]
    dataset = ViewDataset([records[0], *bad, records[1]], PREPROCESSING, num_clips=3, num_crops=3)
    loader = DataLoader(dataset, batch_size=None, num_workers=1)
    items = list(loader)
    assert [item.index for item in items] == [0, 1, 2, 3]
    assert [item.error for item in items] == [None, "file is empty", "file not found", None]
    assert [item.views is None for item in items] == [False, True, True, False]
    assert items[1].clip_start_s.shape == items[1].clip_end_s.shape == (3,)
    assert np.isnan(items[1].clip_start_s).all()
    assert seen(items[3].views[0])[0] == pytest.approx(80, abs=3)


def test_corrupted_real_video_is_an_error(shared_clips):
    record = VideoRecord("c", str(shared_clips / "corrupted.mp4"), 0, None)
    item = ViewDataset([record], PREPROCESSING, num_clips=2, num_crops=1)[0]
    assert item.views is None
    assert item.error.startswith("cannot be decoded (")


@pytest.mark.parametrize("decoder", ["decord", "av", "auto"])
def test_an_evaluation_decodes_each_frame_once(records, monkeypatch, decoder):
    """Ten clips with three crops share most frames: each is decoded once, with one open."""
    opens, decoded = [], []
    original = decoding.open_video

    def counting(path, **options):
        opens.append(path)
        video = original(path, **options)
        chunks = video._reader.chunks

        def counted(indices):
            decoded.extend(indices)
            return chunks(indices)

        video._reader.chunks = counted
        return video

    monkeypatch.setattr(dataset_module, "open_video", counting)
    dataset = ViewDataset(records[:1], PREPROCESSING, num_clips=10, num_crops=3, decoder=decoder)
    assert dataset[0].views.shape == (30, 4, 48, 48, 3)
    assert opens == [records[0].path]
    wanted = view_indices(24, 10.0, PREPROCESSING, 10)
    assert wanted.size == 40
    assert decoded == sorted(set(wanted.ravel().tolist()))
    assert len(decoded) <= 24


def test_a_known_decoder_saves_the_probe(records, monkeypatch):
    monkeypatch.setattr(decoding, "probe_video", None)
    known = [dataclasses.replace(record, decoder="decord") for record in records]
    assert ViewDataset(known, PREPROCESSING, num_clips=1, num_crops=1)[0].error is None
    assert ClipDataset(known, PREPROCESSING, AUGMENT, seed=0)[0, 0]["failures"] == []
    unknown = ViewDataset(records, PREPROCESSING, num_clips=1, num_crops=1)
    assert "'NoneType' object is not callable" in unknown[0].error  # probed


def test_refused_videos_are_not_opened(records, opened):
    reasons = {records[1].path: "stopped the process that decoded it"}
    views = ViewDataset(records, PREPROCESSING, num_clips=1, num_crops=1)
    views.refuse(reasons)
    assert views[1].error == "stopped the process that decoded it"
    clips = ClipDataset(records, PREPROCESSING, AUGMENT, seed=0)
    clips.refuse(reasons)
    assert clips[0, 1]["failures"] == list(reasons.items())
    assert "v1.mp4" not in opened
