"""A task that needs a relation between distant places: which candidate moves like the sample?

The frame is a grid of windows. A coloured square moves in some of the windows; when it leaves its window on one side,
it comes back on the opposite side:

    the sample       white; its direction is drawn uniformly
    the candidates   one of each colour; one of them moves like the sample, all others in the opposite direction
    the distractors  other colours; each direction equally often, in an order drawn uniformly

The label is the colour of the candidate that moves like the sample. The windows, and the place of each square in its
window, are drawn uniformly and independently of everything else. Therefore every class has the same distribution of:

    one frame                  squares at independent, uniform places (a constant step on a torus keeps them uniform)
    counts of local motions    those of the sample's direction (two, without distractors) and of its opposite; the
                               sample's direction is uniform
    one square's motion        uniform over the directions, for the sample, each candidate and each distractor

So a network has to relate squares to each other. A sum of local evidence is not enough (colour, place and direction of
each square give one score per class, and the largest sum wins): a video and its reverse have the same class, and such a
sum can be right about both for one class only. Naming the candidate that moves right reaches 1/2; no sum of local
evidence exceeds 1/2 + 1/(2 * candidates). `draw_single` makes videos of one square; they teach a network the local
evidence, i.e. which square moves in which direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError

# Steps (x, y) with y down. Each direction is next to its opposite; a task with two directions uses the first two.
DIRECTIONS: Final[dict[str, tuple[int, int]]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
CANDIDATES: Final[dict[str, tuple[int, int, int]]] = {
    "red": (230, 60, 60),
    "blue": (60, 90, 230),
    "green": (60, 200, 80),
    "yellow": (220, 210, 70),
    "magenta": (200, 80, 200),
    "cyan": (80, 210, 210),
    "black": (20, 20, 20),
    "orange": (240, 150, 60),
}
_SAMPLE: Final = (235, 235, 235)
_DISTRACTORS: Final = ((120, 60, 20), (130, 40, 130), (20, 100, 100), (250, 180, 200))
_BACKGROUND: Final = (90.0, 130.0)  # range of the grey level
_TINT: Final = 10.0  # largest difference of a background channel from the grey level
_SPEED_SPREAD: Final = 1.1  # largest factor between a square's speed and the mean speed


@dataclass(frozen=True)
class RelationTask:
    """The look of the videos. The defaults are those of relations.yaml.

    Args:
        candidates: Number of candidates, and of classes; 2 to 8.
        directions: 2 (left, right) or 4 (also up, down).
        distractors: Number of other moving squares; a multiple of the directions, at most 4.
        grid: Windows along each side of the frame.
        window: Side of a window in pixels, even; the side of the frame is grid times window.
        radius: Half the side of a square in pixels.
        speed: Mean speed of a square in pixels per frame.
        noise: Standard deviation of the pixel noise, in grey levels of 255.
        num_frames: Frames of a video.
    """

    candidates: int = 8
    directions: int = 2
    distractors: int = 0
    grid: int = 3
    window: int = 16
    radius: float = 3.5
    speed: float = 2.5
    noise: float = 3.0
    num_frames: int = 12

    def __post_init__(self) -> None:
        rules = (
            (2 <= self.candidates <= len(CANDIDATES), "candidates", f"give 2 to {len(CANDIDATES)}"),
            (self.directions in (2, 4), "directions", "give 2 (left, right) or 4 (also up, down)"),
            (
                0 <= self.distractors <= len(_DISTRACTORS) and self.distractors % max(self.directions, 1) == 0,
                "distractors",
                f"give a multiple of directions ({self.directions}), at most {len(_DISTRACTORS)}",
            ),
            (self.window >= 2 and self.window % 2 == 0, "window", "give an even number of pixels"),
            (self.squares <= self.grid**2 and self.grid > 0, "grid", f"{self.squares} squares need as many windows"),
            (0 < 2 * self.radius < self.window, "radius", f"give a square that fits into a window of {self.window}"),
            # At half a window per frame the direction is ambiguous.
            (
                0 < self.speed * _SPEED_SPREAD < self.window / 2,
                "speed",
                f"give pixels per frame above 0 and well below half a window ({self.window // 2})",
            ),
            (self.noise >= 0, "noise", "give at least 0"),
            (self.num_frames >= 2, "num_frames", "motion needs at least 2"),
        )
        for valid, name, allowed in rules:
            if not valid:
                raise InputError(f"{name} is {getattr(self, name)}; {allowed}")

    @property
    def squares(self) -> int:
        """Number of moving squares in a video: the sample, the candidates, the distractors."""
        return 1 + self.candidates + self.distractors

    @property
    def side(self) -> int:
        """Side of the frame in pixels."""
        return self.grid * self.window

    @property
    def classes(self) -> tuple[str, ...]:
        """Colours of the candidates."""
        return tuple(CANDIDATES)[: self.candidates]

    @property
    def single_classes(self) -> tuple[str, ...]:
        """Classes of the videos of one square: its look and its direction."""
        looks = ("white", *self.classes, *(f"distractor {i + 1}" for i in range(self.distractors)))
        return tuple(f"{look} {direction}" for look in looks for direction in tuple(DIRECTIONS)[: self.directions])

    @property
    def looks(self) -> tuple[tuple[int, int, int], ...]:
        """RGB of all squares, in the order of `Squares`."""
        return (_SAMPLE, *(CANDIDATES[name] for name in self.classes), *_DISTRACTORS[: self.distractors])


@dataclass(frozen=True)
class Squares:
    """The S moving squares of one video.

    Args:
        look: Index into `RelationTask.looks`, int [S].
        direction: Index into `DIRECTIONS`, int [S].
        window: Index of the window, row by row, int [S]; all different.
        place: Centre in the window at the middle of the video, pixels (x, y), float [S, 2].
        speed: Pixels per frame, float [S].
    """

    look: NDArray[np.int64]
    direction: NDArray[np.int64]
    window: NDArray[np.int64]
    place: NDArray[np.float64]
    speed: NDArray[np.float64]


def draw_relation(task: RelationTask, label: int, rng: np.random.Generator) -> Squares:
    """Draw a video of class ``label``, in which that candidate moves like the sample.

    The order of the squares is: the sample, the candidates as in `RelationTask.classes`, the distractors.
    """
    sample = int(rng.integers(task.directions))
    candidates = np.full(task.candidates, sample ^ 1)  # the opposite direction
    candidates[label] = sample
    distractors = rng.permutation(np.resize(np.arange(task.directions), task.distractors))
    return _drawn(task, np.arange(task.squares), np.concatenate([[sample], candidates, distractors]), rng)


def draw_single(task: RelationTask, label: int, rng: np.random.Generator) -> Squares:
    """Draw a video of one square, of class ``label`` in `RelationTask.single_classes`."""
    look, direction = divmod(label, task.directions)
    return _drawn(task, np.array([look]), np.array([direction]), rng)


def _drawn(
    task: RelationTask, look: NDArray[np.int64], direction: NDArray[np.int64], rng: np.random.Generator
) -> Squares:
    count = len(look)
    return Squares(
        look=look,
        direction=direction,
        window=rng.permutation(task.grid**2)[:count],
        place=rng.uniform(0, task.window, (count, 2)),
        speed=task.speed * _SPEED_SPREAD ** rng.uniform(-1, 1, count),
    )


def centres(task: RelationTask, squares: Squares) -> NDArray[np.float64]:
    """Return the centre of each square in its window in every frame, pixels (x, y), float [S, T, 2]."""
    steps = np.array(list(DIRECTIONS.values()))[squares.direction] * squares.speed[:, None]  # [S, 2]
    time = np.arange(task.num_frames) - (task.num_frames - 1) / 2
    return (squares.place[:, None] + time[:, None] * steps[:, None]) % task.window


def render_squares(task: RelationTask, squares: Squares, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render a video with anti-aliased edges.

    Args:
        task: The look of the videos.
        squares: The moving squares.
        rng: Draws the colour of the background and the pixel noise.

    Returns:
        RGB frames, uint8 [T, side, side, 3].
    """
    size = task.window
    background = rng.uniform(*_BACKGROUND) + rng.uniform(-_TINT, _TINT, 3)
    frames = np.empty((task.num_frames, task.side, task.side, 3), np.float32)
    frames[:] = background
    pixels = np.arange(size) + 0.5
    for look, window, centre in zip(squares.look, squares.window, centres(task, squares), strict=True):
        # Distance along x and y to the nearest copy of the centre on the window's torus, [T, window, 2].
        away = np.abs((pixels[None, :, None] - centre[:, None] + size / 2) % size - size / 2)
        cover = np.clip(0.5 + task.radius - away, 0, 1)
        cover = (cover[:, :, None, 1] * cover[:, None, :, 0])[..., None]  # [T, y, x, 1]
        row, column = (size * int(place) for place in divmod(window, task.grid))
        part = frames[:, row : row + size, column : column + size]
        part += cover * (np.asarray(task.looks[look], np.float32) - part)
    frames += np.float32(task.noise) * rng.standard_normal(frames.shape, np.float32)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)
