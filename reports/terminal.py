"""Runs on the terminal: what `leanrec show` and `leanrec compare` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.compare import Change
from bench.run import Run
from reports import provenance, tables
from reports.answer import answers, explanations, sanity, state
from reports.overview import GLANCE, glances

_SHOWN = ("Stack", "Metric", "Point", "Control", "Treatment", "Effect [interval]", "Verdict")


def show(run: Run, console: Console) -> None:
    """Print warnings, a glance at each baseline, the answer with its reasons and the effects."""
    for line in run.warnings:
        console.print(Text(f"warning: {line}", style="yellow"))
    console.print(Text(f"{state(run)} {sanity(run)}"))
    console.print(Text(GLANCE))
    found = answers(run)
    for (baseline, device), frame in glances(run).items():
        console.print(_table(frame, f"{baseline} on {device}"))
        for answer in (a for a in found if (a.baseline, a.device) == (baseline, device)):
            console.print(Text(f"{answer.baseline} × {answer.stack}", style="bold"), end=": ")
            console.print(Text(f"{answer.outcome}. {answer.sentence}"))
    for what, why in explanations(run):
        console.print(Text(f"{what}: {why}"))
    effects = tables.effects_table(run.effects)
    if not effects.empty:
        for cell, group in effects.groupby(["Baseline", "Scenario", "Device"], sort=False):
            console.print(_table(group[list(_SHOWN)], ", ".join(map(str, cell))))
    skipped = tables.skipped_table(run)
    if not skipped.empty:
        console.print(_table(skipped, "Skipped"))


def show_json(run: Run) -> list[dict[str, Any]]:
    """One object for each cell, metric, point and segment; what is not finite is None."""
    return tables.records(run)


def show_changes(changes: Sequence[Change], console: Console) -> None:
    """Print what changed between two runs, cells as a whole before their segments."""
    if not changes:
        console.print("Neither run has an effect to compare.")
        return
    if not changes[0].same_host:
        console.print("The runs are of different hosts: only ratios to the control compare.")
    console.print(_table(tables.changes_table(changes), "Changes from A to B"))


def show_differences(a: Run, b: Run, console: Console) -> None:
    """Print what two runs record differently of where, with what and how they were measured."""
    frame = provenance.differences_table(a, b)
    if not frame.empty:
        console.print(_table(frame, "What was different"))


def changes_json(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """One object for each change; what is not finite is None."""
    return [tables.finite(change) for change in changes]


def _table(frame: pd.DataFrame, title: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for name in frame.columns:
        table.add_column(Text(str(name)), overflow="fold")
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*(Text(str(value)) for value in row))
    return table
