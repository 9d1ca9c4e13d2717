"""A run as tables: the one source of every number that a report or the dashboard shows.

`records` holds the effects as numbers; every other function gives a frame of finished text.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.compare import Change
from bench.effects import Effect
from bench.records import CONTROL, Cell, Row, read_point
from bench.run import PlannedCell, Run
from bench.series import failed_cells
from reports import format as fmt

QUALITY = "quality"


@dataclass(frozen=True)
class Column:
    """A column of the verdict matrix: a metric of a scenario, its headline where none is named."""

    title: str
    scenario: str
    metric: str = ""


COLUMNS = (
    Column("Quality", QUALITY),
    Column("Latency", "single-stream"),
    Column("Throughput", "offline"),
    Column("Server throughput", "server"),
    Column("Cold start", "cold-start"),
    Column("Cache phases", "cache-phases"),
    Column("Quality on a stream", "refresh"),
    Column("Staleness", "refresh", "staleness"),
    Column("Model size", "offline", "model_bytes"),
    Column("Peak memory", "offline", "peak_memory"),
    Column("Training", "train"),
    Column("Training memory", "train", "peak_memory"),
    Column("Time to quality", "train", "time_to_quality"),
    Column("Training on ranks", "distributed"),
    Column("Time to quality on ranks", "distributed", "time_to_quality"),
)
LATENCY, THROUGHPUT = COLUMNS[1:3]


def stack_label(stack: str) -> str:
    """The stack as shown; the control measured against itself is the A/A arm."""
    return f"{CONTROL} (A/A)" if stack == CONTROL else stack


def headline(effects: Iterable[Effect], column: Column) -> list[Effect]:
    """The effects that stand in `column`: its metric at every point, no segment."""
    return [
        e
        for e in effects
        if e.scenario == column.scenario
        and not e.segment
        and (e.metric == column.metric if column.metric else e.primary)
    ]


def columns_of(run: Run) -> list[Column]:
    """The columns that this run has cells for; the scenario of a plug-in gets its own."""
    planned = dict.fromkeys(p.cell.scenario for p in run.plan.cells)
    known = {column.scenario for column in COLUMNS}
    metrics: dict[str, dict[str, None]] = {}  # scenario → metrics, "" for its headline
    for e in run.effects:
        if not e.segment:
            found = metrics.setdefault(e.scenario, {})
            found.setdefault(e.metric)
            if e.primary:
                found.setdefault("")
    columns = [
        *COLUMNS,
        *(Column(s, s, next(iter(metrics.get(s, ())), "")) for s in planned if s not in known),
    ]
    return [
        c
        for c in columns
        if c.metric in metrics.get(c.scenario, ()) or (c.scenario in planned and not c.metric)
    ]


def planned_cells(run: Run) -> dict[tuple[str, str, str], dict[str, PlannedCell]]:
    """Baseline, stack and device → scenario → what was planned, in the order of the plan."""
    planned: dict[tuple[str, str, str], dict[str, PlannedCell]] = {}
    for p in run.plan.cells:
        key = (p.cell.baseline, p.cell.stack, p.cell.device)
        planned.setdefault(key, {})[p.cell.scenario] = p
    return planned


def verdict_matrix(run: Run) -> pd.DataFrame:
    """One row for each baseline × stack × device, one column for each thing it may change."""
    columns, failed = columns_of(run), failed_cells(run.trials)
    planned = planned_cells(run)
    rows = []
    order = list(dict.fromkeys(baseline for baseline, _, _ in planned))
    for key in sorted(planned, key=lambda key: order.index(key[0])):
        (baseline, stack, device), cells = key, planned[key]
        own = run.effects_of_stacks.get(key, [])
        row = {"Baseline": baseline, "Stack": stack_label(stack), "Device": device}
        for column in columns:
            text = summarise(headline(own, column))
            if not text and column.metric and any(e.scenario == column.scenario for e in own):
                text = "–"  # the scenario was measured, without this metric
            row[column.title] = text or state_of(run, cells.get(column.scenario), failed)
        rows.append(row)
    return pd.DataFrame(rows, columns=["Baseline", "Stack", "Device", *(c.title for c in columns)])


def summarise(effects: list[Effect]) -> str:
    """The verdicts of one metric over its points, a line for each different one."""
    groups: dict[str, list[Effect]] = {}
    for e in effects:
        groups.setdefault(e.verdict, []).append(e)
    lines = []
    for verdict, group in groups.items():
        best = max(group, key=size)
        least = min(group, key=size)
        text, low = fmt.claim(best), fmt.ratio(size(least))
        if fmt.ratio(size(best)) != low and text.endswith(f"× {verdict}"):
            text = f"{low} to {text}"
        elif len(group) > 1:
            text = verdict
        where = points(group)
        lines.append(f"{text} ({where})" if where else text)
    return "\n".join(lines)


def effects_table(effects: Iterable[Effect]) -> pd.DataFrame:
    """Every effect that is not of a segment, as text."""
    rows = [
        {
            "Baseline": e.baseline,
            "Stack": stack_label(e.stack),
            "Scenario": e.scenario,
            "Device": e.device,
            "Metric": e.metric,
            "Point": e.point,
            "Control": fmt.quantity(e.control, e.unit),
            "Treatment": fmt.quantity(e.treatment, e.unit),
            "Effect [interval]": fmt.effect(e),
            "Verdict": e.verdict if e.verdict == "inconclusive" and e.margin else fmt.claim(e),
            "Level": fmt.percent(e.level),
            "Margin": fmt.margin(e),
            "Named margins": "; ".join(f"{name}: {v}" for name, v in e.margins.items()),
            "Control over seeds": _spread(e),
            "p adjusted (family)": _p_value(e),
            "Processes (blocks)": f"{e.n_processes} ({e.n_blocks})",
            "Note": e.note,
        }
        for e in effects
        if not e.segment
    ]
    frame = pd.DataFrame(rows)
    blank = [c for c in ("Named margins", "Control over seeds", "Note") if c in frame]
    return frame.drop(columns=[c for c in blank if not frame[c].any()])


def segments_table(effects: Iterable[Effect]) -> pd.DataFrame:
    """Quality by segment: a row for each baseline × stack × metric × grouping, numbers across."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    numbers: set[str] = set()
    for e in effects:
        if e.segment:
            name, _, number = e.segment.rpartition("=")
            word = f"{e.verdict} " if e.verdict in ("inferior", "better", "failed") else ""
            key = (e.baseline, stack_label(e.stack), e.device, e.metric, name)
            rows.setdefault(key, {})[number] = word + fmt.difference(e.effect)
            numbers.add(number)
    ordered = sorted(numbers, key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n))
    names = ("Baseline", "Stack", "Device", "Metric", "Segment")
    return pd.DataFrame(
        [dict(zip(names, key, strict=True)) | cells for key, cells in rows.items()],
        columns=[*names, *ordered],
    ).fillna("")


