"""The Markdown and terminal renderers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from dnl_video.report.document import Chart, Document, FilmStrips, Node, Table, Text, Tiles

_LONG = 50  # a Markdown table with more rows is folded


def render_markdown(document: Document) -> str:
    """Return a document as GitHub-flavoured Markdown, for a paper's appendix or a model card."""
    parts = [f"# {escape(document.title)}", *map(_markdown, document.lead)]
    for section in document.sections:
        if body := list(filter(None, map(_markdown, section.parts))):
            parts += [f"## {escape(section.title)}", *body]
    return "\n\n".join(filter(None, parts)) + "\n"


def _markdown(node: Node) -> str:
    match node:
        case Text(text, style):
            return f"> **{escape(text)}**" if style == "warning" else escape(text)
        case Tiles():
            return f"**{escape(node.sentence)}**"
        case Table():
            rows = [[_cell(*cell) for cell in zip(row, node.cells(row), node.kinds, strict=True)] for row in node.rows]
            table = markdown_table(list(map(escape, node.header)), rows, node.kinds)
            if len(rows) > _LONG:
                return f"<details><summary>{escape(node.caption)}</summary>\n\n{table}\n\n</details>"
            return f"{escape(node.caption)}:\n\n{table}"
        case Chart():
            return ""
        case FilmStrips(table):
            return _markdown(table)


def _cell(value: Any, cell: tuple[str, float | None], kind: str) -> str:
    shown = code(cell[0]) if kind == "c" else escape(cell[0])
    return f"[{shown}]({value[1]})" if kind == "a" and value[1] else shown


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], kinds: str) -> str:
    """Return a Markdown table of escaped cells; `kinds` has one letter per column as in `Table`."""
    rule = ["---" if kind in "lacs" else "---:" for kind in kinds]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def escape(text: str) -> str:
    """Return text that Markdown shows unchanged, on one line."""
    text = re.sub(r"[\\`*|~]", r"\\\g<0>", text)
    # Underscores inside words, single brackets and ampersands have no meaning, and stay readable without a backslash.
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])|(?<=\])\(|&(?=#?\w+;)", r"\\\g<0>", text)
    # Not every renderer knows a backslash before "<"; mkdocs would show the tag.
    return " ".join(text.replace("<", "&lt;").split())


def code(text: str) -> str:
    """Return text as a code span that is valid in a table."""
    text = " ".join(text.split()).replace("|", "\\|")
    return (f"`` {text} ``" if "`" in text else f"`{text}`") if text else ""
