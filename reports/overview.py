"""A run at a glance: marks of what each stack did to each baseline, and the numbers behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from bench.effects import Effect
from bench.run import Run
from bench.series import failed_cells
from reports import format as fmt
from reports import provenance
from reports.tables import (
    Column,
    columns_of,
    headline,
    planned_cells,
    points,
    size,
    stack_label,
    state_of,
)

DETAILS = ("Training memory", "Time to quality", "Time to quality on ranks")  # not at a glance
MARKS = {
    "faster": "▲", "smaller": "▲", "better": "▲", "slower": "▼", "larger": "▼", "inferior": "▼",
    "equivalent": "=", "non-inferior": "=", "inconclusive": "?", "failed": "✕",
}  # fmt: skip
MEANINGS = (
    "▲ better than the control, ▼ worse, = equal within the margin (quality: not inferior), "
    "? inconclusive, ✕ failed, … in progress. Where a metric was measured at several points, the "
    "largest effect of each kind."
)
GLANCE = (
    f"{MEANINGS} 3× beside ▲ is three times better, beside ▼ three times worse; beside ? the "
    "estimate, less than 1 being worse. Of quality: the difference."
)
_ABSENT = {"failed": "✕", "in progress": "…"}


@dataclass(frozen=True)
class Overview:
    """Two frames of one shape, a row for each stack, a column for each baseline: marks of what it
    did, and the exact effects."""

    marks: pd.DataFrame
    exact: pd.DataFrame


def overview(run: Run) -> Overview:
    """The whole matrix of a run."""
    columns, planned = _columns(run), planned_cells(run)
    devices = {device for _, _, device in planned}
    failed = failed_cells(run.trials)
    marks: dict[str, dict[str, str]] = {}
    exact: dict[str, dict[str, str]] = {}
    for (baseline, stack, device), cells in planned.items():
        own = run.effects_of_stacks.get((baseline, stack, device), [])
        states = {c.title: state_of(run, cells.get(c.scenario), failed) for c in columns}
        row, column = stack_label(stack), baseline
        if len(devices) > 1:
            column = f"{baseline} on {device}"
        shown, told = _cell(own, columns, states)
        reasons = dict.fromkeys(p.skip for p in cells.values() if p.skip)
        marks.setdefault(row, {})[column] = shown
        exact.setdefault(row, {})[column] = "\n".join([*told, *(f"skipped: {r}" for r in reasons)])
    return Overview(_frame(marks), _frame(exact))


def glances(run: Run) -> dict[tuple[str, str], pd.DataFrame]:
    """Baseline and device → a row for each stack that is not skipped throughout, a column for each
    thing that it may change, marks with their sizes."""
    columns, failed = _columns(run), failed_cells(run.trials)
    rows: dict[tuple[str, str], list[dict[str, str]]] = {}
    for (baseline, stack, device), cells in planned_cells(run).items():
        if all(p.skip for p in cells.values()):
            continue
        own = run.effects_of_stacks.get((baseline, stack, device), [])
        row = {"Stack": stack_label(stack)}
        for column in columns:
            state = state_of(run, cells.get(column.scenario), failed)
            row[column.title] = _sizes(headline(own, column)) or _ABSENT.get(state, "–")
        rows.setdefault((baseline, device), []).append(row)
    found = {key: pd.DataFrame(own) for key, own in rows.items()}
    return {key: frame.loc[:, (frame != "–").any()] for key, frame in found.items()}


def foundations(run: Run) -> list[tuple[str, str]]:
    """What the numbers rest on, in brief: machine, protocol, certificate."""
    machine = run.environment.get("machine") or {}
    software = run.environment.get("software") or {}
    told = [
        str(machine.get("cpu") or "a machine that is not recorded"),
        f"{machine['cores']} cores" if machine.get("cores") else "",
        f"torch {software['torch']}" if software.get("torch") else "",
        str(software.get("python") or ""),
    ]
    protocol = run.plan.protocol
    counted = fmt.words([str(n) for n in protocol.looks])
    method = (
        f"{counted} processes a comparison, {protocol.pairs} pairs of blocks in each; "
        f"{fmt.percent(1 - protocol.alpha)} intervals, margin ±{fmt.percent(protocol.margin)} for "
        f"speed and size, {protocol.quality_margin} for quality"
    )
    return [
        ("Measured on", ", ".join(filter(None, told))),
        ("Protocol", method),
        ("Certificate", provenance.certificate_in_brief(run)),
    ]


def _columns(run: Run) -> list[Column]:
    return [c for c in columns_of(run) if c.title not in DETAILS]


def _cell(
    own: list[Effect], columns: Iterable[Column], states: dict[str, str]
) -> tuple[str, list[str]]:
    """The lines of a cell, and the effects that they stand for."""
    lines, told = [], []
    for column in columns:
        effects = headline(own, column)
        if not effects and (mark := _ABSENT.get(states[column.title])):
            lines.append(f"{mark} {column.title}")
        for e in effects:
            told.append(f"{column.title}{f' ({e.point})' if e.point else ''}: {_exact(e)}")
        for mark, group in _by_mark(effects).items():
            lines.append(f"{mark} {column.title} {_most(group)}".rstrip())
    if not lines:
        lines = [f"– {next((s for s in states.values() if s != '–'), 'not planned')}"]
    return "\n".join(lines), told


def _sizes(effects: list[Effect]) -> str:
    """A line for each mark: the largest effect, what is undecided as times better, and its points
    where they do not all have the same mark."""
    groups = _by_mark(effects)
    lines = []
    for mark, group in groups.items():
        e = max(group, key=size)
        text = _most(group)
        if mark == "?" and e.scale == "ratio" and math.isfinite(e.gain[0]):
            text = f"{fmt.ratio(e.gain[0])}×"
        where = f"({points(group)})" if len(groups) > 1 else ""
        lines.append(" ".join(filter(None, (mark, text if mark != "=" else "", where))))
    return "\n".join(lines)


def _by_mark(effects: list[Effect]) -> dict[str, list[Effect]]:
    groups: dict[str, list[Effect]] = {}
    for e in effects:
        groups.setdefault(MARKS[e.verdict], []).append(e)
    return groups


def _most(effects: list[Effect]) -> str:
    """The largest of effects with the same mark; "" where the mark says all."""
    e = max(effects, key=size)
    if not math.isfinite(e.effect):
        return ""
    if e.scale == "difference":
        return fmt.difference(e.effect)
    return f"{fmt.ratio(size(e))}×" if MARKS[e.verdict] in "▲▼" else ""


def _exact(e: Effect) -> str:
    values = f"{fmt.quantity(e.control, e.unit)} → {fmt.quantity(e.treatment, e.unit)}"
    return f"{e.verdict}, {fmt.effect(e)}; {values}"


def _frame(rows: dict[str, dict[str, str]]) -> pd.DataFrame:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [{"Stack": stack} | {c: row.get(c, "") for c in columns} for stack, row in rows.items()]
    return pd.DataFrame(cells, columns=["Stack", *columns])
