from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from dnl_video.config import AugmentConfig
from dnl_video.data.dataset import ClipDataset, ViewDataset
from dnl_video.data.encoding import write_video
from dnl_video.data.manifest import VideoRecord
from dnl_video.data.sliding_clips import SlidingClips
from dnl_video.data.transforms import crop_views, normalize, resize_short_side, train_transform
from dnl_video.spec import Preprocessing


def coordinates(num_frames: int, height: int, width: int, gain: int = 1) -> np.ndarray:
    """Return frames [T, H, W, 3] that tell x in red, y in green and the frame in blue."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., 0] = gain * np.arange(width)
    frames[..., 1] = gain * np.arange(height)[:, None]
    frames[..., 2] = np.arange(num_frames)[:, None, None]
    return frames


def random_view(frames: np.ndarray, short_side: tuple[int, int], crop_size: int, seed: int, flip: float = 0.0):
    """Return a training view of frames [T, H, W, 3]."""
    return train_transform(frames, AugmentConfig(short_side, crop_size, flip), np.random.default_rng(seed))


def pil_resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)).astype(int)


def test_training_crop_is_one_window_for_all_frames():
    frames = coordinates(3, 64, 96)
    corners = set()
    for seed in range(600):
        view = random_view(frames, (64, 64), 32, seed).numpy()
        x, y = int(view[0, 0, 0, 0]), int(view[0, 0, 0, 1])
        np.testing.assert_array_equal(view, frames[:, y : y + 32, x : x + 32])
        corners.add((x, y))
    xs, ys = {x for x, _ in corners}, {y for _, y in corners}
    assert (min(xs), max(xs)) == (0, 64)
    assert (min(ys), max(ys)) == (0, 32)
    assert len(xs) > 60
    assert len(ys) > 30


def test_flip_mirrors_the_same_window():
    frames = coordinates(2, 64, 96)
    for seed in range(10):
        plain = random_view(frames, (64, 64), 32, seed)
        mirrored = random_view(frames, (64, 64), 32, seed, flip=1.0)
        assert torch.equal(mirrored, plain.flip(2))
        assert mirrored.is_contiguous()


def test_flip_probability():
    frames = coordinates(1, 32, 32)
    augment = AugmentConfig((32, 32), 32, 0.25)
    rng = np.random.default_rng(0)
    flipped = [bool(train_transform(frames, augment, rng)[0, 0, 0, 0] == 31) for _ in range(1000)]
    assert 200 < sum(flipped) < 300  # standard deviation 14


@pytest.mark.parametrize("short_side", [128, 100])
def test_enlarged_crop_is_the_resized_source_window(short_side):
    frames = coordinates(2, 64, 96, gain=2)
    size = round(64 * 64 / short_side)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        view = train_transform(frames, AugmentConfig((short_side, short_side), 64, 0.0), rng).numpy().astype(int)
        # The mean of a gradient is its middle: 2 (x + (size - 1) / 2).
        x, y = (round((view[0, ..., channel].mean() - size + 1) / 2) for channel in (0, 1))
        expected = pil_resize(frames[1, y : y + size, x : x + size], 64, 64)
        assert np.abs(view[1] - expected).max() <= 1


def test_enlarged_crops_lie_anywhere_in_the_source():
    frames = coordinates(1, 64, 96, gain=2)
    rng = np.random.default_rng(0)
    views = [train_transform(frames, AugmentConfig((128, 128), 64, 0.0), rng).numpy() for _ in range(400)]
    # Windows of 32 pixels: x uniform in 0 to 64, y in 0 to 32.
    for channel, room in ((0, 64), (1, 32)):
        corners = [round((view[..., channel].mean() - 31) / 2) for view in views]
        assert min(corners) <= 1
        assert max(corners) >= room - 1
        assert np.mean(corners) == pytest.approx(room / 2, rel=0.1)  # standard deviation 0.03


def test_reduced_crop_is_antialiased():
    frames = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    view = random_view(frames, (32, 32), 32, 0).numpy()
    # The whole frame to a third: without antialiasing noise would keep its contrast.
    assert np.abs(view[0] - pil_resize(frames[0], 32, 32)).max() <= 1
    assert view.std() < 0.5 * frames.std()


def test_short_side_reaches_both_ends_of_its_range():
    frames = coordinates(1, 128, 160)
    sizes = []
    for seed in range(200):
        view = random_view(frames, (64, 72), 64, seed).numpy().astype(int)
        sizes.append((view[0, 30, 60, 0] - view[0, 30, 4, 0]) / 56 * 64)
    # Windows are 64 * 128 / s pixels: 128 for 64, 113.8 for 72.
    assert max(sizes) == pytest.approx(128, abs=1.5)
    assert min(sizes) == pytest.approx(114, abs=1.5)
    assert np.mean(sizes) == pytest.approx(120.6, abs=1.0)


def test_training_windows_lie_inside_the_frame():
    """Side 59 of 82 gives windows of 29.5 of 41 pixels, rounded to 30; offset 23 of 23 gives 11.5, rounded to 12."""
    frames = coordinates(1, 41, 61, gain=4)
    for seed in range(200):
        view = random_view(frames, (82, 82), 59, seed)[0].double()
        across, down = view[29, 54, 0] - view[29, 5, 0], view[54, 29, 1] - view[5, 29, 1]
        # A window cut off at the border would be stretched: 29 columns on 59 pixels in place of 30.
        for gradient in (across, down):
            assert gradient == pytest.approx(4 * 49 * 30 / 59, abs=1.1)


def test_both_ends_of_a_short_range_of_short_sides():
    frames = coordinates(1, 64, 64, gain=4)
    views = [random_view(frames, (32, 33), 32, seed)[0].double() for seed in range(30)]
    # Windows of 64 or, for 33, of 62 pixels.
    assert {round(float(view[16, 30, 0] - view[16, 2, 0]) / 28 / 4 * 32) for view in views} == {64, 62}


@pytest.mark.parametrize(
    ("height", "width", "short_side"),
    [(7, 300, (33, 47)), (300, 7, (33, 47)), (1, 1, (33, 47)), (33, 32, (33, 47)), (1, 5, (80, 80))],
)
def test_training_crop_of_odd_sizes(height, width, short_side):
    for seed in range(20):
        view = random_view(np.full((2, height, width, 3), 9, np.uint8), short_side, 32, seed, flip=0.5)
        assert view.shape == (2, 32, 32, 3)
        assert view.dtype == torch.uint8
        assert (view == 9).all()


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((48, 100), 24, (24, 50)),
        ((100, 48), 24, (50, 24)),
        ((240, 427), 256, (256, 455)),  # 455.47
        ((50, 50), 64, (64, 64)),
        ((272, 480), 256, (256, 451)),  # 451.76
        ((480, 272), 256, (451, 256)),
        ((48, 64), 48, (48, 64)),
    ],
)
def test_resize_short_side(size, short_side, expected):
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    resized = resize_short_side(frames, Preprocessing(short_side=short_side, crop_size=1))
    assert resized.shape == (2, *expected, 3)
    assert resized.dtype == np.uint8
    for frame, source in zip(resized, frames, strict=True):
        assert np.abs(frame - pil_resize(source, *expected)).max() <= 1


@pytest.mark.parametrize(
    ("size", "short_side", "pyslowfast", "mmaction2"),
    [
        ((272, 480), 256, (256, 451), (256, 452)),  # 451.76
        ((480, 272), 256, (451, 256), (452, 256)),
        ((240, 320), 256, (256, 341), (256, 341)),  # 341.33
        ((512, 601), 256, (256, 300), (256, 301)),  # 300.5
        ((112, 122), 224, (224, 243), (224, 244)),  # 244, and floor(122 / 112 * 224) = 243 in float64
        ((640, 650), 224, (224, 227), (224, 227)),  # 227.5, and 650 * (224 / 640) + 0.5 < 228 in float64
        ((256, 301), 256, (256, 301), (256, 301)),
        ((300, 300), 256, (256, 256), (256, 256)),
        ((98, 99), 98, (98, 99), (98, 99)),  # frames of this size stay, though 99 / 98 * 98 < 99 in float64
    ],
)
def test_sizes_of_both_projects(size, short_side, pyslowfast, mmaction2):
    frames = np.zeros((1, *size, 3), np.uint8)
    for rounding, expected in (("pyslowfast", pyslowfast), ("mmaction2", mmaction2)):
        preprocessing = Preprocessing(short_side=short_side, crop_size=1, rounding=rounding)
        assert resize_short_side(frames, preprocessing).shape == (1, *expected, 3)


def half_pixel_bilinear(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resizing by its definition, as OpenCV's INTER_LINEAR: pixel i lies at (i + 1/2) * scale - 1/2."""
    result = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            at = [
                (i + 0.5) * old / new - 0.5 for i, old, new in zip((y, x), frame.shape, (height, width), strict=False)
            ]
            y0, x0 = (int(np.floor(position)) for position in at)
            fy, fx = at[0] - y0, at[1] - x0
            rows, columns = (np.clip([i, i + 1], 0, n - 1) for i, n in zip((y0, x0), frame.shape, strict=False))
            four = frame[np.ix_(rows, columns)].astype(float)
            result[y, x] = np.einsum("i,j,ijc->c", [1 - fy, fy], [1 - fx, fx], four)
    return result


