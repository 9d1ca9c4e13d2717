"""A report as one HTML file that needs nothing beside it: styles inside, figures as data URIs."""

from __future__ import annotations

import base64
from html import escape
from importlib import resources

import pandas as pd

from reports.format import tone
from reports.pages import Block, Heading, Items, Picture, Report, Table, Text

_LONG = ' class="long"'  # a sentence takes a wide column rather than a tall row
# In an image of a dark page: light and dark change places, hues stay. Not in files of its own.
_DARK = (
    "<style>@media (prefers-color-scheme: dark)"
    "{svg{filter:invert(.91) hue-rotate(180deg)}}</style></svg>"
)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(report: Report) -> str:
    """The whole document."""
    sections = "".join(
        f"<section><h2>{escape(s.title)}</h2>{''.join(map(block, s.blocks))}</section>"
        for s in report.sections
    )
    title = escape(report.title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style('blocks.css')}{style('page.css')}</style></head>"
        f'<body class="leanrec"><main><h1>{title}</h1>{sections}</main></body></html>\n'
    )


def block(item: Block) -> str:
    """One block of a page; every text in it is escaped."""
    match item:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Heading(text):
            return f"<h3>{escape(text)}</h3>"
        case Items(items, warning):
            lines = "".join(f"<li>{_strong(lead)}{escape(text)}</li>" for lead, text in items)
            return f'<ul class="{"warnings" if warning else "items"}">{lines}</ul>'
        case Table(frame, caption, folded, hover):
            found = table(frame, hover)
            return (
                f"<details><summary>{escape(caption)}</summary>{found}</details>"
                if folded
                else found
            )
        case Picture(_, alternative):
            data = base64.b64encode(item.svg.replace("</svg>", _DARK).encode()).decode()
            alt = escape(alternative)
            return f'<img class="figure" alt="{alt}" src="data:image/svg+xml;base64,{data}">'


def table(frame: pd.DataFrame, hover: pd.DataFrame | None = None) -> str:
    """A frame of text as a table; verdicts carry a class for their colour, cells what `hover` says
    of them as their title."""
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in frame.columns)
    titles = [("",) * len(frame.columns)] * len(frame) if hover is None else _rows(hover)
    rows = "".join(
        f"<tr>{''.join(map(_cell, row, told))}</tr>"
        for row, told in zip(_rows(frame), titles, strict=True)
    )
    return (
        '<div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def style(name: str) -> str:
    """A style sheet: ``page.css``, or ``blocks.css`` for what is inside ``.leanrec``."""
    return resources.files("reports").joinpath(name).read_text(encoding="utf-8")


def _rows(frame: pd.DataFrame) -> list[tuple[object, ...]]:
    return list(frame.itertuples(index=False, name=None))


def _cell(value: object, title: object) -> str:
    lines = []
    for line in str(value).split("\n"):
        look, text = tone(line), escape(line)
        lines.append(f'<span class="{look}">{text}</span>' if look else text)
    longest = max(map(len, str(value).split("\n")))
    look = _LONG if longest > 60 else ""
    if title:
        look += f' title="{escape(str(title))}"'
    return f"<td{look}>{'<br>'.join(lines)}</td>"


def _strong(lead: str) -> str:
    return f"<strong>{escape(lead)}</strong> – " if lead else ""
