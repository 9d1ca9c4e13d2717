"""Runs beside each other: what changed, whether it can be compared, and ratios over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from bench.compare import Change, compare, on_same_host
from bench.effects import Effect
from bench.records import CONTROL
from bench.run import Run
from reports import format as fmt
from reports import provenance, tables
from reports.curves import Panel, draw, effect_line
from reports.figures import PALETTE
from reports.pages import Block, Heading, Picture, Section, Table, Text, table_or

_ORDER = ("worse", "better", "inconclusive")
_AT_ONCE = len(PALETTE)  # stacks in a figure, so that no colour comes twice
_OTHER_HOST = "The runs are of different hosts: only ratios to the control compare."
Numbered = tuple[int, Effect]  # the place of a run among all, and what it says


def in_order(runs: Iterable[Run]) -> list[Run]:
    """By when they were started; one that does not say comes first."""
    return sorted(runs, key=lambda run: str(run.environment.get("started") or ""))


def sections(a: Run, b: Run, runs: Sequence[Run]) -> tuple[Section, ...]:
    """From run A to run B, each against its own control, and all runs in the order given."""
    return (
        Section("Changes", _changes(a, b)),
        Section(
            "What was different",
            table_or(
                provenance.differences_table(a, b),
                "Both runs record the same machine, software, protocol and specs.",
            ),
        ),
        Section("Over time", _over_time(runs)),
    )


def counted(changes: Sequence[Change]) -> pd.DataFrame:
    """How many effects are unchanged, or cannot be compared for which reason, with an example."""
    groups: dict[tuple[str, str], list[Change]] = {}
    for c in changes:
        if c.verdict not in _ORDER:
            groups.setdefault((c.verdict, c.reason), []).append(c)
    return pd.DataFrame(
        [
            {
                "Verdict": verdict,
                "Why": reason,
                "Effects": f"{len(group):,}",
                "For example": _where(group[0]),
            }
            for (verdict, reason), group in sorted(groups.items())
        ]
    )


def _changes(a: Run, b: Run) -> tuple[Block, ...]:
    changes = compare(a, b)
    told = [(sum(c.verdict == verdict for c in changes), verdict) for verdict in _ORDER]
    opening = fmt.words([f"{n:,} {verdict}" for n, verdict in told])
    changed = sorted(
        (c for c in changes if c.verdict in _ORDER), key=lambda c: _ORDER.index(c.verdict)
    )
    return (
        Text(f"From A, {a.path}, to B, {b.path}: {opening}."),
        *(() if on_same_host(a, b) else (Text(_OTHER_HOST),)),
        *table_or(tables.changes_table(changed), "Nothing changed."),
        Heading("Unchanged, or not comparable"),
        *table_or(counted(changes), "None."),
    )


def _over_time(runs: Sequence[Run]) -> tuple[Block, ...]:
    """Every headline effect in every run: a line for each stack, its ratio to its own control."""
    found: dict[str, dict[str, list[Numbered]]] = {}  # title → stack → effects
    for number, run in enumerate(runs):
        columns = tables.columns_of(run)
        for key, own in run.effects_of_stacks.items():
            for column in columns:
                for e in tables.headline(own, column):
                    if e.stack != CONTROL and e.margin and math.isfinite(e.effect):
                        title = f"{key[0]}, {column.title.lower()}, {key[2]}"
                        stacks = found.setdefault(title, {})
                        stacks.setdefault(e.stack, []).append((number, e))
    blocks: list[Block] = [Text(_HOW_TO_READ), Table(_runs_table(runs))]
    names = tuple(str(number) for number in range(1, len(runs) + 1))
    for title, measured in found.items():
        stacks = {s: own for s, own in measured.items() if len({n for n, _ in own}) > 1}
        if not stacks:
            continue
        blocks.append(Heading(title))
        every = list(stacks)
        for start in range(0, len(every), _AT_ONCE):
            shown = {stack: stacks[stack] for stack in every[start : start + _AT_ONCE]}
            drawn = sum(map(len, shown.values()))
            blocks.append(
                Picture(
                    partial(_lines, shown, names), f"{title}, run by run; numbers below.", drawn
                )
            )
        blocks.append(Table(partial(_numbers, stacks, names), f"Numbers: {title}", True))
    return tuple(blocks)


def _lines(stacks: dict[str, list[Numbered]], names: tuple[str, ...]) -> Figure:
    """A panel for each metric and point, a line for each stack."""
    groups: dict[tuple[str, str], dict[str, list[Numbered]]] = {}
    for stack, found in stacks.items():
        for number, e in found:
            lines = groups.setdefault((e.metric, e.point), {})
            lines.setdefault(stack, []).append((number, e))
    places = {stack: place for place, stack in enumerate(stacks)}
    panels = []
    for key, lines in groups.items():
        drawn = tuple(effect_line(stack, places[stack], own) for stack, own in lines.items())
        effects = [e for own in lines.values() for _, e in own]
        title, margin = ", ".join(filter(None, key)), max(e.margin for e in effects)
        if effects[0].scale == "ratio":
            panel = Panel(
                title, drawn, "run", "times better than the control", "ratio", level=1.0,
                margin=margin, names=names,
            )  # fmt: skip
        else:
            panel = Panel(
                title, drawn, "run", "treatment − control", level=0.0, names=names,
                write=fmt.difference,
            )  # fmt: skip
        panels.append(panel)
    return draw(panels)


def _runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "Run": str(number),
                "Started": str(run.environment.get("started") or "not recorded"),
                "Folder": str(run.path),
                "Host": str(run.environment.get("host") or "not recorded"),
                "Suite": run.plan.suite,
                "Trials": f"{len(run.trials):,}",
            }
            for number, run in enumerate(runs, 1)
        ]
    )


def _numbers(stacks: dict[str, list[Numbered]], names: tuple[str, ...]) -> pd.DataFrame:
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for stack, found in stacks.items():
        for number, e in found:
            row = rows.setdefault((stack, e.metric, e.point), {})
            row[f"Run {names[number]}"] = f"{fmt.effect(e)} {e.verdict}"
    keys = ("Stack", "Metric", "Point")
    return pd.DataFrame(
        [dict(zip(keys, key, strict=True)) | row for key, row in rows.items()],
        columns=[*keys, *(f"Run {name}" for name in names)],
    ).fillna("–")


def _where(c: Change) -> str:
    place = ", ".join(filter(None, (c.scenario, c.metric, c.point or c.segment)))
    return f"{c.baseline} × {c.stack}, {place}"


_HOW_TO_READ = (
    "Every effect that two runs or more measured, against the control of its own session, with its "
    "interval. The grey band is the margin inside which nothing counts as a difference."
)
