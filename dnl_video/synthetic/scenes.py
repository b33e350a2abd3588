"""Scenes of the generated videos: a textured shape before a textured background, drawn with numpy.

A scene defines the look, and poses define the place of the shape in each frame. They are drawn independently, so the
look does not reveal the motion. The frame is a torus: a shape that leaves on one side returns on the other, so all
positions are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_MIN_CONTRAST = 0.35  # difference of mean luminance between shape and background, in [0, 1]
_NOISE = 2.0  # standard deviation of the pixel noise, in grey levels of 255
_FLICKER = 0.008  # relative standard deviation of the brightness of frames


def _star(points: int, inner: float) -> list[tuple[float, float]]:
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return list(zip((radii * np.sin(angles)).tolist(), (-radii * np.cos(angles)).tolist(), strict=True))


# No circle, because rotation must be visible. Any unit: `_normalized` centres and scales the corners.
_CORNERS: dict[str, list[tuple[float, float]]] = {
    "rectangle": [(-2, -1), (2, -1), (2, 1), (-2, 1)],
    "triangle": [(0, -1), (0.866, 0.5), (-0.866, 0.5)],
    "star": _star(5, 0.45),
    "cross": [
        (-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1),
    ],
    "ell": [(0, 0), (1.2, 0), (1.2, 2), (2.8, 2), (2.8, 3.2), (0, 3.2)],
    "tee": [(-1.6, 0), (1.6, 0), (1.6, 1.1), (0.6, 1.1), (0.6, 3), (-0.6, 3), (-0.6, 1.1), (-1.6, 1.1)],
    "arrow": [(0, -2), (1.6, -0.2), (0.7, -0.2), (0.7, 2), (-0.7, 2), (-0.7, -0.2), (-1.6, -0.2)],
    "chevron": [(-1.6, -1), (0.2, -1), (1.8, 0.6), (0.2, 2.2), (-1.6, 2.2), (0, 0.6)],
}  # fmt: skip


def _normalized(corners: list[tuple[float, float]]) -> Floats:
    """Move the centroid to the origin and scale the farthest corner to distance 1; float32 [corners, 2]."""
    a = np.array(corners, np.float64)
    b = np.roll(a, -1, axis=0)
    cross = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
    centred = a - ((a + b) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
    return (centred / np.linalg.norm(centred, axis=1).max()).astype(np.float32)


SHAPES: dict[str, Floats] = {name: _normalized(corners) for name, corners in _CORNERS.items()}


@dataclass(frozen=True)
class Poses:
    """Poses of the shape in all frames; image coordinates, y down.

    Args:
        x: Centre in pixels from the left edge, modulo the width, float [T].
        y: Centre in pixels from the upper edge, modulo the height, float [T].
        radius: Distance from the centre to the farthest corner in pixels, float [T]; below half the short side.
        angle: Rotation in radians, clockwise on the screen, float [T].
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    radius: NDArray[np.float64]
    angle: NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """Look of one video.

    Args:
        background: Background, float32 [H, W, 3] in [0, 1].
        shape: One of `SHAPES`.
        colors: The two colours of the shape's texture, float32 [2, 3] in [0, 1].
        waves: Gratings that sum to the texture: frequencies along x and y of the shape's coordinates, and phase, in
            radians; float32 [gratings, 3].
        gain: Brightness of the whole video, about 1.
    """

    background: Floats
    shape: str
    colors: Floats
    waves: Floats
    gain: float


def sample_scene(rng: np.random.Generator, *, height: int, width: int) -> Scene:
    """Draw background, shape, texture, colours and brightness.

    Shape and background differ in mean luminance by at least 0.35 of 1, so the shape is always visible.
    """
    behind = rng.uniform(0.15, 0.85)
    # Uniform over [0.1, 0.9] without a band around the background's luminance.
    below, above = max(behind - _MIN_CONTRAST - 0.1, 0.0), max(0.9 - behind - _MIN_CONTRAST, 0.0)
    place = rng.uniform(0, below + above)
    front = 0.1 + place if place < below else behind + _MIN_CONTRAST + (place - below)

    shade = _smooth_noise(rng, height, width)[..., None]
    base = _color(rng, behind)
    tint = _color(rng, 0.0) * 1.5 + 0.1
    background = np.clip(base + shade * tint, 0, 1)

    swing = rng.uniform(0.05, 0.11)
    colors = np.clip(np.stack([_color(rng, front - swing), _color(rng, front + swing)]), 0, 1)
    directions = rng.uniform(0, np.pi, 3)
    frequencies = 2 * np.pi / rng.uniform(0.45, 1.2, 3)  # wavelengths in radii of the shape
    phases = rng.uniform(0, 2 * np.pi, 3)
    waves = np.stack([frequencies * np.cos(directions), frequencies * np.sin(directions), phases], axis=1)
    return Scene(
        background=background.astype(np.float32),
        shape=str(rng.choice(list(SHAPES))),
        colors=colors.astype(np.float32),
        waves=waves.astype(np.float32),
        gain=float(rng.uniform(0.75, 1.05)),
    )


