"""The document model of `report` and `compare`: a small tree of nodes, and numbers as text.

A report and a comparison are each built once as a `Document`, which `render_html.py` and `render_text.py` turn into an
HTML page, Markdown and terminal text. All text in the nodes is plain; the renderers escape it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from dnl_video.results.metrics import reported_k


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    style: str = ""  # "note" (small type), "warning" or ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names the row.

    `kinds` has one letter per column: l text, r right-aligned text, c code (ids, paths), n number, % share,
    d difference of shares, a (text, address of a link), s (text, points of a small curve of shares).
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]  # a cell is text, a number, (text, sort key), or None for an empty cell
    kinds: str
    sortable: bool = False  # in HTML, by a click on a heading; empty cells come last

    def cells(self, row: Sequence[Any]) -> list[tuple[str, float | None]]:
        """Return the text and the sort key of each cell; without a key, the text is sorted."""
        return [_cell(value, kind) for value, kind in zip(row, self.kinds, strict=True)]


@dataclass(frozen=True)
class Chart:
    """A figure for HTML; Markdown and the terminal show its numbers in tables."""

    figure: Figure
    name: str  # unique in the document
    alt: str  # description for screen readers
    caption: str
    min_width: int = 0  # CSS pixels below which it scrolls instead of shrinking


@dataclass(frozen=True)
class Tiles:
    """The key figures in large type."""

    items: Sequence[tuple[str, str, str]]  # name, value and text in small type
    caption: str  # text below them
    sentence: str  # replaces tiles and caption in Markdown


@dataclass(frozen=True)
class FilmStrips:
    """A table of videos; HTML shows each row as text above frames of the video."""

    table: Table
    paths: Sequence[str]


@dataclass(frozen=True)
class Section:
    """Nodes under a heading; without content it is left out."""

    title: str
    parts: Sequence[Node]


@dataclass(frozen=True)
class Document:
    """A title, the result in short, and sections."""

    title: str
    lead: Sequence[Node]
    sections: Sequence[Section]
    broad: bool = False  # for a table of many columns


Node = Text | Table | Chart | Tiles | FilmStrips

_FIGURES = {"top1": "top-1", "top5": "top-5", "mean_class_accuracy": "mean class accuracy"}


def figures_shown(num_classes: int) -> dict[str, str]:
    """Return the figures of a network and their names in text; see `reported_k`."""
    return {key: name for key, name in _FIGURES.items() if key != "top5" or 5 in reported_k(num_classes)}


def percent(share: float) -> str:
    """Return a share such as "73.5%"."""
    return f"{100 * share:.1f}%"


def points(share: float) -> str:
    """Return a difference in percentage points, such as "+1.3", "-0.4" or "0.0"."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def accuracy_text(figure: dict[str, Any] | None) -> str:
    """Return an accuracy with its interval, such as "73.5% [72.9, 74.1]"; a dash for None."""
    return f"{percent(figure['value'])} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]" if figure else "-"


def difference_text(figure: dict[str, Any]) -> str:
    """Return a difference with its interval, such as "+1.3 [+0.2, +2.4]"."""
    return f"{points(figure['value'])} [{points(figure['low'])}, {points(figure['high'])}]"


def accuracy_cells(figures: dict[str, Any] | None, keys: Iterable[str]) -> list[str]:
    """Return the figures of the keys, such as "top1", as text."""
    return [accuracy_text((figures or {}).get(key)) for key in keys]


def _cell(value: Any, kind: str) -> tuple[str, float | None]:
    if kind in "as":
        return value[0], max((y for _, y in value[1]), default=None) if kind == "s" else None
    if isinstance(value, tuple):
        return value
    if value is None or isinstance(value, str):
        return value or "", None
    return {"n": f"{value:,}", "%": percent(value), "d": points(value)}[kind], value
