"""A view in parts: nothing is lost, nothing is out of order, no part is too large."""

from __future__ import annotations

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from dashboard.parts import FRAME, MARKS, ROWS, Piece, parts
from reports.pages import Block, Heading, Items, Picture, Section, Table, Text


def table(rows: int, folded: bool = False) -> Table:
    frame = pd.DataFrame({"Row": range(rows)})
    return Table(frame, "caption", folded, None if folded else frame * 10)


BLOCKS = st.one_of(
    st.builds(Text, st.text(max_size=3)),
    st.builds(Heading, st.text(min_size=1, max_size=3)),
    st.builds(table, st.integers(0, 3 * ROWS)),
    st.builds(table, st.integers(0, 3 * ROWS), st.just(True)),
    st.builds(lambda n: Items(tuple(("", str(i)) for i in range(n))), st.integers(0, 2 * ROWS)),
    st.builds(lambda n: Picture(Figure, "a picture", n), st.integers(0, 2 * MARKS)),
)


def rows(block: Block) -> int:
    match block:
        case Table(_, _, True):
            return 0
        case Table(frame):
            return len(frame)
        case Items(items):
            return len(items)
    return 0


def contents(pieces: list[Piece]) -> list[object]:
    """Every row of every block, in order."""
    found: list[object] = []
    for piece in pieces:
        match piece.block:
            case Table(frame, _, _, hover):
                found += list(frame["Row"])
                assert hover is None or list(hover["Row"]) == [10 * n for n in frame["Row"]]
            case Items(items):
                found += items
            case other:
                found.append(other)
    return found


@given(st.lists(st.lists(BLOCKS, max_size=8), max_size=3))
def test_all_is_there_in_order_and_no_part_is_too_large(found: list[list[Block]]) -> None:
    sections = [Section(str(n), tuple(blocks)) for n, blocks in enumerate(found)]
    made = parts("View", sections)
    pieces = [piece for part in made for piece in part]
    blocks = [b for s in sections for b in s.blocks if not isinstance(b, Heading)]
    whole = [Piece("", "", block, block, "") for block in blocks]
    assert contents(pieces) == contents(whole)
    assert len(made) >= 1
    for part in made:
        drawn = [p.block.marks + FRAME for p in part if isinstance(p.block, Picture)]
        assert len(drawn) <= 1 or sum(drawn) <= MARKS
        assert sum(rows(piece.block) for piece in part) <= ROWS


def test_a_heading_stands_over_what_follows_it_in_every_part() -> None:
    blocks = (Heading("first"), table(10), Heading("second"), table(2 * ROWS))
    made = parts("View", [Section("Title", blocks)])
    assert [[piece.heading for piece in part] for part in made] == [
        ["first"],
        ["second"],
        ["second"],
    ]
    assert [piece.note for part in made for piece in part] == [
        "",
        "1 to 200 of 400",
        "201 to 400 of 400",
    ]
    assert [contents([Piece("", "", part[0].whole, part[0].whole, "")]) for part in made[1:]] == [
        list(range(2 * ROWS))
    ] * 2
    assert {part[0].name for part in made[1:]} == {"View 1.4"}
