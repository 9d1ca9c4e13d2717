"""A run as tables: the one source of every number that a report or the dashboard shows.

`records` holds the effects as numbers; every other function gives a frame of finished text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.effects import Effect
from bench.records import CONTROL, ValueRow
from bench.run import PlannedCell, Run
from reports import format as fmt

QUALITY = "quality"


@dataclass(frozen=True)
class Column:
    """A column of the verdict matrix: a scenario's metrics of one kind, one of them leading.

    leading: parts of metric names, the wanted one first; otherwise the first metric leads.
    """

    title: str
    scenarios: tuple[str, ...]
    kind: str
    leading: tuple[str, ...] = ()


COLUMNS = (
    Column("Quality", (QUALITY,), "other"),
    Column("Latency", ("single-stream",), "time", ("p50", "median", "latency")),
    Column("Throughput", ("offline",), "rate"),
    Column("Memory", ("offline", "single-stream", "train"), "bytes", ("model",)),
    Column("Training", ("train",), "rate"),
    Column("Time to quality", ("train",), "time", ("quality", "target")),
)


def stack_label(stack: str) -> str:
    """The stack as shown; the control measured against itself is the A/A arm."""
    return f"{CONTROL} (A/A)" if stack == CONTROL else stack


def headline(effects: Iterable[Effect], column: Column) -> list[Effect]:
    """The effects that stand in `column`: its leading metric at every point, no segment."""
    found = [
        e
        for e in effects
        if e.scenario in column.scenarios
        and not e.segment
        and (e.scenario == QUALITY or fmt.kind(e.unit) == column.kind)
    ]
    if column.title == "Quality":
        found = [e for e in found if e.margins] or found
    names = list(dict.fromkeys(e.metric for e in found))
    wanted = [n for part in column.leading for n in names if part in n] + names
    return [e for e in found if e.metric == wanted[0]]


def columns_of(run: Run) -> list[Column]:
    """The columns that this run has cells for; a scenario of a plug-in gets its own."""
    planned = list(dict.fromkeys(p.cell.scenario for p in run.plan.cells))
    known = {s for column in COLUMNS for s in column.scenarios}
    own = [
        Column(s, (s,), fmt.kind(e.unit))
        for s in planned
        if s not in known and (e := next((e for e in run.effects if e.scenario == s), None))
    ]
    measured = [c for c in COLUMNS if headline(run.effects, c)]
    return [c for c in COLUMNS if c in measured or (c.scenarios[0] in planned and not measured)] + (
        own
    )


def verdict_matrix(run: Run) -> pd.DataFrame:
    """One row for each baseline × stack × device, one column for each thing it may change."""
    columns = columns_of(run)
    planned: dict[tuple[str, str, str], dict[str, PlannedCell]] = {}
    for p in run.plan.cells:
        key = (p.cell.baseline, p.cell.stack, p.cell.device)
        planned.setdefault(key, {})[p.cell.scenario] = p
    rows = []
    for (baseline, stack, device), cells in planned.items():
        own = [
            e for e in run.effects if (e.baseline, e.stack, e.device) == (baseline, stack, device)
        ]
        row = {"Baseline": baseline, "Stack": stack_label(stack), "Device": device}
        for column in columns:
            cell = next((cells[s] for s in column.scenarios if s in cells), None)
            row[column.title] = summarise(headline(own, column)) or _state(run, cell)
        rows.append(row)
    return pd.DataFrame(rows, columns=["Baseline", "Stack", "Device", *(c.title for c in columns)])


def summarise(effects: list[Effect]) -> str:
    """The verdicts of one metric over its points, a line for each different one."""
    groups: dict[str, list[Effect]] = {}
    for e in effects:
        groups.setdefault(e.verdict, []).append(e)
    lines = []
    for verdict, group in groups.items():
        best = max(group, key=_size)
        least = min(group, key=_size)
        text, low = fmt.claim(best), fmt.ratio(_size(least))
        if fmt.ratio(_size(best)) != low and text.endswith(f"× {verdict}"):
            text = f"{low} to {text}"
        elif len(group) > 1:
            text = verdict
        points = _points(group)
        lines.append(f"{text} ({points})" if points else text)
    return "\n".join(lines)


def effects_table(run: Run, effects: Iterable[Effect] | None = None) -> pd.DataFrame:
    """Every effect without segments, as text; of `effects` only, where given."""
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
            "Verdict": fmt.claim(e),
            "Level": fmt.percent(e.level),
            "Margin": fmt.margin(e),
            "Named margins": "; ".join(f"{name}: {v}" for name, v in e.margins.items()),
            "Control over seeds": _spread(e),
            "p adjusted (family)": _p_value(e),
            "Processes": e.n_processes,
            "Blocks": e.n_blocks,
            "Note": e.note,
        }
        for e in (run.effects if effects is None else effects)
        if not e.segment
    ]
    frame = pd.DataFrame(rows)
    blank = [c for c in ("Named margins", "Control over seeds", "Note") if c in frame]
    return frame.drop(columns=[c for c in blank if not frame[c].any()])


def segments_table(run: Run, effects: Iterable[Effect] | None = None) -> pd.DataFrame:
    """Quality by segment: a row for each baseline × stack × metric × grouping, numbers across."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    numbers: set[str] = set()
    for e in run.effects if effects is None else effects:
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
    """What had to be paid once before the first answer: the mean over processes of each arm."""
    seen: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for trial in run.trials:
        for row in trial.rows:
            if isinstance(row, ValueRow) and row.metric.name.startswith("preparation"):
                key = (trial.head.baseline, stack_label(trial.head.stack), trial.head.device)
                arms = seen.setdefault((*key, row.metric.name, row.metric.unit), {})
                arms.setdefault(row.arm, []).append(row.value)
    rows = []
    for (baseline, stack, device, metric, unit), arms in seen.items():
        text = {"Baseline": baseline, "Stack": stack, "Device": device, "Metric": metric}
        for arm in ("control", "treatment"):
            values = arms.get(arm, [])
            mean = math.fsum(values) / len(values) if values else math.nan
            text[arm.capitalize()] = fmt.quantity(mean, unit)
        rows.append(text)
    names = ["Baseline", "Stack", "Device", "Metric", "Control", "Treatment"]
    return pd.DataFrame(rows, columns=names)


