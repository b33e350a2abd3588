"""Self-contained HTML pages: one file without any outside resource, for screens of every width, light, dark, and paper.

Text is escaped wherever it is given as `str`; what is markup already is `Html`. Standard library only.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NewType

from dnl_video.report.page_style import SCRIPT, STYLE

_TALL = 40  # rows from which a table scrolls in a box of its own; on paper it is whole

Html = NewType("Html", str)
"""Finished markup. A `NewType` cannot be told from `str` at run time: functions say which of the two they take."""


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Args:
        text: What it shows; escaped.
        sort: What sorting goes by; None is the text, and an empty text always comes last.
        markup: Shown instead of `text`.
    """

    text: str = ""
    sort: float | str | None = None
    markup: Html | None = None


@dataclass(frozen=True)
class Section:
    """A titled part of a page.

    Args:
        title: Its heading; also gives its anchor.
        body: Its markup.
    """

    title: str
    body: Html


def page(title: str, sections: Sequence[Section], lead: Html = Html("")) -> str:
    """Return a whole HTML document.

    Args:
        title: Title of the document and its first heading.
        sections: The parts, listed as links below the lead.
        lead: Markup between heading and contents: what the page says, in short.
    """
    anchors = [re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") for section in sections]
    links = "".join(f'<li><a href="#{a}">{escape(s.title)}</a></li>' for a, s in zip(anchors, sections, strict=True))
    parts = "\n".join(
        f'<section aria-labelledby="{a}">\n<h2 id="{a}">{escape(s.title)}</h2>\n{s.body}\n</section>'
        for a, s in zip(anchors, sections, strict=True)
    )
    # The policy forbids the browser to fetch anything: the page is what is in this file.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{lead}
</header>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{parts}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def escape(text: str) -> Html:
    """Return text as markup that shows it."""
    return Html(html.escape(text, quote=True))


def paragraph(text: str, css_class: str = "") -> Html:
    """Return a paragraph of escaped text; `css_class` may be "headline", "note" or "warning"."""
    return Html(f'<p class="{css_class}">{escape(text)}</p>' if css_class else f"<p>{escape(text)}</p>")


def tiles(items: Iterable[tuple[str, str, str]]) -> Html:
    """Return the page's main figures in large type, as (name, value, what is under it)."""
    each = (
        f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b><span>{escape(below)}</span></div>'
        for name, value, below in items
    )
    return Html(f'<div class="tiles">{"".join(each)}</div>')


def facts(items: dict[str, str]) -> Html:
    """Return names and values as a list of definitions."""
    return Html("<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items.items()) + "</dl>")


def join(parts: Iterable[Html]) -> Html:
    """Return pieces of markup one after another."""
    return Html("\n".join(part for part in parts if part))


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str | Cell]],
    align: str,
    *,
    caption: str,
    sortable: bool = False,
    head_column: bool = True,
) -> Html:
    """Return a table that scrolls by itself when it is wider than the page.

    Args:
        header: Names of the columns.
        rows: Their cells; a `str` is text to escape.
        align: l or r for each column.
        caption: What the table holds.
        sortable: Sort by a column when its heading is pressed; numbers from high to low first.
        head_column: The first cell names its row.
    """
    sides = [' class="r"' if side == "r" else "" for side in align]
    heads = [
        f'<th scope="col" aria-sort="none"{side}><button type="button">{escape(name)}</button></th>'
        if sortable
        else f'<th scope="col"{side}>{escape(name)}</th>'
        for name, side in zip(header, sides, strict=True)
    ]
    lines = []
    for row in rows:
        cells = []
        for column, (given, side) in enumerate(zip(row, sides, strict=True)):
            cell = given if isinstance(given, Cell) else Cell(given)
            tag = 'th scope="row"' if head_column and column == 0 else "td"
            sort = "" if cell.sort is None else f' data-sort="{escape(str(cell.sort))}"'
            shown = escape(cell.text) if cell.markup is None else cell.markup
            cells.append(f"<{tag}{side}{sort}>{shown}</{tag[:2]}>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    kind = ' class="sortable"' if sortable else ""
    scroll = "scroll tall" if len(lines) > _TALL else "scroll"
    return Html(
        f'<div class="{scroll}" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table{kind}>\n<caption>{escape(caption)}</caption>\n"
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
    )


def figure(content: Html, caption: str) -> Html:
    """Return a figure, an `<svg>` or `<img>`, with its caption; it scrolls by itself when wider than the page."""
    return Html(f'<figure><div class="scroll">{content}</div>\n<figcaption>{escape(caption)}</figcaption></figure>')


def image(uri: str, alt: str, width: int, height: int, *, min_width: int = 0) -> Html:
    """Return an `<img>` of a data URI; below `min_width` CSS pixels it scrolls instead of shrinking."""
    shape = f' style="min-width:{min(min_width, width)}px"' if min_width else ""
    return Html(f'<img src="{escape(uri)}" alt="{escape(alt)}" width="{width}" height="{height}"{shape}>')


def side_by_side(parts: Iterable[Html]) -> Html:
    """Return figures beside each other where there is room."""
    return Html(f'<div class="row">{join(parts)}</div>')
