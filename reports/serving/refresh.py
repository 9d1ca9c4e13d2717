"""The `refresh` scenario: quality along the stream, and what swaps cost while serving."""

from __future__ import annotations

from functools import partial

from bench.records import ARMS
from bench.run import Run
from reports.curves import Line, Panel, draw
from reports.pages import Block, Heading, Picture, Table, Text
from reports.serving.seen import Curves, by_place, curves, every, joined, table
from reports.tables import stack_label

SCENARIO = "refresh"
_READING = (
    "Quality is of windows of the stream, each answered before it is learned from; frozen is the "
    "control, the oracle swaps after every batch. Latency and staleness are of a load in real "
    "time. The middle of the processes; bars from the least to the most of them."
)


def blocks(run: Run) -> tuple[Block, ...]:
    """A figure and a table for each baseline, device and stack."""
    found: list[Block] = [Text(_READING)]
    for place, effects in by_place(run, SCENARIO).items():
        found.append(Heading(" on ".join(place)))
        for stack in dict.fromkeys(e.stack for e in effects):
            seen = curves(run, SCENARIO, place, stack)
            panels = _panels(seen)
            if panels:
                told = f"Quality, latency and staleness over time: {stack} on {place[0]}."
                title = stack_label(stack)
                found.append(Picture(partial(draw, panels, 3, title), told))
        found.append(Table(table(effects)))
    return tuple(found) if len(found) > 1 else ()


def _panels(seen: Curves) -> list[Panel]:
    latency = _lines(seen, "worst_latency", 1e3)
    during = [rows for (m, name), rows in seen.items() if m == "worst_latency" and name not in ARMS]
    if during:
        rows = [row for group in during for row in group]
        latency.append(Line("worst during a swap", 2, every(rows, 1e3), "points"))
    quality = [key for key in seen if key[0] not in ("worst_latency", "staleness")]
    panels = []
    if quality:
        row = seen[quality[0]][0]
        lines = tuple(Line(k[1], n, joined(seen[k])) for n, k in enumerate(quality))
        panels.append(Panel("Quality", lines, row.along, row.metric.name))
    if latency:
        panels += [
            Panel("Worst latency", tuple(latency), "seconds of the load", "ms", "log"),
            Panel("Staleness", tuple(_lines(seen, "staleness", 1.0)), "seconds of the load",
                  "events not learned yet"),
        ]  # fmt: skip
    return panels


def _lines(seen: Curves, metric: str, scale: float) -> list[Line]:
    return [
        Line(arm, place, joined(seen[metric, arm], scale))
        for place, arm in enumerate(ARMS)
        if (metric, arm) in seen
    ]