def records(run: Run) -> list[dict[str, Any]]:
    """Every effect as numbers for strict JSON: what is not finite is None."""
    return [
        {
            key: None if isinstance(v, float) and not math.isfinite(v) else v
            for key, v in row.items()
        }
        for row in (e.model_dump() for e in run.effects)
    ]


def _state(run: Run, planned: PlannedCell | None) -> str:
    if planned is None:
        return "–"
    if planned.skip:
        return "skipped"
    cell = planned.cell
    ends = {
        t.end.status
        for t in run.trials
        if (t.head.baseline, t.head.stack, t.head.device)
        == (cell.baseline, cell.stack, cell.device)
        and cell.scenario in t.head.scenarios
    }
    if ends - {"ok"}:
        return f"failed: {fmt.words(sorted(s.replace('_', ' ') for s in ends - {'ok'}))}"
    return "not measured" if run.summary is not None and run.summary.finished else "in progress"


def _size(e: Effect) -> float:
    if e.scale == "difference" or not e.effect > 0:
        return abs(e.effect) if math.isfinite(e.effect) else 0.0
    return max(e.effect, 1 / e.effect)


def _points(effects: list[Effect]) -> str:
    values: dict[str, list[str]] = {}
    for e in effects:
        name, _, value = e.point.partition("=")
        if value and "=" not in value:
            values.setdefault(name, []).append(value)
        elif e.point:
            values.setdefault(e.point, [])
    return "; ".join(f"{name} {', '.join(found)}".strip() for name, found in values.items())


def _spread(e: Effect) -> str:
    return "" if e.seed_spread is None else f"sd {fmt.number(e.seed_spread)}"


def _p_value(e: Effect) -> str:
    if e.p_adjusted is None:
        return "–"
    p = "<0.0001" if e.p_adjusted < 0.0001 else f"{e.p_adjusted:.4f}"
    return f"{p} ({e.family})" if e.family else p
