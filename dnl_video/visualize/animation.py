"""Animations of attention maps: one line of panels per block, as mp4 or GIF."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dnl_video.data.encoding import write_video
from dnl_video.errors import InputError
from dnl_video.files import atomic_path
from dnl_video.visualize import panels
from dnl_video.visualize.examine import Examination
from dnl_video.visualize.panels import Row

_PANEL_IN, _GAP_IN, _LABEL_IN, _TITLE_IN, _LEAST_WIDTH_IN = 1.5, 0.08, 0.75, 0.42, 5.0
_LEGEND = (
    "colours: attention \u00d7 M (1 = uniform) from 0, the grey frame, to the number above the panel, bright yellow"
)
_DPI = 100


def write_animation(path: str | os.PathLike[str], frames: Sequence[NDArray[np.uint8]], fps: float) -> None:
    """Write frames as mp4 or as endlessly repeating GIF, atomically.

    Raises:
        InputError: The suffix is neither .mp4 nor .gif, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix == ".mp4":
        write_video(path, frames, fps)
        return
    if path.suffix != ".gif":
        raise InputError(f"{path}: cannot write suffix {path.suffix!r}; allowed: .mp4, .gif")
    first, *others = (Image.fromarray(frame).quantize(128, dither=Image.Dither.NONE) for frame in frames)
    duration = round(1000 / fps)
    with atomic_path(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=duration, loop=0, disposal=1)


def animate(examination: Examination) -> Iterator[NDArray[np.uint8]]:
    """Render every frame of the clip that the attention sees: RGB, uint8 [H, W, 3], even sizes.

    Each block has one line: the frame, then the block's maps. Each panel states its scale.
    """
    clip = examination.clip
    lines = [(name, examination.rows(name)) for name in examination.blocks]
    height, width = clip.frames.shape[1:3]
    tall = _PANEL_IN * height / width
    across = 1 + max(len(rows) for _, rows in lines)
    wide = _even(max(_LABEL_IN + across * (_PANEL_IN + _GAP_IN), _LEAST_WIDTH_IN))
    captions = panels.wrapped(examination.caption, wide, 9) + panels.wrapped(_LEGEND, wide, 8)
    top = panels.heading_height([*captions, ("", 9.0)])
    size = (wide, _even(top + len(lines) * (tall + _TITLE_IN) + _GAP_IN))
    figure = panels.new_figure(size, captions, _DPI)
    y = 1 - panels.heading_height(captions) / size[1]
    heading = figure.text(0.12 / size[0], y, "", va="top", fontsize=9, weight="bold")
    images = []
    for line, (name, rows) in enumerate(lines):
        bottom = size[1] - top - (line + 1) * (tall + _TITLE_IN)
        middle = (bottom + tall / 2) / size[1]
        figure.text((_LABEL_IN - 0.1) / size[0], middle, name, ha="right", va="center", fontsize=9, weight="bold")
        for column, row in enumerate([None, *rows]):
            left = _LABEL_IN + column * (_PANEL_IN + _GAP_IN)
            axes = figure.add_axes((left / size[0], bottom / size[1], _PANEL_IN / size[0], tall / size[1]))
            axes.set_title(_title(row), fontsize=7.5, pad=3)
            images.append((axes, panels.show(axes, clip.frames[0]), row))
    return _rendered(examination, figure, heading, images)


def _even(inches: float) -> float:
    """Round up to an even number of pixels, which H.264 needs."""
    return 2 * math.ceil(inches * _DPI / 2) / _DPI


def _rendered(
    examination: Examination, figure: Any, heading: Any, images: list[tuple[Any, Any, Row | None]]
) -> Iterator[NDArray[np.uint8]]:
    clip, queries = examination.clip, examination.queries
    height, width = clip.frames.shape[1:3]
    shown = examination.networks[0][1].shown
    own = [panels.nearest_frame(shown, query.frame) for query in queries]
    for frame in shown:
        heading.set_text(f"frame {frame}, {clip.seconds[frame]:.2f} s")
        marks = []
        for axes, image, row in images:
            picture = clip.frames[frame]
            if row is not None:
                picture = panels.overlay(row, frame, picture)
            image.set_data(picture)
            for index, query in enumerate(queries):
                here = own[index] == frame
                if row.query == index if row is not None else here:
                    marks += panels.mark_query(axes, index, query, height, width, own=here, named=row is None)
        figure.canvas.draw()
        yield np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
        for mark in marks:
            mark.remove()


def _title(row: Row | None) -> str:
    if row is None:
        return "frame"
    title = row.title if row.query is None else f"{row.title}, {panels.letter(row.query)}"
    return f"{title}\n0 to {row.scale.high:.3g}"
