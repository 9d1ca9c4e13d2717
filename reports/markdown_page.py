"""A report as Markdown, with its figures as files beside it."""

from __future__ import annotations

import re

import pandas as pd

from reports.pages import Block, Heading, Items, Picture, Report, Table, Text

_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$#!])")


def page(report: Report, folder: str) -> tuple[str, dict[str, str]]:
    """The text, and the figures it names: file name in `folder` → SVG."""
    pictures: dict[str, str] = {}
    parts = [f"# {plain(report.title)}"]
    for section in report.sections:
        parts.append(f"## {plain(section.title)}")
        parts += [_block(item, folder, pictures) for item in section.blocks]
    return "\n\n".join(parts) + "\n", pictures


def plain(text: str) -> str:
    """`text` as Markdown that reads as itself: no mark-up, no HTML, one line."""
    inert = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", " ".join(inert.split()))


def table(frame: pd.DataFrame) -> str:
    """A frame of text as a Markdown table."""
    lines = [
        _row([plain(str(name)) for name in frame.columns]),
        _row(["---"] * len(frame.columns)),
    ]
    for row in frame.itertuples(index=False, name=None):
        lines.append(_row(["<br>".join(map(plain, str(value).split("\n"))) for value in row]))
    return "\n".join(lines)


def _block(item: Block, folder: str, pictures: dict[str, str]) -> str:
    match item:
        case Text(text):
            return plain(text)
        case Heading(text):
            return f"### {plain(text)}"
        case Items(items):
            return "\n".join(
                f"- **{plain(lead)}** – {plain(text)}" if lead else f"- {plain(text)}"
                for lead, text in items
            )
        case Table(frame):
            return table(frame)
        case Picture(_, alternative):
            name = f"figure-{len(pictures) + 1}.svg"
            pictures[name] = item.svg
            return f"![{plain(alternative)}]({folder}/{name})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
