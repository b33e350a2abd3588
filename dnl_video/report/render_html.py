"""The HTML renderer: one self-contained page for screens of every width, light, dark and paper."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable
from html import escape

import numpy as np
from numpy.typing import NDArray

from dnl_video.report.document import Chart, Document, FilmStrips, Node, SideBySide, Table, Text, Tiles
from dnl_video.report.figures import to_svg

FrameReader = Callable[[str], "NDArray[np.uint8] | str"]
"""Reads a few small frames [n, H, W, 3] of the video at a path, or returns in a few words why it cannot."""

_TALL = 40  # a table with more rows scrolls in its own box; on paper it is complete
_MAX_STRIP_BYTES = 3_000_000  # of all film strips of a page, as base64
_MAX_STRIP_PIXELS = 6 * 160 * 320  # of one film strip
_GAP = 3  # white pixels between frames


def render_html(document: Document, read_frames: FrameReader | None = None) -> str:
    """Return a document as one HTML page without outside resources.

    Args:
        document: The document.
        read_frames: Reads the frames of film strips; None leaves the frames out.
    """
    sections = [
        (re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-"), escape(section.title), body)
        for section in document.sections
        if (body := _nodes(section.parts, read_frames))
    ]
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title, _ in sections)
    parts = "\n".join(
        f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{title}</h2>\n{body}\n</section>'
        for anchor, title, body in sections
    )
    # The policy forbids the browser to load anything from outside this file.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(document.title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(document.title)}</h1>
{_nodes(document.lead, read_frames)}
</header>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{parts}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _nodes(nodes: Iterable[Node], read_frames: FrameReader | None) -> str:
    return "\n".join(_node(node, read_frames) for node in nodes)


def _node(node: Node, read_frames: FrameReader | None) -> str:
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
            return _film_strips(node, read_frames)
        case SideBySide(parts):
            return f'<div class="row">{_nodes(parts, read_frames)}</div>'


def _table(table: Table) -> str:
    sides = ["" if kind in "lc" else ' class="r"' for kind in table.kinds]
    heads = "".join(
        f'<th scope="col" aria-sort="none"{side}><button type="button">{escape(name)}</button></th>'
        if table.sortable
        else f'<th scope="col"{side}>{escape(name)}</th>'
        for name, side in zip(table.header, sides, strict=True)
    )
    rows = []
    for row in table.rows:
        cells = []
        for column, ((text, sort), kind) in enumerate(zip(table.cells(row), table.kinds, strict=True)):
            tag = "td" if column else 'th scope="row"'
            key = f' data-sort="{sort}"' if table.sortable and sort is not None and str(sort) != text else ""
            cells.append(f"<{tag}{sides[column]}{key}>{_cell(text, kind)}</{tag[:2]}>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    caption, body = escape(table.caption), "\n".join(rows)
    box = "scroll tall" if len(rows) > _TALL else "scroll"
    css, how = (
        (' class="sortable"', ". Click a heading to sort; click again to reverse.") if table.sortable else ("", "")
    )
    return (
        f'<div class="{box}" tabindex="0" role="region" aria-label="{caption}"><table{css}>\n'
        f"<caption>{caption}{how}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(text: str, kind: str) -> str:
    return f"<code>{escape(text)}</code>" if kind == "c" and text else escape(text)


def _film_strips(node: FilmStrips, read_frames: FrameReader | None) -> str:
    parts, bytes_left = [f'<p class="note">{escape(node.table.caption)}.</p>'], _MAX_STRIP_BYTES
    for number, (row, path) in enumerate(zip(node.table.rows, node.paths, strict=True), start=1):
        video, *facts = (text for text, _ in node.table.cells(row))
        names = node.table.header[1:]
        shown = ", ".join(f"{escape(name)} <b>{escape(fact)}</b>" for name, fact in zip(names, facts, strict=True))
        strip = ""
        if read_frames is not None:
            frames = read_frames(path) if bytes_left > 0 else "left out, to keep this file small"
            image = film_strip(frames, f"Frames of {video}")
            bytes_left -= len(image)
            strip = f'<figure><div class="scroll">{image}</div></figure>'
        parts.append(f'<div class="strip"><p>{number}. {shown}<br><code>{escape(video)}</code></p>{strip}</div>')
    return "\n".join(parts)


def film_strip(frames: NDArray[np.uint8] | str, alt: str) -> str:
    """Return frames side by side as an `<img>`, or a box with the reason why there are none.

    Args:
        frames: Frames [n, H, W, 3], or the reason.
        alt: What the image shows.
    """
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


STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --page: #ffffff; --soft: #5a6068; --grid: #d4d8dd; --band: #f3f5f7;
  --link: #1f5fae; --warn: #8a4b00; --warn-band: #fff4e2; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8ea; --page: #16181b; --soft: #a7adb5; --grid: #3a3f46;
  --band: #1f2328; --link: #8ab8f0; --warn: #ffc772; --warn-band: #33270f; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 62rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
code { font: .88em/1.4 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; overflow-wrap: anywhere; }
.note, figcaption, caption { color: var(--soft); font-size: .88rem; }
.warning { color: var(--warn); background: var(--warn-band); padding: .5rem .8rem; border-radius: .4rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; padding: 0; margin: 1rem 0 0; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.tile { background: var(--band); border-radius: .5rem; padding: .6rem 1rem; flex: 1 1 9rem; }
.tile b { display: block; font-size: 1.9rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { display: block; color: var(--soft); font-size: .88rem; }
.scroll { overflow-x: auto; max-width: 100%; }
.tall { max-height: min(40rem, 75vh); overflow-y: auto; }
.tall table { margin-top: 0; } .tall thead th { position: sticky; top: 0; background: var(--page); }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
caption { text-align: left; padding: 0 0 .3rem; max-width: calc(100vw - 2rem); position: sticky; left: 0; }
th, td { padding: .28rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { padding-left: .2rem; }
tbody th { min-width: 7rem; } td:last-child:not(.r) { min-width: 12rem; }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--grid); white-space: nowrap; }
tbody th { font-weight: 500; }
.r { text-align: right; white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); }
th button::after { content: "\\2195"; opacity: .45; padding-left: .25em; }
th[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
figure { margin: 1rem 0; max-width: 100%; min-width: 0; }
figure svg { display: block; max-width: 100%; height: auto; overflow: visible; color: var(--text); }
figure svg text { font-family: inherit !important; }
figure img { display: block; max-width: 100%; height: auto; border-radius: .25rem; }
.no-frames { display: inline-block; background: var(--band); color: var(--soft); border: 1px dashed var(--grid);
  border-radius: .25rem; padding: 1.2rem 1.6rem; font-size: .88rem; }
.strip { margin: 1rem 0 1.4rem; break-inside: avoid; }
.strip p { margin: 0 0 .3rem; max-width: none; } .strip figure { margin: 0; }
.row figcaption { max-width: 27rem; }
.row { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
@media print { :root { --text: #000; --page: #fff; --soft: #444; --grid: #bbb; --band: #f3f3f3; --link: #000;
  --warn: #000; --warn-band: #eee; color-scheme: light; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  nav, th button::after { display: none; }
  figure, tr, .tile { break-inside: avoid; } h2, h3, caption { break-after: avoid; }
  thead { display: table-header-group; } .scroll { overflow: visible; } .tall { max-height: none; }
  table { font-size: 8.5pt; } th, td { padding: .15rem .35rem; } thead th { white-space: normal; }
  tbody th, td:last-child:not(.r) { min-width: 0; }
  td, tbody th { overflow-wrap: anywhere; } figure svg, figure img { min-width: 0 !important; } }
"""

