"""Classes of motion: the quantity that changes, the opposite class, and the distribution of single frames.

Motion is measured in the frames (centre, area and main axis of the pixels that differ from the background).
"""

import dataclasses

import numpy as np
import pytest

from dnl_video.synthetic.motion import MOTION_CLASSES, OPPOSITE, render_motion, sample_poses
from dnl_video.synthetic.scenes import SHAPES, Poses, render_scene, sample_scene

EXPECTED = {
    "moving left": ("x", -1),
    "moving right": ("x", 1),
    "moving up": ("y", -1),
    "moving down": ("y", 1),
    "growing": ("size", 1),
    "shrinking": ("size", -1),
    "rotating clockwise": ("angle", 1),
    "rotating counterclockwise": ("angle", -1),
}


def measure(frames, background):
    """Centre (shares of the picture, modulo 1), log of the square root of the area, main axis (modulo pi); [T] each."""
    mask = np.abs(frames.astype(float) - background).max(axis=-1) > 25  # [T, H, W]
    h, w = mask.shape[1:]
    area = mask.sum(axis=(1, 2))
    along = {}
    for name, other, size in (("x", 1, w), ("y", 2, h)):
        profile = mask.sum(axis=other)  # [T, size]
        turns = np.exp(2j * np.pi * (np.arange(size) + 0.5) / size)
        along[name] = np.angle(profile @ turns) / (2 * np.pi) % 1
    # Offsets from the centre on the torus, and the main axis of their second moments.
    dx = ((np.arange(w) + 0.5) / w - along["x"][:, None] + 0.5) % 1 * w - w / 2
    dy = ((np.arange(h) + 0.5) / h - along["y"][:, None] + 0.5) % 1 * h - h / 2
    xx = (mask * (dx**2)[:, None, :]).sum(axis=(1, 2))
    yy = (mask * (dy**2)[:, :, None]).sum(axis=(1, 2))
    xy = (mask * dx[:, None, :] * dy[:, :, None]).sum(axis=(1, 2))
    return {**along, "size": np.log(area) / 2, "angle": np.arctan2(2 * xy, xx - yy) / 2}


def steps(frames, background):
    """Median change of each quantity per frame, on its circle (the median drops the sawtooth's jump)."""
    seen = measure(frames, background)
    periods = {"x": 1, "y": 1, "angle": np.pi}
    changes = {name: np.diff(value) for name, value in seen.items()}
    for name, period in periods.items():
        changes[name] = (changes[name] + period / 2) % period - period / 2
    return {name: float(np.median(change)) for name, change in changes.items()}


def rectangle_video(class_name, seed, noisy=True):
    """A rectangle, whose main axis is sharp: frames [T, H, W, 3] and background [H, W, 3] in grey levels."""
    rng = np.random.default_rng(seed)
    poses = sample_poses(class_name, rng)
    scene = dataclasses.replace(sample_scene(rng, height=64, width=80), shape="rectangle")
    return render_scene(scene, poses, rng if noisy else None), scene.background * 255 * scene.gain


def test_classes_and_opposites():
    assert set(MOTION_CLASSES) == set(EXPECTED)
    assert len(MOTION_CLASSES) == 8
    assert list(MOTION_CLASSES) == sorted(MOTION_CLASSES)  # as class ids are given
    for name, (what, direction) in EXPECTED.items():
        assert EXPECTED[OPPOSITE[name]] == (what, -direction)


@pytest.mark.parametrize("class_name", MOTION_CLASSES)
def test_each_class_changes_one_quantity_in_one_direction(class_name):
    what, direction = EXPECTED[class_name]
    # Change over 16 frames; positions as shares of the picture (the short side is the height).
    ranges = {"x": (0.3 * 0.8, 0.6 * 0.8), "y": (0.3, 0.6), "size": np.log((1.5, 2.0)), "angle": np.radians((60, 120))}
    tolerance = {"x": 0.01, "y": 0.01, "size": 0.02, "angle": 0.06}
    for seed in range(6):
        frames, background = rectangle_video(class_name, seed)
        for name, change in steps(frames, background).items():
            if name == what:
                low, high = ranges[name]
                assert low * 0.93 <= 16 * change * direction <= high * 1.07, (seed, name)
            else:
                assert abs(change) < tolerance[name], (seed, name)


