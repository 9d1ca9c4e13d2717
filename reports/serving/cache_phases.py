"""The `cache-phases` scenario: hit rates and latency, cold, warm and under drift."""

from __future__ import annotations

from functools import partial

import pandas as pd

from bench.effects import Effect
from bench.records import CONTROL
from bench.run import Run
from reports import format as fmt
from reports.curves import Line, Panel, Point, Style, draw, effect_line
from reports.pages import Block, Heading, Picture, Table, Text
from reports.serving.seen import by_place, table

SCENARIO = "cache-phases"
PHASES = ("cold", "warm", "drift")
_RATES = ("hit_rate", "optimal_hit_rate")
_READING = (
    "Dashed: Belady's optimum for the same ids and capacity, which knows the whole stream. The "
    "control holds every row, so it always hits."
)


def blocks(run: Run) -> tuple[Block, ...]:
    """A figure and a table for each baseline and device."""
    found: list[Block] = [Text(_READING)]
    for (baseline, device), effects in by_place(run, SCENARIO).items():
        stacks = [s for s in dict.fromkeys(e.stack for e in effects) if s != CONTROL]
        of = {(e.stack, e.metric): e for e in effects}
        panels = [
            _hits("Hits by look-up", "", stacks, of),
            _hits("Hits by unique id of a request", "unique_", stacks, of),
            _latency(stacks, of),
        ]
        if any(panel.lines for panel in panels):
            picture = f"Hit rates and speed of each cache on {baseline}; the numbers are below."
            found += [
                Heading(f"{baseline} on {device}"),
                Picture(partial(draw, panels, 3), picture),
                Table(_phase_table(stacks, of)),
                Table(
                    table([e for e in effects if e.stack in stacks]),
                    f"Numbers: {baseline} on {device}, caches",
                    True,
                ),
            ]
    return tuple(found) if len(found) > 1 else ()


def _phase_table(stacks: list[str], of: dict[tuple[str, str], Effect]) -> pd.DataFrame:
    """A row for each stack and phase: hits beside the optimum, the skew, and the latency."""
    rows = []
    for stack in stacks:
        for phase in PHASES:
            row = {"Stack": stack, "Phase": phase}
            for kind, name in (("", "Hits (optimum)"), ("unique_", "By unique id (optimum)")):
                hit, best = (of.get((stack, f"{phase}_{kind}{m}")) for m in _RATES)
                if hit and best:
                    row[name] = f"{fmt.percent(hit.treatment)} ({fmt.percent(best.treatment)})"
            if skew := of.get((stack, f"{phase}_skew")):
                row["Zipf exponent"] = fmt.ratio(skew.treatment)
            if latency := of.get((stack, f"{phase}_latency")):
                row["Latency"] = fmt.quantity(latency.treatment, latency.unit)
                row["To the control [interval]"] = fmt.effect(latency)
                row["Verdict"] = latency.verdict
            rows.append(row)
    return pd.DataFrame(rows).fillna("")


def _hits(title: str, kind: str, stacks: list[str], of: dict[tuple[str, str], Effect]) -> Panel:
    lines = []
    drawn: dict[str, tuple[str, Style]] = {
        "hit_rate": ("", "line"),
        "optimal_hit_rate": (": optimum", "dashed"),
    }
    for place, stack in enumerate(stacks):
        for metric, (suffix, style) in drawn.items():
            points = [
                _share(x, e)
                for x, phase in enumerate(PHASES)
                if (e := of.get((stack, f"{phase}_{kind}{metric}")))
            ]
            if points:
                lines.append(Line(stack + suffix, place, tuple(points), style))
    return Panel(title, tuple(lines), "phase", "% of look-ups", names=PHASES)


def _share(x: int, e: Effect) -> Point:
    """The treatment's hit rate in percent; the control's is constant, so the interval is its."""
    value = e.treatment
    return Point(
        x, *(100 * v for v in (value, value + e.low - e.effect, value + e.high - e.effect))
    )


def _latency(stacks: list[str], of: dict[tuple[str, str], Effect]) -> Panel:
    lines = []
    for place, stack in enumerate(stacks):
        pairs = [
            (float(x), e)
            for x, phase in enumerate(PHASES)
            if (e := of.get((stack, f"{phase}_latency"))) and e.effect > 0
        ]
        if pairs:
            lines.append(effect_line(stack, place, pairs))
    return Panel(
        "Latency", tuple(lines), "phase", "times as fast as the control", "ratio", level=1.0,
        names=PHASES,
    )  # fmt: skip
