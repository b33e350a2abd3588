"""Panels of attention pictures: maps coloured over their frames, figure headings, and marks of query points."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from dnl_video.errors import visible
from dnl_video.files import atomic_path
from dnl_video.visualize.clip import Query
from dnl_video.visualize.maps import BlockMaps, Grid, Positions

Image = NDArray[np.uint8]
Lines = list[tuple[str, float]]  # text and its size in points

# Bright, for the dark end of the maps, and not among the maps' colours.
QUERY_COLOURS = ("#00e5ff", "#76ff03", "#ff80ff", "#ffffff")
_MARGIN_IN = 0.12
# Grey levels of the frame under a map, for black and white pixels: a bright frame must not be brighter than its map.
_DARKEST, _BRIGHTEST = 0.12, 0.65
# Opacity of the colour at the end of the scale.
_MAP_OPACITY, _LOGIT_OPACITY = 0.9, 0.75
# The attention scale ends at 2 or more: a nearly uniform map must not look bright everywhere.
_LEAST_HIGH = 2.0


@dataclass(frozen=True)
class Scale:
    """Colour scale."""

    low: float  # number of the first colour
    high: float  # number of the last colour
    colours: str  # matplotlib's name of the colour map
    unit: str  # meaning of the numbers


@dataclass(frozen=True)
class Row:
    """One map over the frames."""

    title: str
    values: Grid  # the numbers drawn, [T', h, w]
    keys: Positions
    scale: Scale
    query: int | None  # index of its query; None for maps without one


def attention_rows(maps: Sequence[tuple[str, BlockMaps]], queries: Sequence[Query]) -> list[Row]:
    """Return the maps (network name, block maps) of one block: unary maps first, then the maps of each query."""
    rows = [_attention_row(f"{name}: unary", b.unary, b.keys, None) for name, b in maps if b.unary is not None]
    for index in range(len(queries)):
        for name, block in maps:
            if block.pairwise is not None:
                term = "coupled" if block.kind == "NL" else "whitened pairwise"
                rows.append(_attention_row(f"{name}: {term}", block.pairwise[index], block.keys, index))
    return rows


def logit_rows(block: BlockMaps, queries: Sequence[Query]) -> list[Row]:
    """Return a non-local block's decomposition: unary logits, then the whitened pairwise logits and map per query."""
    logits = block.logits
    assert logits is not None
    assert block.pairwise is not None
    # One scale for both terms, since the figure compares their sizes.
    limit = max(float(np.abs(logits.unary).max()), float(np.abs(logits.pairwise).max())) or 1.0
    scale = Scale(-limit, limit, "RdBu_r", "logit\n(unary: less mean)")
    rows = [Row(f"unary logits\n{logits.unary_share:.0%} of variance", logits.unary, block.keys, scale, None)]
    for index in range(len(queries)):
        title = f"whitened pairwise logits\n{logits.pairwise_share:.0%} of variance"
        rows.append(Row(title, logits.pairwise[index], block.keys, scale, index))
        rows.append(_attention_row("coupled attention", block.pairwise[index], block.keys, index))
    return rows


def _attention_row(title: str, weights: Grid, keys: Positions, query: int | None) -> Row:
    relative = weights * weights.size  # times M: 1 is uniform for any number of keys
    scale = Scale(0.0, max(float(relative.max()), _LEAST_HIGH), "inferno", "attention \u00d7 M\n1 = uniform")
    return Row(title, relative, keys, scale, query)


def stretched(row: Row, frame: int, height: int, width: int) -> NDArray[np.float64]:
    """Stretch a row's map over a frame of the clip: bilinear between the centres of the keys, nearest in time.

    Returns:
        [height, width]; NaN for pixels without a key (pooling drops an incomplete window).
    """
    keys = row.keys
    values = row.values[int(np.abs(keys.frames - frame).argmin())].astype(np.float64)
    image = _interpolation(keys.rows, height) @ values @ _interpolation(keys.columns, width).T
    image[np.arange(height) >= keys.end[0]] = np.nan
    image[:, np.arange(width) >= keys.end[1]] = np.nan
    return image