SCRIPT = """
"use strict";
(function () {
  function value(row, column) {
    const cell = row.cells[column];
    const text = cell.hasAttribute("data-sort") ? cell.getAttribute("data-sort") : cell.textContent.trim();
    return { row: row, text: text, empty: text === "", number: text === "" ? NaN : Number(text) };
  }
  function compare(a, b) {
    if (!isNaN(a.number) && !isNaN(b.number)) { return a.number - b.number; }
    return a.text.localeCompare(b.text, undefined, { numeric: true, sensitivity: "base" });
  }
  function sort(table, head) {
    const body = table.tBodies[0], rows = Array.from(body.rows, row => value(row, head.cellIndex));
    const before = head.getAttribute("aria-sort");
    const down = before === "none" ? rows.some(r => !isNaN(r.number)) : before === "ascending";
    rows.sort((a, b) => a.empty !== b.empty ? (a.empty ? 1 : -1) : (down ? -1 : 1) * compare(a, b));
    body.append(...rows.map(r => r.row));
    for (const cell of head.parentNode.cells) {
      cell.setAttribute("aria-sort", cell !== head ? "none" : down ? "descending" : "ascending");
    }
  }
  for (const head of document.querySelectorAll("table.sortable thead th")) {
    head.querySelector("button").addEventListener("click", () => sort(head.closest("table"), head));
  }
})();
"""
