"""The HTML renderer: one self-contained page for screens of every width, light, dark and paper."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dnl_video.report.document import Chart, Document, FilmStrips, Node, Table, Text, Tiles
from dnl_video.report.figures import to_svg

FrameReader = Callable[[str], "NDArray[np.uint8] | str"]
"""Reads a few small frames [n, H, W, 3] of the video at a path, or returns a short reason for the failure."""
Links = Callable[[str], "str | None"]
"""Returns the address of the video at a path, relative to the page; None where there is no such file."""


class _Videos(NamedTuple):
    """Access to the videos of a page."""

    read_frames: FrameReader | None
    link: Links


STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
_TALL = 40  # a table with more rows scrolls in its own box; on paper it is complete
_MAX_STRIP_BYTES = 3_000_000  # of all film strips of a page, as base64
_MAX_STRIP_PIXELS = 6 * 160 * 320  # of one film strip
_GAP = 3  # white pixels between frames


def render_html(document: Document, read_frames: FrameReader | None = None, link: Links | None = None) -> str:
    """Return a document as one HTML page that loads no other file; without `read_frames`, it has no film strips."""
    videos = _Videos(read_frames, link or (lambda path: None))
    sections = [
        (re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-"), escape(section.title), body)
        for section in document.sections
        if (body := _nodes(section.parts, videos))
    ]
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title, _ in sections)
    parts = "\n".join(
        f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{title}</h2>\n{body}\n</section>'
        for anchor, title, body in sections
    )
    # With this policy, the browser loads nothing from outside this file.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(document.title)}</title>
<link rel="icon" href="data:,">
<style>
{STYLE}</style>
</head>
<body{' class="broad"' if document.broad else ""}>
<header>
<h1>{escape(document.title)}</h1>
{_nodes(document.lead, videos)}
</header>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{parts}
</main>
<script>
{SCRIPT}</script>
</body>
</html>
"""


def _nodes(nodes: Iterable[Node], videos: _Videos) -> str:
    return "\n".join(_node(node, videos) for node in nodes)


def _node(node: Node, videos: _Videos) -> str:
    match node:
        case Text(text, style):
            return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"
        case Tiles():
            tiles = "".join(
                f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b><span>{escape(small)}</span></div>'
                for name, value, small in node.items
            )
            return (f'<div class="tiles">{tiles}</div>\n' if tiles else "") + f"<p>{escape(node.caption)}</p>"
        case Table():
            return _table(node)
        case Chart():
            svg = to_svg(node.figure, node.name, node.alt, min_width=node.min_width)
            return f'<figure><div class="scroll">{svg}</div>\n<figcaption>{escape(node.caption)}</figcaption></figure>'
        case FilmStrips():
            return _film_strips(node, videos)


def _table(table: Table) -> str:
    sides = ["" if kind in "lacs" else ' class="r"' for kind in table.kinds]
    heads = "".join(
        f'<th scope="col" aria-sort="none"{side}><button type="button">{escape(name)}</button></th>'
        if table.sortable
        else f'<th scope="col"{side}>{escape(name)}</th>'
        for name, side in zip(table.header, sides, strict=True)
    )
    rows = []
    for row in table.rows:
        cells = []
        for column, (value, (text, sort), kind) in enumerate(zip(row, table.cells(row), table.kinds, strict=True)):
            tag = "td" if column else 'th scope="row"'
            key = f' data-sort="{sort}"' if table.sortable and sort is not None and str(sort) != text else ""
            shown = f"<code>{escape(text)}</code>" if kind == "c" and text else escape(text)
            if kind == "a" and value[1]:
                shown = f'<a href="{escape(value[1])}">{shown}</a>'
            elif kind == "s" and len(value[1]) > 1:
                shown = f"{_small_curve(value[1])} {shown}"
            cells.append(f"<{tag}{sides[column]}{key}>{shown}</{tag[:2]}>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    caption, body = escape(table.caption), "\n".join(rows)
    box = "scroll tall" if len(rows) > _TALL else "scroll"
    css, how = "", ""
    if table.sortable:
        css, how = ' class="sortable"', ". Click a heading to sort; click again to reverse."
    return (
        f'<div class="{box}" tabindex="0" role="region" aria-label="{caption}"><table{css}>\n'
        f"<caption>{caption}{how}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _small_curve(points: Sequence[tuple[float, float]]) -> str:
    """Return a curve of shares from 0 to 1 as an `<svg>` that fits into a line of text."""
    first, last = points[0][0], points[-1][0]
    line = " ".join(f"{60 * (x - first) / (last - first):.1f},{17 - 16 * y:.1f}" for x, y in points)
    return f'<svg class="curve" viewBox="0 0 60 18" aria-hidden="true"><polyline points="{line}"/></svg>'


def _film_strips(node: FilmStrips, videos: _Videos) -> str:
    parts, bytes_left = [f'<p class="note">{escape(node.table.caption)}.</p>'], _MAX_STRIP_BYTES
    for number, (row, path) in enumerate(zip(node.table.rows, node.paths, strict=True), start=1):
        video, *facts = (text for text, _ in node.table.cells(row))
        names = node.table.header[1:]
        shown = ", ".join(f"{escape(name)} <b>{escape(fact)}</b>" for name, fact in zip(names, facts, strict=True))
        strip, name, address = "", f"<code>{escape(video)}</code>", videos.link(path)
        if address is not None:
            name = f'<a href="{escape(address)}">{name}</a>'
        if videos.read_frames is not None:
            frames = videos.read_frames(path) if bytes_left > 0 else "left out, to keep this file small"
            image = film_strip(frames, f"Frames of {video}")
            bytes_left -= len(image)
            strip = f'<figure><div class="scroll">{image}</div></figure>'
        parts.append(f'<div class="strip"><p>{number}. {shown}<br>{name}</p>{strip}</div>')
    return "\n".join(parts)


def film_strip(frames: NDArray[np.uint8] | str, alt: str) -> str:
    """Return frames [n, H, W, 3] side by side as an `<img>`; a text instead of frames is shown in a box."""
    if isinstance(frames, str):
        return f'<div class="no-frames">{escape(frames)}</div>'
    from PIL import Image

    gap = np.full((frames.shape[1], _GAP, 3), 255, dtype=np.uint8)
    pixels = np.concatenate([part for frame in frames for part in (gap, frame)][1:], axis=1)
    height, width = pixels.shape[:2]
    if height * width > _MAX_STRIP_PIXELS:
        step = int(np.ceil((height * width / _MAX_STRIP_PIXELS) ** 0.5))
        pixels = np.ascontiguousarray(pixels[::step, ::step])
        height, width = pixels.shape[:2]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="jpeg", quality=70)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    shape = f'width="{width}" height="{height}" style="min-width:{min(560, width)}px"'
    return f'<img src="{uri}" alt="{escape(alt)}" {shape}>'
