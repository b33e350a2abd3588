"""Drawing: polygons, the torus, contrast, noise."""

import dataclasses

import numpy as np
import pytest

from dnl_video.synthetic.scenes import SHAPES, Poses, Scene, render_scene, sample_scene, signed_distance


def poses(x, y, radius, angle=0.0, count=1):
    return Poses(*(np.full(count, value, float) for value in (x, y, radius, angle)))


def plain(shape="rectangle", height=64, width=80):
    """A white shape on black."""
    return Scene(
        background=np.zeros((height, width, 3), np.float32),
        shape=shape,
        colors=np.ones((2, 3), np.float32),
        waves=np.zeros((1, 3), np.float32),
        gain=1.0,
    )


def test_signed_distance_to_a_square():
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float32)
    x = np.array([0, 0.5, 1, 2, 2, -3], np.float32)
    y = np.array([0, 0, 0, 0, 2, 0.5], np.float32)
    np.testing.assert_allclose(signed_distance(square, x, y), [-1, -0.5, 0, 1, np.sqrt(2), 2], atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_centred_have_radius_one_and_their_area_is_drawn(shape):
    corners = SHAPES[shape].astype(float)
    assert np.linalg.norm(corners, axis=1).max() == pytest.approx(1, abs=1e-6)
    x, y = corners.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2  # shoelace
    image = render_scene(plain(shape), poses(40, 32, 24, 0.7))[0, :, :, 0] / 255
    assert image.sum() == pytest.approx(area * 24**2, rel=0.02)
    rows, columns = np.indices(image.shape) + 0.5
    assert (image * columns).sum() / image.sum() == pytest.approx(40, abs=0.1)
    assert (image * rows).sum() / image.sum() == pytest.approx(32, abs=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_quarter_turn_is_clockwise(shape):
    upright = render_scene(plain(shape, 64, 64), poses(32, 32, 24, 0.3))[0, ..., 0].astype(int)
    turned = render_scene(plain(shape, 64, 64), poses(32, 32, 24, 0.3 + np.pi / 2))[0, ..., 0]
    assert np.abs(np.rot90(upright, -1) - turned).max() <= 1  # numpy's negative quarter turns are clockwise


def test_the_picture_is_a_torus():
    corner = render_scene(plain(), poses(0, 0, 20, 0.4))[0].astype(int)
    middle = render_scene(plain(), poses(40, 32, 20, 0.4))[0]
    assert np.abs(np.roll(middle, (32, 40), (0, 1)) - corner).max() <= 1
    assert all(corner[row, column].min() > 200 for row in (0, -1) for column in (0, -1))


def test_edges_are_anti_aliased_and_follow_subpixel_steps():
    frames = [render_scene(plain(), poses(40 + step, 32, 20))[0, 32, :, 0] / 255 for step in (0, 0.25, 0.5)]
    assert any(0.05 < value < 0.95 for frame in frames for value in frame)
    centres = [(f * (np.arange(80) + 0.5)).sum() / f.sum() for f in frames]
    np.testing.assert_allclose(np.diff(centres), 0.25, atol=0.02)


def test_shape_and_background_always_differ():
    luma = np.array([0.299, 0.587, 0.114])
    for seed in range(200):
        scene = sample_scene(np.random.default_rng(seed), height=64, width=80)
        assert scene.background.min() >= 0
        assert scene.background.max() <= 1
        pictured = render_scene(dataclasses.replace(scene, gain=1.0), poses(40, 32, 24))[0] / 255
        shape = render_scene(plain(scene.shape), poses(40, 32, 24))[0, ..., 0] == 255
        contrast = abs((pictured[shape] @ luma).mean() - (pictured[~shape] @ luma).mean())
        assert contrast > 0.25, f"seed {seed}: {contrast}"


def test_noise_is_small_and_fresh_in_each_frame():
    grey, lighter = np.full((64, 80, 3), 0.5, np.float32), np.full((2, 3), 0.7, np.float32)
    scene = dataclasses.replace(plain(), background=grey, colors=lighter)
    clean = render_scene(scene, poses(40, 32, 20, count=8)).astype(float)
    assert np.ptp(clean, axis=0).max() == 0
    noise = render_scene(scene, poses(40, 32, 20, count=8), np.random.default_rng(0)) - clean
    assert 1.5 < noise.std() < 4
    pixels = (noise - noise.mean(axis=(1, 2, 3), keepdims=True)).reshape(8, -1)
    assert np.abs(np.corrcoef(pixels) - np.eye(8)).max() < 0.1