@pytest.mark.parametrize(("size", "short_side"), [((70, 100), 32), ((64, 90), 48), ((20, 33), 32)])
def test_resizing_without_antialiasing(size, short_side):
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    preprocessing = Preprocessing(short_side=short_side, crop_size=short_side, antialias=False)
    resized = resize_short_side(frames, preprocessing)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(frames).permute(0, 3, 1, 2).double(), resized.shape[1:3], mode="bilinear", align_corners=False
    ).permute(0, 2, 3, 1)
    # Rounded once per axis.
    assert np.abs(resized - expected.numpy()).max() < 1.001
    assert np.abs(resized[0] - half_pixel_bilinear(frames[0], *resized.shape[1:3])).max() < 1.001
    if short_side < size[0]:  # enlarging never antialiases
        antialiased = resize_short_side(frames, dataclasses.replace(preprocessing, antialias=True))
        assert np.abs(resized.astype(int) - antialiased).max() > 20


@pytest.mark.parametrize("crop_area", [None, (1.0, 1.0)])
def test_a_reduced_training_crop_without_antialiasing(crop_area):
    frames = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    augment = AugmentConfig((32, 32), 32, 0.0, crop_area=crop_area, crop_aspect=(1.0, 1.0))
    view = train_transform(frames, augment, np.random.default_rng(0), antialias=False)[0].numpy()
    # To a third: each pixel is the middle one of nine.
    assert np.abs(view.astype(int) - frames[0, 1::3, 1::3]).max() <= 1


