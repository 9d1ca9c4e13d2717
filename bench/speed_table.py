"""What `leanrec speed` prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.speed import Peer, SpeedRow

COLOURS = {"holds": "green", "fails": "red", "unclear": "yellow", "": ""}


def summary(rows: Sequence[SpeedRow]) -> list[dict[str, Any]]:
    """The rows as JSON."""
    return [{**dataclasses.asdict(row), "verdict": row.verdict} for row in rows]


def show_speed(rows: Sequence[SpeedRow], console: Console) -> None:
    """The rows as a table. Ratios stand with their 95 % intervals."""
    table = Table("Work", "Ours", "Bare", "Ours ÷ bare", "Peer", "Ours ÷ peer", "Goal", "")
    for row in rows:
        goal, peer = row.goal, row.peer
        of = {"ratio": "× bare", "ours": row.measure, "peer": f"× {peer.name if peer else 'peer'}"}
        table.add_row(
            row.work,
            f"{_number(row.ours)} {row.measure}",
            "" if row.bare is None else _number(row.bare),
            _ratio(row),
            _peer(peer),
            "" if peer is None else _ratio(peer),
            "" if goal is None else f"{goal.sense} {_number(goal.limit)} {of[goal.of]}",
            f"[{COLOURS[row.verdict]}]{row.verdict}[/]" if row.verdict else "",
        )
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.work}: {row.note}", markup=False, highlight=False)


def _ratio(of: SpeedRow | Peer) -> str:
    if of.ratio is None:
        return ""
    if of.interval is None:
        return f"{of.ratio:.3g}"
    return f"{of.ratio:.3g} ({of.interval[0]:.3g} to {of.interval[1]:.3g})"


def _peer(peer: Peer | None) -> str:
    if peer is None:
        return ""
    if peer.value is None:
        return f"{peer.name} not measured"
    return f"{peer.name} {_number(peer.value)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
