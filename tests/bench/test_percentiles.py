"""Percentiles of latency: only those that the calls bear, each with its bound."""

from __future__ import annotations

import numpy as np
import pytest

from bench.percentiles import latency_percentiles
from bench.records import ARMS, BlockRow, EndRow, Metric, Trial, TrialRow
from bench.stats import tail_bound

LATENCY = Metric(name="latency", unit="s", direction="lower", scale="ratio", estimator="median")


def trial(process: int, calls: list[int], scenario: str = "server") -> Trial:
    """Both arms of one block pair; the treatment takes twice as long."""
    head = TrialRow(
        id=f"{process}", baseline="b", stack="s", device="cpu", mode="measure",
        scenarios=(scenario,), process=process, seed=process, started="2025-01-01T00:00:00+00:00",
    )  # fmt: skip
    rows = [
        BlockRow(
            scenario=scenario, metric=LATENCY, point={"load": 50}, pair=0, position=0, arm=arm,
            value=1e-3, samples=len(calls), durations_ns=tuple(c * times for c in calls),
            dropped=0, outliers=0,
        )
        for arm, times in zip(ARMS, (1, 2), strict=True)
    ]  # fmt: skip
    return Trial(head=head, rows=tuple(rows), end=EndRow(status="ok", wall=1.0))


@pytest.mark.parametrize(
    ("calls", "borne"), [(5, []), (40, [50]), (70, [50, 90]), (700, [50, 90, 95, 99])]
)
def test_only_what_the_calls_of_every_process_bear_is_given(calls: int, borne: list[int]) -> None:
    many = trial(0, list(range(1, 1001)))
    few = trial(1, list(range(1, calls + 1)))
    found = latency_percentiles([many, few], "server")
    for arm in ARMS:
        assert [p.percentile for p in found if p.arm == arm] == borne
    assert {p.calls for p in found} <= {calls}


def test_values_are_the_middle_of_the_processes_and_bounds_the_worst() -> None:
    runs = [list(np.random.default_rng(i).integers(10**5, 10**7, 200)) for i in range(3)]
    found = latency_percentiles(
        [trial(i, [int(c) for c in r]) for i, r in enumerate(runs)], "server"
    )
    for p in found:
        times = 2 if p.arm == "treatment" else 1
        each = [float(np.percentile(r, p.percentile)) for r in runs]
        assert p.value == pytest.approx(times * np.median(each) / 1e9)
        assert p.bound == pytest.approx(
            times * max(tail_bound(r, p.percentile) for r in runs) / 1e9
        )
        assert p.bound >= p.value


def test_other_scenarios_are_left_out() -> None:
    assert not latency_percentiles([trial(0, list(range(1, 200)), "single-stream")], "server")
