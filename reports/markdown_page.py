"""A report as Markdown, with its figures as files beside it."""

from __future__ import annotations

import re
from itertools import takewhile

import pandas as pd

from reports.pages import Block, Heading, Items, Picture, Report, Section, Table, Text

LONGEST = 65_536  # characters that a comment on GitHub may have
_LEFT_OUT = "Left out here, to fit into a comment; the report in HTML or PDF has it."
_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$#!])")


def page(report: Report, folder: str) -> tuple[str, dict[str, str]]:
    """The text, and the figures it names: file name in `folder` → SVG.

    It is at most LONGEST characters long: of the last sections that would make it longer, only the
    text that they open with is given, and that they are left out.
    """
    title = f"# {plain(report.title)}"
    written = [_openings(section) for section in report.sections]
    room = LONGEST - len("\n\n".join([title, *written])) - 1
    kept: dict[str, Picture] = {}
    for place, section in enumerate(report.sections):
        pictures = dict(kept)
        blocks = [_block(item, folder, pictures) for item in section.blocks]
        whole = "\n\n".join([f"## {plain(section.title)}", *blocks])
        more = len(whole) - len(written[place])
        if more <= room:
            written[place], kept, room = whole, pictures, room - more
    return "\n\n".join([title, *written]) + "\n", {name: p.svg for name, p in kept.items()}


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


def _openings(section: Section) -> str:
    """The text that a section opens with, and that the rest is left out."""
    texts = takewhile(lambda block: isinstance(block, Text), section.blocks)
    opening = [plain(block.text) for block in texts if isinstance(block, Text)]
    return "\n\n".join([f"## {plain(section.title)}", *opening, _LEFT_OUT])


def _block(item: Block, folder: str, pictures: dict[str, Picture]) -> str:
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
            pictures[name] = item
            return f"![{plain(alternative)}]({folder}/{name})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