def render_scene(scene: Scene, poses: Poses, rng: np.random.Generator | None = None) -> NDArray[np.uint8]:
    """Render a scene at each pose, with anti-aliased edges.

    Args:
        scene: The look.
        poses: The poses of the shape in T frames.
        rng: Source of pixel noise and brightness flicker, which are independent between frames and therefore the same
            backwards; None renders neither.

    Returns:
        RGB frames, uint8 [T, H, W, 3].
    """
    height, width = scene.background.shape[:2]
    frames = np.empty((len(poses.x), height, width, 3), np.float32)
    frames[:] = scene.background
    radius = poses.radius.astype(np.float32)[:, None, None]
    # Offsets to the nearest copy of the shape on the torus; pixel centres are half integers.  [T, H, 1], [T, 1, W]
    y = _wrapped(np.arange(height) + 0.5 - poses.y[:, None], height)[:, :, None]
    x = _wrapped(np.arange(width) + 0.5 - poses.x[:, None], width)[:, None, :]
    # Only pixels within the radius can belong to the shape.
    near = (x**2 + y**2) < (radius + 1) ** 2
    t, row, column = np.nonzero(near)
    x, y, radius = x[t, 0, column], y[t, row, 0], radius[t, 0, 0]
    cos, sin = np.cos(poses.angle).astype(np.float32)[t], np.sin(poses.angle).astype(np.float32)[t]
    u = (cos * x + sin * y) / radius  # the shape's own coordinates, [pixels]
    v = (cos * y - sin * x) / radius

    cover = np.clip(0.5 - signed_distance(SHAPES[scene.shape], u, v) * radius, 0, 1)[:, None]
    wave = np.zeros_like(u)
    for across, down, phase in scene.waves:
        wave += np.sin(across * u + down * v + phase)
    mix = (0.5 + 0.5 * np.tanh(1.5 * wave))[:, None]
    texture = scene.colors[0] + mix * (scene.colors[1] - scene.colors[0])  # [pixels, 3]
    behind = frames[t, row, column]
    frames[t, row, column] = behind + cover * (texture - behind)

    frames *= np.float32(255 * scene.gain)
    if rng is not None:
        frames *= (1 + _FLICKER * rng.standard_normal((len(frames), 1, 1, 1))).astype(np.float32)
        frames += np.float32(_NOISE) * rng.standard_normal(frames.shape, np.float32)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def signed_distance(corners: Floats, x: Floats, y: Floats) -> Floats:
    """Return the distance of points to a polygon's outline, negative inside.

    Inigo Quilez's polygon distance (https://iquilezles.org/articles/distfunctions2d): the nearest edge gives the
    distance, the parity of the edges that a ray crosses gives the sign.

    Args:
        corners: Corners in order, float [corners, 2].
        x: First coordinate of the points, any shape.
        y: Second coordinate of the points, same shape.
    """
    squared = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        np.minimum(squared, (wx - ex * along) ** 2 + (wy - ey * along) ** 2, out=squared)
        if ey:
            inside ^= ((ay > y) != (by > y)) & (wx < wy * (ex / ey))
    distance: Floats = np.where(inside, -1, 1).astype(np.float32) * np.sqrt(squared)
    return distance


def _wrapped(offset: NDArray[np.float64], period: int) -> Floats:
    """Map offsets on a circle to [-period/2, period/2)."""
    return ((offset + period / 2) % period - period / 2).astype(np.float32)


def _color(rng: np.random.Generator, luminance: float) -> Floats:
    """Draw a colour with about this luminance, float32 [3], not clipped."""
    chroma = rng.uniform(-0.22, 0.22, 3).astype(np.float32)
    return np.float32(luminance) + chroma - chroma @ _LUMA


def _smooth_noise(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Draw a gradient plus three octaves of smooth noise: mean 0, within about [-1, 1]; float32 [H, W]."""
    rows, columns = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    slope_y, slope_x = rng.uniform(-0.4, 0.4, 2)
    total = slope_y * rows[:, None] + slope_x * columns[None, :]
    for cells, amplitude in ((3, 0.5), (7, 0.3), (15, 0.2)):
        grid = rng.uniform(-1, 1, (cells + 1, cells + 1)) * amplitude
        total = total + _stretch(height, cells) @ grid @ _stretch(width, cells).T
    noise: Floats = (total - total.mean()).astype(np.float32)
    return noise


def _stretch(size: int, cells: int) -> NDArray[np.float64]:
    """Return the matrix [size, cells + 1] that interpolates grid values to pixels (cubic easing)."""
    place = (np.arange(size) + 0.5) / size * cells
    cell = np.minimum(place.astype(int), cells - 1)
    ease = place - cell
    ease = ease * ease * (3 - 2 * ease)
    matrix = np.zeros((size, cells + 1))
    matrix[np.arange(size), cell] = 1 - ease
    matrix[np.arange(size), cell + 1] = ease
    return matrix
