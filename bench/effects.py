"""Records → effects and verdicts. The one place where a number of the report is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from bench.estimates import estimate_quality, estimate_series
from bench.families import with_families
from bench.protocol import Protocol
from bench.records import Row, Trial
from bench.series import (
    block_series,
    failed_cells,
    quality_rows,
    tail_series,
    time_to_quality_series,
    value_series,
)
from bench.verdicts import Verdict

__all__ = ["Effect", "Verdict", "effects_of"]


class Effect(Row):
    """What the statistics say of one metric of one cell (at one point, for one segment).

    effect, low, high: treatment ÷ control for scale "ratio", treatment − control for
    "difference"; low and high bound it at `level` confidence; NaN where there is none. control and
    treatment are the values of the arms in `unit`. point is "" or for example "batch=512".
    margin: δ for ratios, the tolerated loss in `unit` for quality, 0 where none is defined.
    margins: named quality margin → verdict under it (quality metrics only). p_value, valid over
    the looks of the protocol: of |log ratio| ≤ log(1 + δ) for ratios; for quality of a loss beyond
    the margin, in a segment of a loss within it. seed_spread: standard deviation of the control
    over seeds, for quality metrics. n_blocks counts both arms. primary: the headline metric of its
    scenario.
    """

    baseline: str
    stack: str
    scenario: str
    device: str
    metric: str
    unit: str
    direction: Literal["higher", "lower"]
    scale: Literal["ratio", "difference"]
    estimator: str
    point: str = ""
    segment: str = ""
    control: float
    treatment: float
    effect: float
    low: float
    high: float
    level: float
    margin: float
    verdict: Verdict
    margins: dict[str, Verdict] = Field(default_factory=dict)
    p_value: float | None = None
    p_adjusted: float | None = None
    family: str = ""
    seed_spread: float | None = None
    protocol: str = ""
    n_processes: int
    n_blocks: int
    primary: bool = False
    note: str = ""

    @property
    def gain(self) -> tuple[float, float, float]:
        """The effect and its bounds, turned so that more is better than the control."""
        if self.direction == "higher":
            return self.effect, self.low, self.high
        if self.scale == "difference":
            return -self.effect, -self.high, -self.low
        inverse = [1 / x if x else math.inf for x in (self.effect, self.high, self.low)]
        return inverse[0], inverse[1], inverse[2]


def effects_of(
    trials: list[Trial], protocol: Protocol, primary: set[str], noise_floor: Mapping[str, float]
) -> list[Effect]:
    """All effects of `trials`. primary: ids of the cells whose family is held by Holm.

    noise_floor: metric → the ratio that this host cannot tell from none, for example 0.03. Every
    effect of a cell that failed has the verdict "failed" and no estimate; a failed cell without
    any data has no effect, and is found in the run's warnings.
    """
    return judged(estimates_of(trials, protocol, noise_floor), primary, protocol)


def estimates_of(
    trials: list[Trial], protocol: Protocol, noise_floor: Mapping[str, float]
) -> list[Effect]:
    """The effects of `trials`, each by itself. None rests on trials of two baselines or devices."""
    failed = failed_cells(trials)
    blocks, values = block_series(trials), value_series(trials)
    tails = [tail for s in blocks if (tail := tail_series(s)) is not None]
    found = [
        estimate_series(s, protocol, noise_floor.get(s.metric.name, 0.0), failed.get(s.cell))
        for s in (*blocks, *tails, *values, *time_to_quality_series(values, blocks))
    ]
    for (cell, metric, segment), rows in quality_rows(trials).items():
        by_seed = [rows[process] for process in sorted(rows)]
        fields = estimate_quality(cell, metric, segment, by_seed, protocol, failed.get(cell))
        found += [fields] if fields is not None else []
    return [Effect.model_validate(fields) for fields in found]


def judged(effects: list[Effect], primary: set[str], protocol: Protocol) -> list[Effect]:
    """All effects of a run, each held by its family, in their order."""
    return sorted(with_families(effects, primary, protocol.alpha), key=_order)


def _order(effect: Effect) -> tuple[object, ...]:
    """Cells as they are named, headline first, points and segments by number."""
    cell = (effect.baseline, effect.stack, effect.scenario, effect.device)
    places = (_by_number(effect.point), _by_number(effect.segment))
    return (*cell, bool(effect.segment), not effect.primary, effect.metric, *places)


def _by_number(text: str) -> list[tuple[str, int]]:
    """``batch=8,threads=1`` → [("batch", 8), ("threads", 1)]."""
    parts = (part.rpartition("=") for part in text.split(","))
    return [(key, int(value) if value.isdecimal() else 0) for key, _, value in parts]
