from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from dnl_video.config import AugmentConfig, DataConfig, ViewsConfig
from dnl_video.data import dataset as dataset_module
from dnl_video.data.dataset import ClipBatchSampler, ClipDataset, collate_clips
from dnl_video.data.decoding import open_video
from dnl_video.data.encoding import write_video
from dnl_video.data.loaders import VideoDataModule, class_ids
from dnl_video.data.manifest import VideoRecord
from dnl_video.data.transforms import augment_pixels, seeded, train_transform
from dnl_video.errors import InputError
from dnl_video.spec import Preprocessing

PREPROCESSING = Preprocessing(num_frames=4, frame_stride=2, short_side=48, crop_size=48)
EVERYTHING = AugmentConfig(
    short_side=(40, 56),
    crop_size=32,
    crop_area=(0.3, 1.0),
    randaugment_ops=2,
    color_jitter=(0.4, 0.4, 0.4, 0.1),
    erasing=0.5,
    repeats=2,
)
SQUARE = {"short_side": (32, 32), "crop_size": 32, "flip": 0.0}


@pytest.fixture(scope="module")
def records(tmp_path_factory, write_coloured) -> tuple[VideoRecord, ...]:
    folder = tmp_path_factory.mktemp("videos")
    return tuple(
        VideoRecord(f"v{i}", str(write_coloured(folder / f"v{i}.mp4", 40 * i)), i, f"class {i}") for i in range(6)
    )


def noise(frames: int = 3, height: int = 48, width: int = 64) -> np.ndarray:
    """Return one picture [T, H, W, 3], repeated: all frames must be transformed equally."""
    picture = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    return np.repeat(picture, frames, axis=0)


