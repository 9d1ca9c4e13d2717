"""What a stream shows as it goes on: quality, latency and staleness, window by window."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from baselines.base import QualityMetric, Scored
from bench.records import CurveRow, Metric
from bench.refreshing.load import Shown

WINDOWS = 24  # of a stream or a load, each a point of a curve
WORST_LATENCY = Metric(
    name="worst_latency", unit="s", direction="lower", scale="ratio",
    estimator="of the requests answered that arrived in a window",
)  # fmt: skip
STALENESS = Metric(
    name="staleness", unit="events", direction="lower", scale="ratio",
    estimator="mean over the requests of a window",
)  # fmt: skip


def quality_curve(scenario: str, metric: QualityMetric, name: str, scored: Scored) -> CurveRow:
    """`metric` in windows of equally many rows of a stream, in its order; x: where each ends."""
    place = np.arange(len(scored.unit))
    ends = np.linspace(0, len(place), WINDOWS + 1).astype(int)
    parts = [(place >= a) & (place < b) for a, b in pairwise(ends)]
    return CurveRow(
        scenario=scenario,
        metric=Metric(
            name=metric.name, unit=metric.unit, direction=metric.direction, scale="difference",
            estimator="over a window of the stream",
        ),
        name=name,
        along="events of the stream",
        x=tuple(map(float, ends[1:])),
        y=tuple(float(metric(scored.where(part))) for part in parts),
    )  # fmt: skip


def load_curves(scenario: str, name: str, shown: Shown) -> Iterator[CurveRow]:
    """Worst latency and mean staleness in windows of equal time; where nobody came, NaN.

    Then the worst latency of the requests in the server during each swap, where there were any.
    """
    served = shown.served
    arrived, latency = served.arrived[served.answered], served.latency
    ends = np.linspace(0, served.arrived.max(initial=0) + 1, WINDOWS + 1)
    window = np.searchsorted(ends, arrived, "right") - 1
    parts = [window == i for i in range(WINDOWS)]
    times = ends[1:] / 1e9
    worst = [_last(np.sort(latency[part])) / 1e9 for part in parts]
    stale = [float(shown.staleness[part].mean()) if part.any() else np.nan for part in parts]
    lines = [(WORST_LATENCY, name, times, worst), (STALENESS, name, times, stale)]
    if shown.swaps:
        begun = np.array([swap.begun for swap in shown.swaps]) / 1e9
        met = [_last(np.sort(latency[shown.around([swap])])) / 1e9 for swap in shown.swaps]
        lines.append((WORST_LATENCY, f"{name}, during swaps", begun, met))
    for metric, line, x, y in lines:
        yield CurveRow(
            scenario=scenario, metric=metric, name=line, along="seconds of the load",
            x=tuple(x.tolist()), y=tuple(y),
        )  # fmt: skip


def _last(values: np.ndarray) -> float:
    return float(values[-1]) if len(values) else np.nan
