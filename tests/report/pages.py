"""Renders reports, and parses HTML: checks that tags match, and gives tables, ids and attributes."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from dnl_video.report.render_html import FrameReader, render_html
from dnl_video.report.render_text import render_markdown
from dnl_video.report.report_document import report_document

_VOID = {"meta", "link", "img", "br"}


def markdown(report: dict[str, Any]) -> str:
    return render_markdown(report_document(report))


def html(report: dict[str, Any], read_frames: FrameReader | None = None) -> str:
    return render_html(report_document(report), read_frames)


class Outline(HTMLParser):
    """The content of a page; raises AssertionError if tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._caption = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "caption":
            self._caption = ""
        elif tag == "tr":
            self.tables[self._caption].append([])
        elif tag in ("td", "th"):
            self.tables[self._caption][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open[-1] == tag, f"</{tag}> within {self.open}"
        self.open.pop()
        if tag == "caption":
            self.tables[self._caption] = []

    def handle_data(self, data):
        if "style" in self.open or "script" in self.open:
            return
        self.text += data
        if "caption" in self.open:
            self._caption += data
        elif "td" in self.open or "th" in self.open:
            self.tables[self._caption][-1][-1] += data

    def all(self, tag: str, name: str) -> list[str | None]:
        """Return an attribute's values, of one kind of tag or of all tags ("*")."""
        return [attributes[name] for t, attributes in self.attributes if tag in (t, "*") and name in attributes]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each tag of a kind."""
        return [attributes for t, attributes in self.attributes if t == tag]
