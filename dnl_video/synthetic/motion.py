"""Eight classes of motion that look alike in a single frame.

Position, log-size and angle in the middle of the video are drawn uniformly and independently, equally for all classes.
The class decides which of them changes over time, and in which direction:

    moving    the centre, modulo the picture's width or height       (a torus)
    growing   the log-size, modulo its range: largest, then smallest (a sawtooth)
    rotating  the angle

Each change is a constant step on a circle, and a uniform value stays uniform under it: a frame has the same
distribution in all classes at every time. Played backwards, a video is one of the opposite class.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dnl_video.synthetic.scenes import Poses, render_scene, sample_scene

# Quantity that changes, and its direction (image coordinates: y down, angles clockwise on the screen).
_MOTIONS = {
    "growing": ("size", 1),
    "moving down": ("y", 1),
    "moving left": ("x", -1),
    "moving right": ("x", 1),
    "moving up": ("y", -1),
    "rotating clockwise": ("angle", 1),
    "rotating counterclockwise": ("angle", -1),
    "shrinking": ("size", -1),
}
MOTION_CLASSES = tuple(_MOTIONS)
OPPOSITE = {
    name: next(other for other, motion in _MOTIONS.items() if motion == (what, -direction))
    for name, (what, direction) in _MOTIONS.items()
}

_RADIUS = (0.22, 0.47)  # of the shape, as a share of the frame's short side
# Slowest and fastest change over 16 frames: share of the short side, factor of size, degrees.
_MOVE = (0.3, 0.6)
_GROWTH = (1.5, 2.0)
_TURN = (60.0, 120.0)


def sample_poses(
    class_name: str, rng: np.random.Generator, *, num_frames: int = 32, height: int = 64, width: int = 80
) -> Poses:
    """Draw the poses of the shape in a video of one class; see `render_motion` for the arguments.

    The draws do not depend on the class and describe the middle of the video: with equal generators, a class and its
    opposite have the same poses in reversed order.
    """
    what, direction = _MOTIONS[class_name]
    x, y, size, angle, speed = rng.uniform(size=5)
    side = min(height, width)
    # Signed time from the middle, in units of 16 frames, [T]
    time = direction * (np.arange(num_frames) - (num_frames - 1) / 2) / 16

    def along(name: str, rate: float) -> NDArray[np.float64]:
        return time * rate if what == name else np.zeros(num_frames)

    low, high = np.log(_RADIUS)
    growth = math.log(_between(_GROWTH, speed)) / (high - low)  # share of the range of log-size
    move = _between(_MOVE, speed) * side
    return Poses(
        x=(x * width + along("x", move)) % width,
        y=(y * height + along("y", move)) % height,
        radius=side * np.exp(low + (high - low) * ((size + along("size", growth)) % 1.0)),
        angle=2 * np.pi * angle + along("angle", math.radians(_between(_TURN, speed))),
    )


def render_motion(
    class_name: str, rng: np.random.Generator, *, num_frames: int = 32, height: int = 64, width: int = 80
) -> NDArray[np.uint8]:
    """Draw one video of a class; the generator's state determines it.

    Args:
        class_name: One of `MOTION_CLASSES`.
        rng: Source of randomness.
        num_frames: Frames T.
        height: Height in pixels.
        width: Width in pixels.

    Returns:
        RGB frames, uint8 [T, H, W, 3].
    """
    poses = sample_poses(class_name, rng, num_frames=num_frames, height=height, width=width)
    return render_scene(sample_scene(rng, height=height, width=width), poses, rng)


def _between(bounds: tuple[float, float], share: float) -> float:
    """Interpolate geometrically between two bounds; ``share`` is in [0, 1]."""
    return bounds[0] * (bounds[1] / bounds[0]) ** share
