"""What the figures of serving are made from: effects and curves by cell, and the tables of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median

import pandas as pd

from bench.effects import Effect
from bench.records import CurveRow
from bench.run import Run
from bench.series import cell_of
from reports import tables
from reports.curves import Point

Place = tuple[str, str]  # baseline, device
Curves = dict[tuple[str, str], list[CurveRow]]  # by metric and name, one a process


def by_place(run: Run, scenario: str) -> dict[Place, list[Effect]]:
    """The effects of a scenario by baseline and device, no segment."""
    found: dict[Place, list[Effect]] = {}
    for e in run.effects:
        if e.scenario == scenario and not e.segment:
            found.setdefault((e.baseline, e.device), []).append(e)
    return found


def curves(run: Run, scenario: str, place: Place, stack: str) -> Curves:
    """The curves of one cell."""
    found: Curves = {}
    for trial in run.trials:
        head = trial.head
        if (head.baseline, head.device, head.stack) != (*place, stack):
            continue
        for row in trial.rows:
            if isinstance(row, CurveRow) and cell_of(head, row.scenario).scenario == scenario:
                found.setdefault((row.metric.name, row.name), []).append(row)
    return found


def joined(rows: Sequence[CurveRow], scale: float = 1.0) -> tuple[Point, ...]:
    """Curves of several processes, point by point: the median of y, between the least and the most.

    Only as far as the shortest goes.
    """
    points = []
    for place in range(min(len(row.x) for row in rows)):
        ys = [row.y[place] * scale for row in rows if math.isfinite(row.y[place])]
        x = fmean(row.x[place] for row in rows)
        if ys:
            points.append(Point(x, median(ys), min(ys), max(ys)))
    return tuple(points)


def every(rows: Iterable[CurveRow], scale: float = 1.0) -> tuple[Point, ...]:
    """All points of all curves."""
    return tuple(
        Point(x, y * scale) for row in rows for x, y in zip(row.x, row.y, strict=True)
    )  # fmt: skip


def table(effects: Iterable[Effect]) -> pd.DataFrame:
    """The effects in brief."""
    frame = tables.effects_table(effects)
    kept = ["Stack", "Metric", "Point", "Control", "Treatment", "Effect [interval]", "Verdict"]
    return frame[[name for name in kept if name in frame and frame[name].any()]]