@pytest.mark.parametrize("class_name", MOTION_CLASSES)
def test_backwards_is_the_opposite_class(class_name):
    forward, background = rectangle_video(class_name, 3, noisy=False)
    opposite, _ = rectangle_video(OPPOSITE[class_name], 3, noisy=False)
    # With the same draws it is the same video.
    assert np.abs(forward[::-1].astype(int) - opposite).max() <= 2
    for seed in range(10, 16):
        frames, background = rectangle_video(class_name, seed)
        what, direction = EXPECTED[OPPOSITE[class_name]]
        assert np.sign(steps(frames[::-1], background)[what]) == direction


def kolmogorov(first, second):
    """Largest distance between two empirical distribution functions."""
    values = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (first, second)]
    return np.abs(below[0] - below[1]).max()


@pytest.mark.parametrize("frame", [0, 5, 16, 31])
def test_poses_are_uniform_at_every_time_in_every_class(frame):
    count = 400
    uniform = (np.arange(2000) + 0.5) / 2000
    for label, class_name in enumerate(MOTION_CLASSES):
        drawn = [sample_poses(class_name, np.random.default_rng([label, i])) for i in range(count)]
        x, y, radius, angle = (np.array([getattr(p, f)[frame] for p in drawn]) for f in ("x", "y", "radius", "angle"))
        low, high = np.log(64 * np.array([0.22, 0.47]))
        shares = {"x": x / 80, "y": y / 64, "size": (np.log(radius) - low) / (high - low)}
        shares["angle"] = angle / 2 / np.pi % 1
        for name, share in shares.items():
            assert kolmogorov(share, uniform) < 1.95 / np.sqrt(count), (class_name, name)  # 1.95: p = 0.001
        # ... and independently of each other.
        assert np.abs(np.corrcoef(list(shares.values())) - np.eye(4)).max() < 0.17


def test_single_pictures_are_distributed_alike_in_all_classes():
    count, times = 150, [0, 13, 31]
    seen = {}
    for label, class_name in enumerate(MOTION_CLASSES):
        values = []
        for i in range(count):
            rng = np.random.default_rng([label, i, 7])
            poses = sample_poses(class_name, rng, height=32, width=40)
            scene = sample_scene(rng, height=32, width=40)
            some = Poses(*(getattr(poses, f.name)[times] for f in dataclasses.fields(Poses)))
            frames = render_scene(scene, some, rng)
            found = measure(frames, scene.background * 255 * scene.gain)
            values.append([*(found[name] for name in ("x", "y", "size", "angle")), frames.mean(axis=(1, 2, 3))])
        seen[class_name] = np.array(values)  # [count, 5, times]
    # Two samples of sizes n and 7n: critical distance at p = 0.0005 for 120 comparisons.
    critical = 2.03 * np.sqrt(1 / count + 1 / (7 * count))
    for class_name in MOTION_CLASSES:
        others = np.concatenate([seen[name] for name in MOTION_CLASSES if name != class_name])
        for quantity in range(5):
            for time in range(len(times)):
                distance = kolmogorov(seen[class_name][:, quantity, time], others[:, quantity, time])
                assert distance < critical, (class_name, quantity, time)


def test_rotation_is_unambiguous_at_the_frames_a_network_sees():
    fastest = np.radians(120) / 16
    for shape, order in {"rectangle": 2, "triangle": 3, "cross": 4, "star": 5}.items():
        assert shape in SHAPES
        assert 2 * fastest < np.pi / order, shape  # every second frame, half the angle of symmetry


def test_rendering_is_a_function_of_the_generator():
    first = render_motion("growing", np.random.default_rng(1))
    assert first.shape == (32, 64, 80, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, render_motion("growing", np.random.default_rng(1)))
    assert (first != render_motion("growing", np.random.default_rng(2))).mean() > 0.5
    assert render_motion("growing", np.random.default_rng(1), num_frames=5, height=32, width=48).shape == (5, 32, 48, 3)
