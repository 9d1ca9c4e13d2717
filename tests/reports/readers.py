"""Reads a report's tables back, so that what a reader sees can be held against the numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

_ESCAPED = re.compile(r"\\(.)")
_CELLS = re.compile(r"(?<!\\)\|")


@dataclass
class ReadTable:
    """A table with the heading above it."""

    heading: str
    rows: list[dict[str, str]]


@dataclass
class _Reader(HTMLParser):
    heading: str = ""
    tables: list[tuple[str, list[list[str]]]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)
    _into: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag in ("h2", "h3"):
            self.heading, self._into = "", "heading"
        elif tag == "table":
            self.tables.append((self.heading, []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append("")
            self._into = "cell"
        elif tag == "br" and self._into == "cell":
            self.tables[-1][1][-1][-1] += "\n"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h2", "h3", "td", "th"):
            self._into = ""

    def handle_data(self, data: str) -> None:
        if self._into == "heading":
            self.heading += data
        elif self._into == "cell":
            self.tables[-1][1][-1][-1] += data


def read_html(text: str) -> list[ReadTable]:
    """The tables of an HTML report."""
    reader = _Reader()
    reader.feed(text)
    return [_table(heading, rows) for heading, rows in reader.tables]


def html_parts(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Every tag and every attribute of an HTML document."""
    reader = _Reader()
    reader.feed(text)
    return reader.tags, reader.attributes


def read_markdown(text: str) -> list[ReadTable]:
    """The tables of a Markdown report."""
    tables: list[tuple[str, list[list[str]]]] = []
    heading, inside = "", False
    for line in text.splitlines():
        if line.startswith("#"):
            heading = _plain(line.lstrip("# "))
        is_row = line.startswith("| ")
        if is_row and not inside:
            tables.append((heading, []))
        inside = is_row
        if is_row and not line.startswith("| ---"):
            cells = _CELLS.split(line)[1:-1]
            tables[-1][1].append([_plain(c.strip().replace("<br>", "\n")) for c in cells])
    return [_table(heading, rows) for heading, rows in tables]


def _plain(text: str) -> str:
    text = _ESCAPED.sub(r"\1", text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _table(heading: str, rows: list[list[str]]) -> ReadTable:
    return ReadTable(heading, [dict(zip(rows[0], row, strict=True)) for row in rows[1:]])
