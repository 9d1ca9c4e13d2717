"""What trials of the serving scenarios see, with known truths; for `synthetic_run.write_run`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synthetic_run import LATENCY

from bench.records import ARMS, CONTROL, BlockRow, CurveRow, Metric, TrialRow, ValueRow

SLA = 0.02
RATES = {"control": 1000.0, "treatment": 1500.0}  # at the SLA
WAITS = {"control": (0.004, 0.002), "treatment": (0.003, 0.001)}  # s in the queue, in compute
HITS = {"cold": 0.4, "warm": 0.6, "drift": 0.5}
STARTS = {"import_time": 1.5, "load_time": 0.5, "prepare_time": 0.25, "first_call": 0.125}
LINES = {"frozen": 0.6, "oracle": 0.8, "new weights every 512 events": 0.7}


def metric(name: str, unit: str = "s", scale: Any = "ratio", direction: Any = "lower") -> Metric:
    return Metric(name=name, unit=unit, direction=direction, scale=scale, estimator="one")


def server(head: TrialRow) -> list[Any]:
    """The bound of p90 rises through the SLA at the rate that is found."""
    rows: list[Any] = []
    for arm in ARMS:
        rate = RATES[arm] if head.stack != CONTROL else RATES["control"]
        offered = (rate * 0.5, rate, rate * 1.1)
        rows.append(
            CurveRow(
                scenario="server", metric=metric("latency_p90_bound"), name=arm,
                along="requests/s offered", x=offered, y=(SLA / 4, SLA * 0.9, SLA * 3), limit=SLA,
            )
        )  # fmt: skip
        found = metric("throughput_at_sla", "samples/s", direction="higher")
        rows.append(ValueRow(scenario="server", metric=found, arm=arm, value=rate))
        for load in (50, 80):
            point = {"load": load}
            for name, seconds in zip(("queue_time", "compute_time"), WAITS[arm], strict=True):
                rows.append(
                    ValueRow(
                        scenario="server", metric=metric(name), point=point, arm=arm, value=seconds
                    )
                )
            whole = sum(WAITS[arm])
            calls = tuple(round(1e9 * whole * (1 + i / 100)) for i in range(100))
            rows += [
                BlockRow(
                    scenario="server", metric=LATENCY, point=point, pair=pair, position=0, arm=arm,
                    value=whole, samples=100, durations_ns=calls, dropped=0, outliers=0,
                )
                for pair in range(2)
            ]  # fmt: skip
    return rows


def caches(head: TrialRow) -> list[Any]:
    """Hit rates; the optimum is .2 above, and by unique id all is .1 below."""
    rows = []
    for phase, rate in HITS.items():
        values = {
            f"{phase}_{kind}{name}": rate + more - less
            for kind, less in (("", 0.0), ("unique_", 0.1))
            for name, more in (("hit_rate", 0.0), ("optimal_hit_rate", 0.2))
        }
        for name, value in values.items():
            of = metric(name, "", "difference", "higher")
            for arm, seen in zip(ARMS, (1.0, value), strict=True):
                rows.append(ValueRow(scenario="cache-phases", metric=of, arm=arm, value=seen))
        for arm, seconds in zip(ARMS, (0.001, 0.0005), strict=True):
            of = metric(f"{phase}_latency")
            rows.append(ValueRow(scenario="cache-phases", metric=of, arm=arm, value=seconds))
    return rows


def refresh(head: TrialRow) -> list[Any]:
    """Quality that stays where it is; latency with one swap."""

    def curve(of: Metric, name: str, x: tuple[float, ...], y: tuple[float, ...]) -> CurveRow:
        return CurveRow(scenario="refresh", metric=of, name=name, along="events", x=x, y=y)

    auc = metric("auc", "", "difference", "higher")
    worst = metric("worst_latency")
    rows: list[Any] = [
        curve(auc, name, (100.0, 200.0), (value + head.process / 100, value))
        for name, value in LINES.items()
    ]
    for arm in ARMS:
        rows.append(curve(worst, arm, (1.0, 2.0), (0.005, float("nan"))))
        rows.append(curve(metric("staleness", "events"), arm, (1.0, 2.0), (10.0, 20.0)))
        staleness = metric("staleness", "events")
        rows.append(ValueRow(scenario="refresh", metric=staleness, arm=arm, value=15.0))
    rows.append(curve(worst, "treatment, during swaps", (1.25,), (0.009,)))
    return rows


def cold_start(head: TrialRow) -> list[Any]:
    """The treatment takes twice as long in every part."""
    parts = {**STARTS, "time_to_first_answer": sum(STARTS.values())}
    return [
        ValueRow(scenario="cold-start", metric=metric(name), arm=arm, value=seconds * times)
        for name, seconds in parts.items()
        for arm, times in zip(ARMS, (1.0, 2.0), strict=True)
    ]


SERVING: dict[str, Callable[[TrialRow], list[Any]]] = {
    "server": server,
    "cache-phases": caches,
    "refresh": refresh,
    "cold-start": cold_start,
}