def skipped_table(run: Run) -> pd.DataFrame:
    """The cells that were not run, each with its reason."""
    return pd.DataFrame(
        [
            {
                "Baseline": p.cell.baseline,
                "Stack": stack_label(p.cell.stack),
                "Scenario": p.cell.scenario,
                "Device": p.cell.device,
                "Reason": p.skip,
            }
            for p in run.plan.cells
            if p.skip
        ],
        columns=["Baseline", "Stack", "Scenario", "Device", "Reason"],
    )


def preparation_table(run: Run) -> pd.DataFrame:
    """What is paid once before the first answer, and after how many calls it is earned back.

    Break-even: the extra seconds of preparation ÷ the seconds that a call saves, for each batch
    size that came out faster; by its latency, or by its throughput where that alone was measured.
    """
    rows = []
    for e in run.effects:
        if e.metric != "preparation" or e.stack == CONTROL:
            continue
        own = run.effects_of_stacks[e.baseline, e.stack, e.device]
        loads: dict[int, Effect] = {}  # by batch size
        for load in (*headline(own, LATENCY), *headline(own, THROUGHPUT)):
            loads.setdefault(_batch(load), load)
        earned = [_break_even(e, load) for load in loads.values() if load.verdict == "faster"]
        rows.append(
            {
                "Baseline": e.baseline,
                "Stack": e.stack,
                "Scenario": e.scenario,
                "Device": e.device,
                "Control": fmt.quantity(e.control, e.unit),
                "Treatment": fmt.quantity(e.treatment, e.unit),
                "Difference [interval]": fmt.effect(e),
                "Break-even calls": "\n".join(earned) or ("never" if loads else "–"),
            }
        )
    names = ["Baseline", "Stack", "Scenario", "Device", "Control", "Treatment"]
    return pd.DataFrame(rows, columns=[*names, "Difference [interval]", "Break-even calls"])


