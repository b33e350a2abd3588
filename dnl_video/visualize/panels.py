"""What stands in a panel: a map stretched over its frame and coloured, and the rows that pictures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from numpy.typing import NDArray

from dnl_video.visualize.maps import Axes, BlockMaps, Grid
from dnl_video.visualize.queries import Query

Image = NDArray[np.uint8]

# A bright frame must not outshine its map: frames under maps are grey, from the first of these to the second.
_DARKEST, _BRIGHTEST = 0.12, 0.65
# Share of the colour in a panel, at the scale's end; the frame shows through.
_MAP_SHARE, _LOGIT_SHARE = 0.9, 0.75
_LEAST_HIGH = 2.0


@dataclass(frozen=True)
class Scale:
    """How numbers become colours.

    Attributes:
        low: Number of the first colour.
        high: Number of the last.
        colours: Matplotlib's name of the colour map.
        unit: What the numbers are.
    """

    low: float
    high: float
    colours: str
    unit: str


@dataclass(frozen=True)
class Row:
    """One map over the frames, and what to write beside it.

    Attributes:
        title: What it is.
        values: The numbers drawn, [T', h, w].
        keys: Where they are.
        scale: Their colours.
        query: Index of the query it belongs to; None where it belongs to none.
    """

    title: str
    values: Grid
    keys: Axes
    scale: Scale
    query: int | None


def attention_rows(maps: Sequence[tuple[str, BlockMaps]], queries: Sequence[Query]) -> list[Row]:
    """List the maps of one block in one or more networks: unary ones first, then query by query, side by side.

    Args:
        maps: Each network's name in the picture, and its block's maps.
        queries: The query points.
    """
    rows = [_attention_row(f"{name}: unary", b.unary, b.keys, None) for name, b in maps if b.unary is not None]
    for index in range(len(queries)):
        for name, block in maps:
            if block.pairwise is not None:
                term = "coupled" if block.kind == "NL" else "whitened pairwise"
                rows.append(_attention_row(f"{name}: {term}", block.pairwise[index], block.keys, index))
    return rows


def logit_rows(block: BlockMaps, queries: Sequence[Query]) -> list[Row]:
    """List a non-local block's decomposition: unary logits, then for each query whitened pairwise ones and the map."""
    logits = block.logits
    assert logits is not None
    assert block.pairwise is not None
    # One scale for both terms: their sizes are what the figure compares.
    limit = max(float(np.abs(logits.unary).max()), float(np.abs(logits.pairwise).max())) or 1.0
    scale = Scale(-limit, limit, "RdBu_r", "logit\n(unary: less mean)")
    rows = [Row(f"unary logits\n{logits.unary_share:.0%} of variance", logits.unary, block.keys, scale, None)]
    for index in range(len(queries)):
        title = f"whitened pairwise logits\n{logits.pairwise_share:.0%} of variance"
        rows.append(Row(title, logits.pairwise[index], block.keys, scale, index))
        rows.append(_attention_row("coupled attention", block.pairwise[index], block.keys, index))
    return rows


def _attention_row(title: str, weights: Grid, keys: Axes, query: int | None) -> Row:
    # Times M, so that 1 is uniform whatever the number of keys. The scale reaches twice that at least, or an even map
    # would glow all over.
    relative = weights * weights.size
    scale = Scale(0.0, max(float(relative.max()), _LEAST_HIGH), "inferno", "attention \u00d7 M\n1 = uniform")
    return Row(title, relative, keys, scale, query)


def stretched(row: Row, frame: int, height: int, width: int) -> NDArray[np.float64]:
    """Stretch a row's map over a frame: bilinear between the centres of the keys, the nearest key in time.

    Args:
        row: The map.
        frame: The clip's frame.
        height: Pixels down.
        width: Pixels across.

    Returns:
        [height, width]; NaN where the block has no key, since pooling drops what does not fill a window.
    """
    keys = row.keys
    values = row.values[int(np.abs(keys.frames - frame).argmin())].astype(np.float64)
    image = _interpolation(keys.rows, height) @ values @ _interpolation(keys.columns, width).T
    image[np.arange(height) >= keys.end[0]] = np.nan
    image[:, np.arange(width) >= keys.end[1]] = np.nan
    return image


def _interpolation(centres: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """[length, n]: the linear map from values at the centres to pixels; beyond the outer centres it is constant."""
    pixels = np.arange(length)
    return np.stack([np.interp(pixels, centres, unit) for unit in np.eye(len(centres))], axis=1)


def coloured(image: NDArray[np.float64], frame: Image, scale: Scale) -> Image:
    """Lay a map over its frame, the frame in grey.

    A map of weights covers its frame the more the larger they are, so that the frame shows where there is nothing to
    see; a map of signed numbers covers it evenly.

    Args:
        image: Numbers [H, W]; NaN leaves the grey frame as it is.
        frame: RGB, uint8 [H, W, 3].
        scale: Colours of the numbers.

    Returns:
        RGB, uint8 [H, W, 3].
    """
    grey = _DARKEST + (_BRIGHTEST - _DARKEST) * frame.astype(np.float64).mean(axis=2, keepdims=True) / 255
    there = np.isfinite(image)
    span = scale.high - scale.low
    position = np.where(there, (image - scale.low) / span if span > 0 else 0.0, 0.0)
    colour = matplotlib.colormaps[scale.colours](position)[..., :3]
    share = _LOGIT_SHARE if scale.low < 0 else _MAP_SHARE * position**0.75
    weight = (share * there)[..., None]
    return (255 * (grey * (1 - weight) + colour * weight)).round().astype(np.uint8)
