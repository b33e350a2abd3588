"""A task that only a relation between far-apart places solves: which candidate moves as the sample does?

The frame is a grid of windows. In some of them a coloured square moves, and what leaves its window on one side comes
back on the other:

    the sample       white, moves in a direction drawn uniformly
    the candidates   one of each colour; one of them moves as the sample does, all others the opposite way
    the distractors  further colours, each direction equally often, in an order drawn uniformly

The label is the colour of the candidate that moves as the sample does. Windows, and where in its window a square is,
are drawn uniformly and independently of everything else. Therefore, in every class alike:

    one frame                  shows squares at independent, uniform places: a constant step on a torus leaves them so
    counts of local motions    are those of the sample's direction (twice, apart from distractors) and of its opposite,
                               and the sample's direction is uniform
    one square's motion        is uniform over the directions, for the sample, each candidate and each distractor

so that squares have to be brought together. Sums of local evidence (of each square's colour, place and direction, a
sum for each class, the largest winning) do not suffice: a video and the one with all motions reversed are of one class,
and a sum that is right about both can be so for one class only. They reach 1/2, by naming the candidate that moves
right, and at most 1/2 + 1/(2 * candidates). `draw_single` makes the videos of one square that teach a network all local
evidence: which square moves which way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError

# Steps (x, y), y down, each beside its opposite; a task of two directions has the first two.
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
_BACKGROUND: Final = (90.0, 130.0)  # grey level
_TINT: Final = 10.0  # of the background, either way
_SPEED_SPREAD: Final = 1.1  # factor, either way


@dataclass(frozen=True)
class RelationTask:
    """How the videos of the task look.

    Args:
        candidates: Candidates, and classes; 2 to 8.
        directions: 2 (left, right) or 4 (also up, down).
        distractors: Further moving squares; a multiple of the directions, 4 at most.
        grid: Windows along each side of the frame.
        window: Side of a window in pixels, even; the frame's side is grid times this.
        radius: Half the side of a square in pixels.
        speed: Pixels a frame that a square moves, on average.
        noise: Standard deviation of the pixel noise, grey levels of 255.
        num_frames: Frames of a video.
    """

    candidates: int = 4
    directions: int = 2
    distractors: int = 0
    grid: int = 3
    window: int = 24
    radius: float = 4.0
    speed: float = 3.0
    noise: float = 3.0
    num_frames: int = 12

    def __post_init__(self) -> None:
        if not 2 <= self.candidates <= len(CANDIDATES):
            raise InputError(f"task.candidates is {self.candidates}; give 2 to {len(CANDIDATES)}")
        if self.directions not in (2, 4):
            raise InputError(f"task.directions is {self.directions}; give 2 (left, right) or 4 (also up, down)")
        if self.distractors % self.directions or not 0 <= self.distractors <= len(_DISTRACTORS):
            raise InputError(
                f"task.distractors is {self.distractors}; give a multiple of task.directions "
                f"({self.directions}), {len(_DISTRACTORS)} at most, so that every direction is there equally often"
            )
        if self.window < 2 or self.window % 2:
            raise InputError(f"task.window is {self.window}; give an even number of pixels")
        if self.grid < 1 or self.squares > self.grid**2:
            raise InputError(f"task.grid is {self.grid}; {self.squares} squares need as many windows")
        if not 0 < 2 * self.radius < self.window:
            raise InputError(f"task.radius is {self.radius}; give a square that fits into a window of {self.window}")
        if not 0 < self.speed * _SPEED_SPREAD < self.window / 2:
            # From half a window a frame on, the direction is ambiguous.
            raise InputError(
                f"task.speed is {self.speed}; give pixels a frame above 0 and well below half a window "
                f"({self.window // 2})"
            )
        if self.noise < 0:
            raise InputError(f"task.noise is {self.noise}; give at least 0")
        if self.num_frames < 2:
            raise InputError(f"task.num_frames is {self.num_frames}; motion needs at least 2")

    @property
    def squares(self) -> int:
        """Moving squares of a video: the sample, the candidates, the distractors."""
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
        """Look and direction of a square that is alone, look by look."""
        looks = ("white", *self.classes, *(f"distractor {i + 1}" for i in range(self.distractors)))
        return tuple(f"{look} {direction}" for look in looks for direction in tuple(DIRECTIONS)[: self.directions])

    @property
    def looks(self) -> tuple[tuple[int, int, int], ...]:
        """RGB of all squares, in the order of `Squares`."""
        return (_SAMPLE, *(CANDIDATES[name] for name in self.classes), *_DISTRACTORS[: self.distractors])


@dataclass(frozen=True)
class Squares:
    """What moves in one video.

    Args:
        look: Index into `RelationTask.looks`, int [S].
        direction: Index into `DIRECTIONS`, int [S].
        window: Window, counted row by row, int [S]; all different.
        place: Centre within the window in the middle of the video, pixels (x, y), float [S, 2].
        speed: Pixels a frame, float [S].
    """

    look: NDArray[np.int64]
    direction: NDArray[np.int64]
    window: NDArray[np.int64]
    place: NDArray[np.float64]
    speed: NDArray[np.float64]


def draw_relation(task: RelationTask, label: int, rng: np.random.Generator) -> Squares:
    """Draw a video of class ``label``: the sample moves as that candidate does.

    The squares are the sample, the candidates in the order of `RelationTask.classes`, then the distractors.
    """
    sample = int(rng.integers(task.directions))
    candidates = np.full(task.candidates, sample ^ 1)  # its opposite
    candidates[label] = sample
    distractors = rng.permutation(np.resize(np.arange(task.directions), task.distractors))
    return _drawn(task, np.arange(task.squares), np.concatenate([[sample], candidates, distractors]), rng)


def draw_single(task: RelationTask, label: int, rng: np.random.Generator) -> Squares:
    """Draw a video of one square, of a look and a direction: class ``label`` of `RelationTask.single_classes`."""
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
    """Return where each square's centre is in its window in every frame, pixels (x, y), float [S, T, 2]."""
    steps = np.array(list(DIRECTIONS.values()))[squares.direction] * squares.speed[:, None]  # [S, 2]
    time = np.arange(task.num_frames) - (task.num_frames - 1) / 2
    return (squares.place[:, None] + time[:, None] * steps[:, None]) % task.window


def render_squares(task: RelationTask, squares: Squares, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a video, edges anti-aliased.

    Args:
        task: How videos look.
        squares: What moves.
        rng: Source of the background's colour and of the pixel noise.

    Returns:
        RGB frames, uint8 [T, side, side, 3].
    """
    size = task.window
    background = rng.uniform(*_BACKGROUND) + rng.uniform(-_TINT, _TINT, 3)
    frames = np.empty((task.num_frames, task.side, task.side, 3), np.float32)
    frames[:] = background
    pixels = np.arange(size) + 0.5
    for look, window, centre in zip(squares.look, squares.window, centres(task, squares), strict=True):
        # Distance along x and y from the nearest copy of the centre on the window's torus.  [T, window, 2]
        away = np.abs((pixels[None, :, None] - centre[:, None] + size / 2) % size - size / 2)
        cover = np.clip(0.5 + task.radius - away, 0, 1)
        cover = (cover[:, :, None, 1] * cover[:, None, :, 0])[..., None]  # [T, y, x, 1]
        row, column = (size * int(place) for place in divmod(window, task.grid))
        part = frames[:, row : row + size, column : column + size]
        part += cover * (np.asarray(task.looks[look], np.float32) - part)
    frames += np.float32(task.noise) * rng.standard_normal(frames.shape, np.float32)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)