def changes_table(changes: Iterable[Change]) -> pd.DataFrame:
    """What changed between two runs, cells as a whole before their segments."""
    return pd.DataFrame(
        [
            {
                "Baseline": c.baseline,
                "Stack": c.stack,
                "Scenario": c.scenario,
                "Metric": c.metric,
                "Point": c.point or c.segment,
                "Effect in A": _either(c, c.effect_a),
                "Effect in B": _either(c, c.effect_b),
                "Change [interval]": _change(c),
                "Verdict": c.verdict if not c.reason else f"{c.verdict}: {c.reason}",
            }
            for c in sorted(changes, key=lambda c: bool(c.segment))
        ]
    )


def records(run: Run) -> list[dict[str, Any]]:
    """Every effect as numbers for strict JSON: what is not finite is None."""
    return [finite(e) for e in run.effects]


def finite(row: Row) -> dict[str, Any]:
    """The fields of a row for strict JSON: what is not finite is None."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.model_dump().items()
    }


def _change(change: Change) -> str:
    if not math.isfinite(change.change):
        return fmt.NOT_AVAILABLE
    value, low, high = (_either(change, v) for v in (change.change, change.low, change.high))
    return f"{value} [{low}, {high}]"


def _either(change: Change, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return fmt.NOT_AVAILABLE
    return f"{fmt.ratio(value)}×" if change.scale == "ratio" else fmt.difference(value)


def state_of(run: Run, planned: PlannedCell | None, failed: Container[Cell]) -> str:
    """Why a cell shows no effect, in a word."""
    if planned is None:
        return "–"
    if planned.skip:
        return "skipped"
    if planned.cell in failed:
        return "failed"
    return "not measured" if run.summary is not None and run.summary.finished else "in progress"


def size(e: Effect) -> float:
    """How large an effect is, whichever way it goes: times, or a difference."""
    if e.scale == "difference" or not e.effect > 0:
        return abs(e.effect) if math.isfinite(e.effect) else 0.0
    return max(e.effect, 1 / e.effect)


def _break_even(preparation: Effect, load: Effect) -> str:
    extra = preparation.treatment - preparation.control
    saved = load.control - load.treatment
    if load.scenario == THROUGHPUT.scenario:
        saved = _batch(load) / load.control - _batch(load) / load.treatment
    calls = "at once" if extra <= 0 else f"{math.ceil(extra / saved):,}" if saved > 0 else "never"
    return f"{calls} ({points([load])})" if load.point else calls


def _batch(e: Effect) -> int:
    """Rows of a call of `e`; 1 where its point does not say."""
    return read_point(e.point).get("batch", 1)


def points(effects: list[Effect]) -> str:
    """The points of `effects`: the first coordinate, and others where they differ."""
    values: dict[str, dict[str, None]] = {}
    for e in effects:
        for part in e.point.split(",") if e.point else ():
            name, _, value = part.partition("=")
            values.setdefault(name, {})[value] = None
    return "; ".join(
        f"{name} {', '.join(found)}".strip()
        for place, (name, found) in enumerate(values.items())
        if place == 0 or len(found) > 1
    )


def _spread(e: Effect) -> str:
    return "" if e.seed_spread is None else f"sd {fmt.number(e.seed_spread)}"


def _p_value(e: Effect) -> str:
    if e.p_adjusted is None:
        return "–"
    p = "<0.0001" if e.p_adjusted < 0.0001 else f"{e.p_adjusted:.4f}"
    return f"{p} ({e.family})" if e.family else p
