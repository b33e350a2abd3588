"""Matplotlib figures as inline SVG, without pyplot, display or torch.

A figure follows the light or dark page around it: it is transparent, and INK and GRID become the CSS colours
`currentColor` and `var(--grid)`. Text stays text, in the page's font.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from dnl_video.errors import visible
from dnl_video.files import atomic_path

WIDTH = 5.6  # inches of a figure that is as wide as the text; legible on phones, where it shrinks
INK = "#010203"  # text and axes; becomes the page's text colour
GRID = "#040506"  # faint lines; becomes the page's line colour
COLORS = ("#3574c4", "#d9730d")  # blue and orange; contrast of at least 3 on white and on near-black
_CSS = {INK: "currentColor", GRID: "var(--grid, #d0d0d0)"}
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "dnl_video",  # the same report gives the same file
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "grid.color": GRID,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
}


def new_figure(width: float = WIDTH, height: float = 3.0) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes; width and height in inches."""
    figure, (axes,) = new_panels(1, 1, width, height)
    return figure, axes


def new_panels(lines: int, columns: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, line by line; ``shared`` is for `Figure.subplots`. See `new_figure`."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        panels = list(figure.subplots(lines, columns, squeeze=False, **shared).ravel())
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def small_multiples(titles: Sequence[str], height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of at most three panels side by side, which share their axes; height of a panel in inches."""
    columns = min(3, len(titles))
    lines = -(-len(titles) // columns)
    figure, panels = new_panels(lines, columns, WIDTH, lines * (height + 0.25) + 0.3, sharex=True, sharey=True)
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(plain(title, 72 // columns), fontsize=9)
    for axes in panels[len(titles) :]:
        axes.remove()
    for axes in panels[len(titles) - columns : len(titles)]:  # the last of each column
        axes.tick_params(labelbottom=True)
    return figure, panels[: len(titles)]


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG on white, atomically.

    Raises:
        InputError: The file cannot be written.
    """
    for axes in figure.axes:
        axes.tick_params(grid_color="#d4d8dd")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, facecolor="white")


def to_svg(figure: Figure, name: str, alt: str, *, min_width: int = 0) -> str:
    """Return a figure as an `<svg>` element for an HTML page; the arguments are the fields of `Chart`."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Class names may be in any script: the browser has the glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", dpi=192, transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # matplotlib's rule `*{stroke-linejoin: …}` would apply to the whole page.
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<[a-z][^>]*>", lambda tag: _restyled(tag[0], name), svg)
    view_box = svg.partition('viewBox="')[2].partition('"')[0]
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    # The page enlarges a figure to the width of its text, but not a narrow one: its letters would be too large.
    shape = f"width:{round(1.43 * width)}px;min-width:min({min_width}px,{width}px);stroke-linejoin:round"
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'viewBox="{view_box}" width="{width}" height="{height}" style="{shape}" aria-label={quoteattr(alt)}>'
    )
    return start + svg[svg.index(">") + 1 :]


def _restyled(tag: str, name: str) -> str:
    """Prefix a tag's ids and references, and give it the page's colours."""
    tag = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    for color, css in _CSS.items():
        tag = tag.replace(color, css)
    return tag


def plain(text: str, longest: int = 28) -> str:
    """Return a label on one line, shortened in the middle; see `visible`. A dollar sign does not start a formula."""
    text = " ".join(visible(text).split())
    if len(text) > longest:
        text = f"{text[: longest - longest // 3 - 1]}…{text[-(longest // 3) :]}"
    return text.replace("$", r"\$")


def percent_axis(axes: Axes, axis: Literal["x", "y"], low: float = 0.0, high: float = 1.0) -> None:
    """Label an axis of shares in percent from `low` to `high`, with a grid."""
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    (axes.set_xlim if axis == "x" else axes.set_ylim)(low, high)
    chosen.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    chosen.set_major_formatter(PercentFormatter(xmax=1, decimals=None, symbol="%"))
    axes.grid(axis=axis, linewidth=0.6)


def interval_bars(axes: Axes, names: Sequence[str], values: ArrayLike, low: ArrayLike, high: ArrayLike) -> None:
    """Draw horizontal bars from 0 with interval whiskers, the first name on top."""
    axes.barh(range(len(names)), values, height=0.62, color=COLORS[0])
    error_bars(axes, [plain(name) for name in names], values, low, high, fmt="none", capsize=2)


def error_bars(
    axes: Axes, labels: Sequence[str], values: ArrayLike, low: ArrayLike, high: ArrayLike, **style: Any
) -> None:
    """Draw markers with interval whiskers in rows, the first label on top; `style` is for `Axes.errorbar`."""
    whiskers = np.maximum([np.subtract(values, low), np.subtract(high, values)], 0)
    axes.errorbar(values, range(len(labels)), xerr=whiskers, ecolor=INK, elinewidth=0.9, **style)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
