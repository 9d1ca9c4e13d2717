"""A view in parts, so that a browser is never given thousands of rows or dozens of figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from reports.pages import Block, Heading, Items, Picture, Section, Table

MARKS = 100  # drawn by the pictures in a part; a picture alone may hold more
FRAME = 20  # marks that axes and titles take as long to draw as
ROWS = 200  # of tables and lists in a part


@dataclass(frozen=True)
class Piece:
    """A block as a part shows it: all of `whole`, or some rows of it, which `note` then names.

    title: of its section; heading: the last one above it, or ""; name: of a file made of it.
    """

    title: str
    heading: str
    block: Block
    whole: Block
    name: str
    note: str = ""


def parts(view: str, sections: Iterable[Section]) -> tuple[tuple[Piece, ...], ...]:
    """The blocks of a view in their order, cut so that no part holds too much; at least one part.

    Headings are told by their pieces, so that each stands over what follows it in every part.
    """
    done: list[tuple[Piece, ...]] = []
    current: list[Piece] = []
    marks = rows = 0
    for piece in _pieces(view, sections):
        marks, rows = marks + _marks(piece.block), rows + _rows(piece.block)
        if current and (marks > MARKS or rows > ROWS):
            done.append(tuple(current))
            current, marks, rows = [], _marks(piece.block), _rows(piece.block)
        current.append(piece)
    return (*done, tuple(current))


def _pieces(view: str, sections: Iterable[Section]) -> Iterator[Piece]:
    for number, section in enumerate(sections, 1):
        heading = ""
        for place, block in enumerate(section.blocks, 1):
            if isinstance(block, Heading):
                heading = block.text
                continue
            for shown, note in _cut(block):
                yield Piece(section.title, heading, shown, block, f"{view} {number}.{place}", note)


def _cut(block: Block) -> Iterator[tuple[Block, str]]:
    """`block` in pieces of at most `ROWS` rows, each with which rows it holds; whole with ""."""
    rows = _rows(block)
    if rows <= ROWS:
        yield block, ""
        return
    for start in range(0, rows, ROWS):
        end = min(start + ROWS, rows)
        note = f"{start + 1:,} to {end:,} of {rows:,}"
        match block:
            case Table(frame, caption, folded, hover):
                some = None if hover is None else hover.iloc[start:end]
                yield Table(frame.iloc[start:end], caption, folded, some), note
            case Items(items, warning):
                yield Items(items[start:end], warning), note


def _rows(block: Block) -> int:
    """Rows that are drawn: a folded table scrolls in a frame of its own."""
    match block:
        case Table(_, _, True):
            return 0
        case Table(frame):
            return len(frame)
        case Items(items):
            return len(items)
    return 0


def _marks(block: Block) -> int:
    return FRAME + block.marks if isinstance(block, Picture) else 0
