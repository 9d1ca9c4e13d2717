"""Latency percentiles of a load, as far as its calls bear them, with their bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bench.records import Arm, Cell, Trial
from bench.series import block_series
from bench.stats import PERCENTILES, bounding_rank, tail_bound


@dataclass(frozen=True)
class Percentile:
    """A percentile of latency of one arm at one point, in seconds.

    value: the median over processes. bound: the 99 % upper bound in the worst of them. calls: the
    fewest of a process.
    """

    cell: Cell
    point: str
    arm: Arm
    percentile: float
    value: float
    bound: float
    calls: int


def latency_percentiles(trials: Iterable[Trial], scenario: str) -> list[Percentile]:
    """Every percentile that all processes of an arm have the calls to bear, the lowest first."""
    found = []
    for series in block_series(trials):
        if series.cell.scenario != scenario:
            continue
        for arm, by_process in series.durations.items():
            runs = [np.array(calls) / 1e9 for calls in by_process.values()]
            fewest = min(map(len, runs), default=0)
            for q in sorted(PERCENTILES):
                if bounding_rank(fewest, q):
                    value = float(np.median([np.percentile(calls, q) for calls in runs]))
                    bound = max(tail_bound(calls, q) for calls in runs)
                    found.append(
                        Percentile(series.cell, series.point, arm, q, value, bound, fewest)
                    )
    return found
