"""Query points: the places whose attention is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dnl_video.errors import InputError


class Query(NamedTuple):
    """A place in a clip.

    Attributes:
        frame: Frame of the clip, counted from 0.
        x: Horizontal place, from 0 (left edge of the crop) to 1 (right edge).
        y: Vertical place, from 0 (top edge) to 1 (bottom edge).
        origin: Text beside it in pictures.
    """

    frame: int
    x: float
    y: float
    origin: str = ""

    def pixel(self, height: int, width: int) -> tuple[float, float]:
        """Return (y, x) in pixels; 0 is the centre of the first pixel."""
        return self.y * height - 0.5, self.x * width - 0.5


def parse_query(text: str) -> Query:
    """Read ``t,x,y``.

    Raises:
        InputError: It is not an integer and two numbers.
    """
    try:
        t, x, y = text.split(",")
        return Query(int(t), float(x), float(y))
    except ValueError:
        raise InputError(
            f"query {text!r} is not t,x,y; give a frame of the clip, counted from 0, and a place from 0,0 (left, top) "
            "to 1,1, for example 4,0.5,0.25"
        ) from None


def checked_queries(queries: Sequence[Query], num_frames: int) -> list[Query]:
    """Return the queries, each with an origin.

    Raises:
        InputError: A query lies outside the clip.
    """
    checked = []
    for query in queries:
        if not 0 <= query.frame < num_frames:
            raise InputError(f"query frame {query.frame} is outside the clip; its frames are 0 to {num_frames - 1}")
        if not (0 <= query.x <= 1 and 0 <= query.y <= 1):
            raise InputError(
                f"query place x {query.x:g}, y {query.y:g} is outside the frame; both go from 0 (left, top) to 1"
            )
        checked.append(query._replace(origin=query.origin or f"({query.frame}, {query.x:g}, {query.y:g})"))
    return checked


def default_queries(frames: NDArray[np.uint8], shown: Sequence[int]) -> list[Query]:
    """Return the place of the strongest motion, if anything moves, and the centre (see `strongest_motion`)."""
    moving = strongest_motion(frames, shown)
    centre = Query(shown[len(shown) // 2], 0.5, 0.5, "centre")
    return [centre] if moving is None else [moving, centre]


def strongest_motion(frames: NDArray[np.uint8], shown: Sequence[int]) -> Query | None:
    """Return the place where consecutive shown frames differ most, in the later frame; None if nothing moves.

    Differences are averaged over windows of an eighth of the frame, so that an object outweighs a noisy pixel.

    Args:
        frames: The clip, uint8 [T, H, W, 3].
        shown: The frames that the pathway of the attention blocks sees.
    """
    brightness = frames[list(shown)].astype(np.float32).mean(axis=-1)  # [S, H, W]
    difference = np.abs(np.diff(brightness, axis=0))
    if difference.size == 0 or difference.max() == 0:
        return None
    height, width = difference.shape[1:]
    window = max(min(height, width) // 8, 1)
    means = _window_means(difference, window)  # [S - 1, H - window + 1, W - window + 1]
    step, top, left = np.unravel_index(int(means.argmax()), means.shape)
    x, y = (float(left) + window / 2) / width, (float(top) + window / 2) / height
    return Query(shown[int(step) + 1], x, y, "strongest motion")


def _window_means(images: NDArray[np.float32], window: int) -> NDArray[np.float64]:
    sums = np.pad(images.astype(np.float64), ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
    inner = sums[:, window:, window:] - sums[:, :-window, window:] - sums[:, window:, :-window]
    return (inner + sums[:, :-window, :-window]) / window**2
