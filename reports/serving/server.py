"""The `server` scenario: latency against the load offered, and where the time goes."""

from __future__ import annotations

from functools import partial

import pandas as pd

from bench.effects import Effect
from bench.percentiles import Percentile, latency_percentiles
from bench.records import ARMS, CONTROL, CurveRow, read_point
from bench.run import Run
from reports import format as fmt
from reports.curves import Line, Panel, Point, draw
from reports.pages import Block, Heading, Picture, Table, Text
from reports.serving.seen import Place, by_place, curves, every, table
from reports.serving.stacked import stacked
from reports.tables import stack_label

SCENARIO = "server"
WHOLE = ("throughput_at_sla", "shed_share", "recovery_time")  # without a point
_MS = 1e3
_READING = (
    "Left: the bound of the percentile in every probe of the search for the largest rate; hollow "
    "where it is beyond the SLA, and then a probe was left as soon as that was known, so that it "
    "is at least so much. Right: percentiles at the same rates for both arms, as high as the calls "
    "bear; bars reach to the 99 % upper bound in the worst process."
)


def blocks(run: Run) -> tuple[Block, ...]:
    """Figures and tables for each baseline and device; nothing where nothing was measured."""
    found: list[Block] = []
    borne = latency_percentiles(run.trials, SCENARIO)
    for place, effects in by_place(run, SCENARIO).items():
        baseline, device = place
        stacks = _stacks(effects)
        own = [p for p in borne if (p.cell.baseline, p.cell.device) == place]
        panels, loads = _panels(run, place, stacks, own)
        found += [
            Heading(f"{baseline} on {device}"),
            Table(table([e for e in effects if e.metric in WHOLE])),
            Text(_READING),
            Picture(
                partial(draw, panels, 1 + loads),
                f"Latency against load of each stack on {baseline}; numbers below.",
            ),
            Table(_percentile_table([p for p in own if p.cell.stack in stacks])),
        ]
        if rows := _waits(effects, stacks):
            found.append(
                Picture(
                    partial(stacked, rows, "ms, mean: waiting in the queue, then being answered"),
                    f"Time in the queue and in compute of each stack on {baseline}.",
                )
            )
        loaded = [e for e in effects if read_point(e.point)]
        found.append(Table(table(loaded), f"Numbers: {baseline} on {device}, under load", True))
    return tuple(found)


def _stacks(effects: list[Effect]) -> list[str]:
    """The stacks measured; the A/A arm only where it is alone."""
    stacks = list(dict.fromkeys(e.stack for e in effects))
    return [s for s in stacks if s != CONTROL] or stacks


def _panels(
    run: Run, place: Place, stacks: list[str], borne: list[Percentile]
) -> tuple[list[Panel], int]:
    """A row for each stack: its search, then its percentiles at each load; how many loads."""
    loads = list(dict.fromkeys(p.point for p in borne))
    panels = []
    for stack in stacks:
        seen = curves(run, SCENARIO, place, stack)
        panels.append(_search(stack, [row for rows in seen.values() for row in rows]))
        own = [p for p in borne if p.cell.stack == stack]
        panels += [_percentiles(load, [p for p in own if p.point == load]) for load in loads]
    return panels, len(loads)


def _search(stack: str, rows: list[CurveRow]) -> Panel:
    title = stack_label(stack)
    if not rows:
        return Panel(f"{title}: no search recorded", (), "requests/s offered", "")
    limit = rows[0].limit
    return Panel(
        title,
        tuple(
            Line(arm, place, every((r for r in rows if r.name == arm), _MS), "points")
            for place, arm in enumerate(ARMS)
        ),
        rows[0].along,
        f"{rows[0].metric.name.removeprefix('latency_').replace('_', ' ')}, ms",
        "log",
        limit=None if limit is None else (limit * _MS, f"SLA {limit * _MS:g} ms"),
    )


def _percentiles(load: str, borne: list[Percentile]) -> Panel:
    """Those that both arms bear."""
    names = sorted({p.percentile for p in borne})
    lines = []
    for place, arm in enumerate(ARMS):
        points = [
            Point(names.index(p.percentile), p.value * _MS, p.value * _MS, p.bound * _MS)
            for p in borne
            if p.arm == arm
        ]
        lines.append(Line(arm, place, tuple(points)))
    share = read_point(load).get("load", 0)
    return Panel(
        f"at {share} % of the control's rate", tuple(lines), "percentile of latency", "ms", "log",
        names=tuple(f"p{q:g}" for q in names),
    )  # fmt: skip


def _percentile_table(borne: list[Percentile]) -> pd.DataFrame:
    """A row for each stack, load and arm; a column for each percentile, with its bound."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for p in borne:
        load = f"{read_point(p.point).get('load', 0)} %"
        row = rows.setdefault((p.cell.stack, load, p.arm), {"Calls": f"{p.calls:,}"})
        row[f"p{p.percentile:g} (bound)"] = (
            f"{fmt.quantity(p.value, 's')} (≤ {fmt.quantity(p.bound, 's')})"
        )
    keys = ("Stack", "Load", "Arm")
    frame = pd.DataFrame([dict(zip(keys, key, strict=True)) | row for key, row in rows.items()])
    return frame.fillna("")


def _waits(effects: list[Effect], stacks: list[str]) -> list[tuple[str, dict[str, float]]]:
    """(stack, load and arm; mean ms in the queue and in compute)."""
    times = {(e.stack, e.point, e.metric): e for e in effects}
    rows = []
    for stack, point in dict.fromkeys((s, p) for s, p, metric in times if metric == "queue_time"):
        queue, compute = (times.get((stack, point, m)) for m in ("queue_time", "compute_time"))
        if stack in stacks and queue and compute:
            share = read_point(point).get("load", 0)
            rows += [
                (
                    f"{stack_label(stack)}, {share} %: {arm}",
                    {"queue": getattr(queue, arm) * _MS, "compute": getattr(compute, arm) * _MS},
                )
                for arm in ARMS
            ]
    return rows
