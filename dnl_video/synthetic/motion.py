"""Eight classes of motion whose single frames tell nothing.

Position, log-size and angle are drawn uniformly and independently, for the middle of the video, the same way for every
class; the class then decides which of them changes over time, and in which direction:

    moving    the centre, modulo the picture's width or height       (a torus)
    growing   the log-size, modulo its range: largest, then smallest (a sawtooth)
    rotating  the angle

Each of these is a constant step on a circle, which leaves a uniform value uniform: at every time, one frame has the
same distribution in all classes. Played backwards, a video is exactly one of the opposite class.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError, nearest
from dnl_video.synthetic.scenes import Poses, render_scene, sample_scene

# What changes, and in which direction (image coordinates: y down, angles clockwise on the screen).
_MOTIONS: Final[dict[str, tuple[str, int]]] = {
    "growing": ("size", 1),
    "moving down": ("y", 1),
    "moving left": ("x", -1),
    "moving right": ("x", 1),
    "moving up": ("y", -1),
    "rotating clockwise": ("angle", 1),
    "rotating counterclockwise": ("angle", -1),
    "shrinking": ("size", -1),
}
MOTION_CLASSES: Final[tuple[str, ...]] = tuple(_MOTIONS)
OPPOSITE: Final[dict[str, str]] = {
    name: next(other for other, motion in _MOTIONS.items() if motion == (what, -direction))
    for name, (what, direction) in _MOTIONS.items()
}

# Radius of the shape as a share of the short side: a diameter of 44 to 94 %.
_RADIUS: Final = (0.22, 0.47)
# Slowest and fastest change over 16 frames: share of the short side, factor of size, degrees.
_MOVE: Final = (0.3, 0.6)
_GROWTH: Final = (1.5, 2.0)
_TURN: Final = (60.0, 120.0)


def sample_poses(
    class_name: str, rng: np.random.Generator, *, num_frames: int = 32, height: int = 64, width: int = 80
) -> Poses:
    """Draw where the shape is in each frame of a video of one class.

    The draws do not depend on the class, and are anchored in the middle of the video: with equal generators, a class
    and its opposite give the same poses in reversed order.

    Args:
        class_name: One of `MOTION_CLASSES`.
        rng: Source of randomness.
        num_frames: Frames T.
        height: Height in pixels.
        width: Width in pixels.

    Raises:
        InputError: The class is unknown.
    """
    if class_name not in _MOTIONS:
        raise InputError(
            f"class is {class_name!r}; allowed: {', '.join(MOTION_CLASSES)}{nearest(class_name, MOTION_CLASSES)}"
        )
    what, direction = _MOTIONS[class_name]
    x, y, size, angle, speed = rng.uniform(size=5)
    side = min(height, width)
    # Frames from the middle, in units of 16 frames, signed.  [T]
    time = direction * (np.arange(num_frames) - (num_frames - 1) / 2) / 16

    def along(name: str, rate: float) -> NDArray[np.float64]:
        return time * rate if what == name else np.zeros(num_frames)

    low, high = np.log(_RADIUS)
    growth = math.log(_between(_GROWTH, speed)) / (high - low)  # shares of the range of log-size
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
    """Draw one video of a class: a function of the generator's state alone.

    Args:
        class_name: One of `MOTION_CLASSES`.
        rng: Source of randomness.
        num_frames: Frames T.
        height: Height in pixels.
        width: Width in pixels.

    Returns:
        RGB frames, uint8 [T, H, W, 3].

    Raises:
        InputError: The class is unknown.
    """
    poses = sample_poses(class_name, rng, num_frames=num_frames, height=height, width=width)
    return render_scene(sample_scene(rng, height=height, width=width), poses, rng)


def _between(bounds: tuple[float, float], share: float) -> float:
    """Point of an interval, spaced evenly in ratio, at a share of [0, 1] of its way."""
    return bounds[0] * (bounds[1] / bounds[0]) ** share