@pytest.mark.parametrize(
    "options",
    [
        {"crop_area": (0.2, 0.6)},
        {"randaugment_ops": 3, "randaugment_magnitude": 15},
        {"color_jitter": (0.5, 0.5, 0.5, 0.2)},
        {"erasing": 1.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_all_frames_are_changed_alike_and_clips_differently(options):
    views = [train_transform(noise(), AugmentConfig(**SQUARE, **options), np.random.default_rng(s)) for s in range(6)]
    for view in views:
        assert view.shape == (3, 32, 32, 3)
        assert view.dtype == torch.uint8
        assert view.is_contiguous()
        assert torch.equal(view[0], view[1])
        assert torch.equal(view[0], view[2])
    assert len({view.numpy().tobytes() for view in views}) >= 5


@pytest.mark.parametrize(
    "options",
    [
        {"crop_area": (0.2, 0.6)},
        {"randaugment_ops": 3, "randaugment_magnitude": 15},
        *({"color_jitter": tuple(0.5 * (i == n) for i in range(4))} for n in range(4)),
        {"erasing": 1.0},
    ],
)
def test_each_augmentation_alone_is_on_and_draws_from_the_clips_seed(options):
    plain = train_transform(noise(), AugmentConfig(**SQUARE), np.random.default_rng(0))
    views = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        views.append(train_transform(noise(), AugmentConfig(**SQUARE, **options), np.random.default_rng(0)))
    assert torch.equal(*views)
    assert not torch.equal(views[0], plain)


def test_pixels_equal_torchvision():
    clip = torch.from_numpy(noise())
    augment = AugmentConfig(randaugment_ops=2, color_jitter=(0.4, 0.3, 0.2, 0.1), erasing=1.0)
    with seeded(5):
        ours = augment_pixels(clip, augment, (10, 20, 30))
    fill = [10.0, 20.0, 30.0]
    randaugment = v2.RandAugment(2, 9, interpolation=v2.InterpolationMode.BILINEAR, fill=fill)
    theirs = v2.Compose([randaugment, v2.ColorJitter(0.4, 0.3, 0.2, 0.1), v2.RandomErasing(1.0, value=fill)])
    torch.manual_seed(5)
    assert torch.equal(ours, theirs(clip.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1))


def test_resized_crops_have_the_given_areas_and_aspects():
    # Red is 2x and green 2y, so a crop's corners can be read off its pixels.
    frames = np.zeros((1, 100, 120, 3), np.uint8)
    frames[..., 0] = 2 * np.arange(120)
    frames[..., 1] = 2 * np.arange(100)[:, None]
    augment = AugmentConfig((32, 32), 32, 0.0, crop_area=(0.1, 0.4), crop_aspect=(0.5, 2.0))
    found = []
    for seed in range(300):
        view = train_transform(frames, augment, np.random.default_rng(seed))[0].double()
        # Away from the edges 31 steps of the view cover 31/32 of the window.
        width = float(view[16, 28, 0] - view[16, 3, 0]) / 2 / 25 * 32
        height = float(view[28, 16, 1] - view[3, 16, 1]) / 2 / 25 * 32
        found.append((width * height / 12000, width / height))
    areas, aspects = np.array(found).T
    assert areas.min() == pytest.approx(0.1, abs=0.02)
    assert areas.max() == pytest.approx(0.4, abs=0.03)
    assert aspects.min() == pytest.approx(0.5, abs=0.06)
    assert aspects.max() == pytest.approx(2.0, abs=0.2)


def test_an_erased_box_has_the_mean_colour_and_the_given_area():
    frames = np.full((3, 32, 32, 3), 200, np.uint8)
    augment = AugmentConfig(**SQUARE, erasing=0.5, erasing_area=(0.2, 0.3))
    erased = 0
    for seed in range(200):
        view = train_transform(frames, augment, np.random.default_rng(seed), fill=(115, 110, 105))
        box = (view != 200).any(dim=-1)
        if box.any():
            erased += 1
            assert 0.15 < box[0].float().mean() < 0.36  # sides are whole pixels
            assert torch.unique(view[box], dim=0).tolist() == [[115, 110, 105]]
            rows, columns = torch.where(box[0])
            assert box[0].sum() == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    assert 70 < erased < 130  # standard deviation 7


def test_datasets_fill_with_the_mean_of_rgb(records):
    augment = AugmentConfig(**SQUARE, erasing=1.0, erasing_area=(0.3, 0.3))
    bgr = dataclasses.replace(PREPROCESSING, mean=(0.0, 0.45, 1.0), channel_order="bgr")
    view = ClipDataset(records, bgr, augment, seed=0)[0, 0]["clips"][0]
    assert ((view == torch.tensor([255, 115, 0])).all(dim=-1).float().mean(dim=(1, 2)) > 0.2).all()


def test_classes_that_are_never_mirrored(tmp_path):
    frames = np.zeros((24, 48, 64, 3), np.uint8)
    frames[..., 2] = 3 * np.arange(64)  # blue tells left from right
    write_video(tmp_path / "a.mp4", frames, 10, options={"preset": "ultrafast", "threads": "1"})
    records = [VideoRecord(f"v{i}", str(tmp_path / "a.mp4"), i, f"class {i}") for i in range(6)]
    augment = AugmentConfig(short_side=(48, 48), crop_size=48, flip=1.0)
    plain = ClipDataset(records, PREPROCESSING, dataclasses.replace(augment, flip=0.0), seed=0)
    dataset = ClipDataset(records, PREPROCESSING, augment, seed=0, never_mirrored={1, 4})
    frames = noise(4, 48, 64)
    flipped, same = (train_transform(frames, augment, np.random.default_rng(0), mirror=m) for m in (True, False))
    assert torch.equal(flipped, same.flip(2))
    for index in range(6):
        shown, expected = dataset[0, index]["clips"][0], plain[0, index]["clips"][0]
        assert not torch.equal(expected, expected.flip(2))
        assert torch.equal(shown, expected if index in (1, 4) else expected.flip(2))


@pytest.mark.parametrize(
    "options",
    [
        {"crop_area": (0.2, 0.6)},
        {"randaugment_ops": 2, "randaugment_magnitude": 0},  # the operations that remain do not depend on the place
        {"color_jitter": (0.5, 0.5, 0.5, 0.2)},
        {"erasing": 1.0, "erasing_area": (0.2, 0.2)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_flip_is_kept_with_augmentation(options):
    augment = AugmentConfig(**{**SQUARE, "flip": 1.0}, **options)
    for seed in range(5):
        flipped, plain = (
            train_transform(noise(), augment, np.random.default_rng(seed), mirror=m) for m in (True, False)
        )
        if "erasing" in options:  # the box has one place in both
            kept = (flipped != 0).any(dim=-1) & (plain != 0).any(dim=-1).flip(2)
            assert kept.float().mean() > 0.5
            flipped, plain = flipped * kept[..., None], plain * kept.flip(2)[..., None]
        assert torch.equal(flipped, plain.flip(2))


def test_clips_do_not_depend_on_workers_and_processes(records):
    """An epoch with all augmentations and a missing video: with 0, 1 and 2 workers, and with two processes."""
    with_missing = [*records[:-1], dataclasses.replace(records[-1], path="/nowhere/5.mp4")]

    def epoch(num_workers: int, rank: int = 0, world_size: int = 1) -> list[dict]:
        dataset = ClipDataset(with_missing, PREPROCESSING, EVERYTHING, seed=3)
        sampler = ClipBatchSampler(len(records), 2 // world_size, seed=3, rank=rank, world_size=world_size)
        torch.manual_seed(num_workers + 10 * rank)
        return list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_clips, num_workers=num_workers))

    def by_video(batches: list[dict]) -> dict[int, list[bytes]]:
        clips: dict[int, list[bytes]] = {}
        for batch in batches:
            for index, clip in zip(batch["index"].tolist(), batch["clip"], strict=True):
                clips.setdefault(index, []).append(clip.numpy().tobytes())
        return clips

    alone = epoch(0)
    assert [batch["clip"].shape for batch in alone] == [(4, 4, 32, 32, 3)] * 3
    for workers in (1, 2):
        for here, there in zip(alone, epoch(workers), strict=True):
            assert torch.equal(here["clip"], there["clip"])
            for key in ("index", "label"):
                assert here[key].tolist() == there[key].tolist()
            assert here["failures"] == there["failures"]
    assert [failure for batch in alone for failure in batch["failures"]] == [("/nowhere/5.mp4", "file not found")]
    shared = [by_video(epoch(0, rank, 2)) for rank in (0, 1)]
    assert not shared[0].keys() & shared[1].keys()
    assert by_video(alone) == shared[0] | shared[1]


def test_augmentation_leaves_the_global_random_state_alone(records):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = ClipDataset(records, PREPROCESSING, EVERYTHING, seed=0)[0, 0]["clips"]
    assert torch.equal(torch.rand(3), expected)
    second = ClipDataset(records, PREPROCESSING, EVERYTHING, seed=0)[0, 0]["clips"]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_several_clips_of_one_decoding(records, monkeypatch):
    reads = []
    read = open_video(records[0].path).__class__.read

    def counting(video, indices, **options):
        reads.append(np.asarray(indices).tolist())
        return read(video, indices, **options)

    augment = AugmentConfig(short_side=(48, 48), crop_size=48, flip=0.0)
    once = ClipDataset(records, PREPROCESSING, augment, seed=0)[2, 3]
    opened = []

    def counting_open(path, **options):
        opened.append(path)
        return open_video(path, **options)

    monkeypatch.setattr(dataset_module, "open_video", counting_open)
    monkeypatch.setattr("dnl_video.data.decoding.Video.read", counting)
    sample = ClipDataset(records, PREPROCESSING, dataclasses.replace(augment, repeats=3), seed=0)[2, 3]
    assert opened == [records[3].path]
    assert len(reads) == 1
    assert len(sample["clips"]) == 3
    assert torch.equal(sample["clips"][0], once["clips"][0])
    # Green encodes the frame: clip r shows the r-th part of the frames read.
    for r, clip in enumerate(sample["clips"]):
        shown = (clip[..., 1].double().mean(dim=(1, 2)) / 10).round().int().tolist()
        assert shown == reads[0][4 * r : 4 * r + 4]
    assert len({tuple(reads[0][4 * r : 4 * r + 4]) for r in range(3)}) > 1


def test_collate_puts_the_first_clips_of_all_videos_first():
    failures = [[("a", "x"), ("b", "y")], [], [("c", "z")]]
    samples = [
        {"clips": [torch.full((1, 2, 2, 3), 10 * i + r, dtype=torch.uint8) for r in (0, 1)], "failures": f}
        | {"label": 7 + i, "index": i}
        for i, f in zip((4, 6, 5), failures, strict=True)
    ]
    batch = collate_clips(samples)
    assert batch["clip"].shape == (6, 1, 2, 2, 3)
    assert batch["clip"].dtype == torch.uint8
    assert batch["clip"][:, 0, 0, 0, 0].tolist() == [40, 60, 50, 41, 61, 51]
    assert batch["index"].tolist() == [4, 6, 5, 4, 6, 5]
    assert batch["label"].tolist() == [11, 13, 12, 11, 13, 12]
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    assert batch["failures"] == [("a", "x"), ("b", "y"), ("c", "z")]


def test_batch_size_counts_clips(records, tmp_path: Path) -> None:
    listing = tmp_path / "list.csv"
    lines = [f"{record.path},{record.class_name}" for record in records]
    listing.write_text("\n".join(["path,label", *lines]) + "\n", encoding="utf-8")

    def datamodule(batch_size: int, **options) -> VideoDataModule:
        data = DataConfig(str(listing), str(listing), batch_size=batch_size, num_workers=0)
        augment = AugmentConfig(short_side=(48, 48), crop_size=32, **options)
        return VideoDataModule(data, PREPROCESSING, augment, ViewsConfig(), seed=0)

    loader = datamodule(4, repeats=2, flip_except=["class 1", "class 5"]).train_dataloader()
    batches = list(loader)
    assert [len(batch["label"]) for batch in batches] == [4, 4, 4]
    assert sorted(i for batch in batches for i in batch["index"].tolist()) == sorted([*range(6)] * 2)
    assert loader.dataset.never_mirrored == {1, 5}
    expected = "^data.batch_size 5 is not a multiple of augment.repeats 2; it counts clips, and each video gives 2$"
    with pytest.raises(InputError, match=expected):
        datamodule(5, repeats=2)
    with pytest.raises(InputError, match=r"^augment\.flip_except: no class 'clas 1'; did you mean 'class 1'\?$"):
        datamodule(4, flip_except=["clas 1"])


def test_flip_except_needs_names():
    assert class_ids([], None) == frozenset()
    expected = r"^augment\.flip_except names classes, but the labels are integers; give data\.class_list$"
    with pytest.raises(InputError, match=expected):
        class_ids(["bowling"], None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"erasing": 1.5}, "augment.erasing is 1.5; give a number in [0, 1]"),
        ({"mix_prob": -0.1}, "augment.mix_prob is -0.1; give a number in [0, 1]"),
        ({"crop_area": (0.0, 1.0)}, "augment.crop_area is [0.0, 1.0]; give a list of 2 numbers in [0.001, 1], or null"),
        ({"erasing_area": (0.5, 0.2)}, "augment.erasing_area is [0.5, 0.2]; give [low, high] with low <= high"),
        ({"crop_aspect": (2.0, 1.0)}, "augment.crop_aspect is [2.0, 1.0]; give [low, high] with low <= high"),
        ({"randaugment_ops": -1}, "augment.randaugment_ops is -1; give a whole number in [0, 20]"),
        ({"randaugment_magnitude": 31}, "augment.randaugment_magnitude is 31; give a whole number in [0, 30]"),
        (
            {"color_jitter": (0.1, 0.1, 0.1, 0.6)},
            "augment.color_jitter is [0.1, 0.1, 0.1, 0.6]; give a hue (the last) in [0, 0.5]",
        ),
        ({"mixup": -1.0}, "augment.mixup is -1.0; give 0 or a number in [0.001, 1000]"),
        ({"repeats": 0}, "augment.repeats is 0; give a whole number in [1, 64]"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_values_out_of_range(options, message):
    with pytest.raises(InputError) as refused:
        AugmentConfig(**options)
    assert str(refused.value).startswith(message)