def _interpolation(centres: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return the linear map from values at the centres to pixels, [length, n]; constant beyond the outer centres."""
    pixels = np.arange(length)
    return np.stack([np.interp(pixels, centres, unit) for unit in np.eye(len(centres))], axis=1)


def coloured(image: NDArray[np.float64], frame: Image, scale: Scale) -> Image:
    """Draw a map over its grey frame.

    Attention is more opaque the larger it is, so that the frame shows where attention is low. Signed numbers have the
    same opacity everywhere. NaN shows the grey frame only. ``image`` is [H, W], ``frame`` RGB uint8 [H, W, 3].
    """
    grey = _DARKEST + (_BRIGHTEST - _DARKEST) * frame.astype(np.float64).mean(axis=2, keepdims=True) / 255
    finite = np.isfinite(image)
    span = scale.high - scale.low
    position = np.where(finite, (image - scale.low) / span if span > 0 else 0.0, 0.0)
    colour = mpl.colormaps[scale.colours](position)[..., :3]
    opacity = _LOGIT_OPACITY if scale.low < 0 else _MAP_OPACITY * position**0.75
    weight = (opacity * finite)[..., None]
    return (255 * (grey * (1 - weight) + colour * weight)).round().astype(np.uint8)


def overlay(row: Row, frame: int, picture: Image) -> Image:
    """Draw a row's map over the picture of a frame of the clip."""
    return coloured(stretched(row, frame, *picture.shape[:2]), picture, row.scale)


def label(text: str) -> str:
    """Return text that matplotlib can draw: see `visible`; a dollar sign does not start a formula."""
    return visible(text).replace("$", r"\$")


def wrapped(text: str, wide: float, points: float) -> Lines:
    """Break a heading into lines that fit a figure ``wide`` inches across."""
    # A character is 0.6 of the font size wide on average, also in bold; an inch has 72 points.
    characters = max(int((wide - 2 * _MARGIN_IN) * 72 / (0.6 * points)), 20)
    return [(line, points) for line in textwrap.wrap(label(text), characters)]


def heading_height(lines: Lines) -> float:
    """Return the height of heading lines in inches."""
    return _MARGIN_IN + sum(1.5 * points / 72 for _, points in lines)


def new_figure(size: tuple[float, float], lines: Lines, dpi: int = 110) -> Figure:
    """Return a figure of ``size`` inches with heading lines; those over 10 points are bold.

    It does not use matplotlib's global state.
    """
    figure = Figure(figsize=size, dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    wide, tall = size
    y = tall - _MARGIN_IN
    for text, points in lines:
        weight, colour = ("bold", "black") if points > 10 else ("normal", "#444444")
        figure.text(_MARGIN_IN / wide, y / tall, text, va="top", fontsize=points, weight=weight, color=colour)
        y -= 1.5 * points / 72
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically; the suffix (.png or .svg) chooses the format.

    Raises:
        InputError: The file cannot be written.
    """
    # Without a date, the same content gives the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."), metadata=metadata)


def show(axes: Any, image: Any) -> Any:
    """Fill axes with an image, one unit per pixel; return the artist."""
    axes.set_axis_off()
    return axes.imshow(image, aspect="auto")


def nearest_frame(frames: Sequence[int], frame: int) -> int:
    """Return the frame of a sequence that is nearest to ``frame``; the earlier one of two."""
    return min(frames, key=lambda f: (abs(f - frame), f))


def letter(index: int) -> str:
    """Return the name of a query in pictures: A, B, ..."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def mark_query(
    axes: Any, index: int, query: Query, height: int, width: int, *, own: bool, named: bool = False
) -> list[Any]:
    """Mark a query in a panel and return the artists.

    Args:
        axes: The panel.
        index: Number of the query; it gives colour and letter.
        query: Its place.
        height: Height of the panel's image in pixels.
        width: Width in pixels.
        own: The panel shows the frame of the query, and gets a border.
        named: Fill the mark and write the query's letter. In a map the mark is a ring, so that the map stays visible.
    """
    colour = QUERY_COLOURS[index % len(QUERY_COLOURS)]
    y, x = query.pixel(height, width)
    outline = [withStroke(linewidth=3.0, foreground="black")]
    ring = {
        "markersize": 8 if own else 6,
        "markerfacecolor": colour if named else "none",
        "markeredgecolor": colour,
        "markeredgewidth": 1.8 if own else 1.4,
    }
    artists = axes.plot([x], [y], "o", path_effects=outline, clip_on=False, zorder=4, **ring)
    if own:
        border: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": 2.2, "clip_on": False, "zorder": 3}
        artists.append(axes.add_patch(Rectangle((-0.5, -0.5), width, height, **border)))
    if named:
        side, offset = ("left", 6) if query.x < 0.75 else ("right", -6)
        style = {"ha": side, "va": "center", "color": colour, "weight": "bold", "path_effects": outline}
        text = axes.annotate(letter(index), (x, y), xytext=(offset, 0), textcoords="offset points", **style)
        artists.append(text)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    return artists