def test_all_readers_follow_the_preprocessing(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1, 96, 98, 1), dtype=np.uint8)
    frames = np.broadcast_to(noise, (4, 96, 98, 3))
    write_video(tmp_path / "a.mp4", frames, 10, crf=1, options={"threads": "1"})
    records = [VideoRecord("a", str(tmp_path / "a.mp4"), 0, "a")]

    def views(preprocessing: Preprocessing) -> list[torch.Tensor]:
        trained = ClipDataset(records, preprocessing, AugmentConfig((32, 32), 32, 0.0), seed=0)[0, 0]["clips"][0]
        evaluated = ViewDataset(records, preprocessing, num_clips=1, num_crops=3)[0].views
        slid = next(iter(SlidingClips(records[0].path, preprocessing, hop_s=10.0, num_crops=3))).views
        return [trained, evaluated, slid]

    default = Preprocessing(1, 1, short_side=32, crop_size=32)
    for antialiased, plain in zip(views(default), views(dataclasses.replace(default, antialias=False)), strict=True):
        assert plain.float().std() > 1.5 * antialiased.float().std()
    other = Preprocessing(1, 1, short_side=95, crop_size=95, rounding="mmaction2")  # 96.98 pixels wide
    default = dataclasses.replace(other, rounding="pyslowfast")
    for rounded, pixels in zip(views(other)[1:], views(default)[1:], strict=True):
        assert not torch.equal(rounded, pixels)


@pytest.mark.parametrize(
    ("size", "num_crops", "corners"),  # corners are (x, y)
    [
        ((10, 16), 3, [(0, 1), (4, 1), (8, 1)]),
        ((16, 10), 3, [(1, 0), (1, 4), (1, 8)]),
        ((9, 15), 3, [(0, 1), (4, 1), (7, 1)]),  # halves round up, as in PySlowFast
        ((10, 16), 1, [(4, 1)]),
        ((15, 8), 1, [(0, 4)]),
        ((8, 8), 3, [(0, 0), (0, 0), (0, 0)]),
        ((16, 16), 3, [(0, 4), (4, 4), (8, 4)]),  # a square counts as landscape
    ],
)
def test_crop_views(size, num_crops, corners):
    check_corners(size, num_crops, corners, "pyslowfast")


