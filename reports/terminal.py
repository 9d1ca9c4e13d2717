"""A run on the terminal: what `leanrec show` prints."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.run import Run
from reports import tables
from reports.answer import answers, sanity, state

_SHOWN = (
    "Baseline", "Stack", "Scenario", "Metric", "Point", "Control", "Treatment",
    "Effect [interval]", "Verdict",
)  # fmt: skip


def show(run: Run, console: Console) -> None:
    """Print warnings, the answer, the verdict matrix and the effects."""
    for line in run.warnings:
        console.print(Text(f"warning: {line}", style="yellow"))
    console.print(Text(f"{state(run)} {sanity(run)}"))
    for answer in answers(run):
        console.print(Text(f"{answer.baseline} × {answer.stack}", style="bold"), end=": ")
        console.print(Text(f"{answer.outcome}. {answer.sentence}"))
    console.print(_table(tables.verdict_matrix(run), "Verdicts"))
    effects = tables.effects_table(run)
    if not effects.empty:
        console.print(_table(effects[list(_SHOWN)], "Effects"))
    skipped = tables.skipped_table(run)
    if not skipped.empty:
        console.print(_table(skipped, "Skipped"))


def show_json(run: Run) -> list[dict[str, Any]]:
    """One object for each cell, metric, point and segment; what is not finite is None."""
    return tables.records(run)


def _table(frame: pd.DataFrame, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in frame.columns:
        table.add_column(Text(str(name)), overflow="fold")
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*(Text(str(value)) for value in row))
    return table
