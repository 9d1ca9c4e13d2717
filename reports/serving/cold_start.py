"""The `cold-start` scenario: what a restart spends its time on."""

from __future__ import annotations

from functools import partial

from bench.records import ARMS
from bench.run import Run
from reports.pages import Block, Heading, Picture, Table
from reports.serving.seen import by_place, table
from reports.serving.stacked import stacked
from reports.tables import stack_label

SCENARIO = "cold-start"
PARTS = {
    "import_time": "import",
    "load_time": "load",
    "prepare_time": "prepare",
    "first_call": "first call",
}


def blocks(run: Run) -> tuple[Block, ...]:
    """A figure and a table for each baseline and device."""
    found: list[Block] = []
    for (baseline, device), effects in by_place(run, SCENARIO).items():
        times = {(e.stack, e.metric): e for e in effects}
        rows = [
            (
                f"{stack_label(stack)}: {arm}",
                {name: getattr(times[stack, m], arm) for m, name in PARTS.items()},
            )
            for stack in dict.fromkeys(e.stack for e in effects)
            if all((stack, m) in times for m in PARTS)
            for arm in ARMS
        ]
        found.append(Heading(f"{baseline} on {device}"))
        if rows:
            found.append(
                Picture(
                    partial(stacked, rows, "seconds from the start of the process"),
                    f"What each stack's restart on {baseline} takes; the numbers are below.",
                )
            )
        shown = [e for e in effects if e.metric in ("time_to_first_answer", *PARTS)]
        found.append(Table(table(shown)))
    return tuple(found)