@pytest.mark.parametrize(
    ("size", "num_crops", "corners"),  # corners are (x, y)
    [
        ((8, 16), 3, [(0, 0), (4, 0), (8, 0)]),
        ((8, 17), 3, [(0, 0), (4, 0), (8, 0)]),  # ThreeCrop's steps of (17 - 8) // 2 leave the last column
        ((17, 8), 3, [(0, 0), (0, 4), (0, 8)]),
        ((9, 17), 1, [(4, 0)]),  # CenterCrop rounds down
        ((15, 8), 1, [(0, 3)]),
        ((8, 8), 3, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_crops_of_mmaction2(size, num_crops, corners):
    check_corners(size, num_crops, corners, "mmaction2")


def check_corners(size, num_crops, corners, rounding):
    clip = torch.from_numpy(coordinates(2, *size))
    clips = torch.stack([clip, clip + 100])
    views = crop_views(clips, Preprocessing(short_side=8, crop_size=8, rounding=rounding), num_crops)
    assert views.shape == (2 * num_crops, 2, 8, 8, 3)
    for j in range(2):
        for r, (x, y) in enumerate(corners):
            assert torch.equal(views[j * num_crops + r], clips[j, :, y : y + 8, x : x + 8])


def test_crop_views_errors():
    clips = torch.zeros(1, 2, 10, 16, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"^num_crops is 2; allowed: 1 \(centre\), 3 \(left, centre, right\)$"):
        crop_views(clips, Preprocessing(crop_size=8), 2)
    with pytest.raises(ValueError, match=r"^frames of 10 x 16 are smaller than the crop of 12; resize them first$"):
        crop_views(clips, Preprocessing(crop_size=12), 3)
    with pytest.raises(ValueError, match=r"^frames of 16 x 10 are smaller than the crop of 12; resize them first$"):
        crop_views(clips.transpose(2, 3), Preprocessing(crop_size=12), 3)


def test_normalize_equals_the_definition():
    clip = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    out = normalize(torch.from_numpy(clip), mean, std)
    expected = ((clip / 255.0 - mean) / std).transpose(0, 4, 1, 2, 3)
    assert out.dtype == torch.float32
    assert out.shape == (2, 3, 3, 4, 5)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-6)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)


def test_normalize_to_bgr() -> None:
    clip = torch.tensor([[[[[255, 0, 51]]]]], dtype=torch.uint8)  # one red-ish RGB pixel
    out = normalize(clip, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0), "bgr").flatten().tolist()
    assert out == pytest.approx([(0.2 - 0.1) / 1, (0 - 0.2) / 2, (1 - 0.3) / 4])


def resize_then_crop(frames: np.ndarray, short_side: int, top: int, left: int, crop: int) -> torch.Tensor:
    """The usual order, in float: resize the whole frames, then cut the window."""
    height, width = frames.shape[1:3]
    scaled = [short_side, width * short_side // height]
    whole = F.resize(torch.from_numpy(frames).permute(0, 3, 1, 2).float(), scaled, antialias=True)
    return whole[:, :, top : top + crop, left : left + crop].permute(0, 2, 3, 1)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_crop_then_resize_equals_resize_then_crop_for_whole_pixels(factor):
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    augment = AugmentConfig((64 * factor, 64 * factor), 48, 0.0)
    for seed in range(10):
        view = train_transform(frames, augment, np.random.default_rng(seed)).float()
        rng = np.random.default_rng(seed)
        rng.integers(64 * factor, 64 * factor, endpoint=True)
        top, left = (int(rng.integers(0, side * factor - 48, endpoint=True)) for side in (64, 96))
        corner = (factor * round(top / factor), factor * round(left / factor))
        expected = resize_then_crop(frames, 64 * factor, *corner, 48)
        # At the border, one interpolates with pixels outside the window and the other repeats the edge.
        inner = slice(2, -2)
        assert (view - expected)[:, inner, inner].abs().max() <= 1


def test_crop_then_resize_is_within_a_pixel_of_resize_then_crop():
    frames = np.zeros((1, 256, 340, 3), np.uint8)
    frames[..., 0] = np.arange(340) // 2
    frames[..., 1] = np.arange(256)[:, None] // 2
    for seed in range(20):
        view = random_view(frames, (256, 320), 224, seed).float()
        rng = np.random.default_rng(seed)
        short_side = int(rng.integers(256, 320, endpoint=True))
        sides = (short_side, 340 * short_side // 256)
        top, left = (int(rng.integers(0, side - 224, endpoint=True)) for side in sides)
        expected = resize_then_crop(frames, short_side, top, left, 224)
        # A gradient of 1/2 a pixel: half a pixel of the corner, half one of the side, and rounding to integers.
        assert (view - expected).abs().max() <= 0.5 + 1
        assert (view - expected).abs().mean() <= 0.5
