"""Trials made of chosen numbers, so that what the statistics must say of them is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bench.records import (
    BlockRow,
    EndRow,
    EventRow,
    Metric,
    QualityRow,
    Trial,
    TrialRow,
    ValueRow,
)

LATENCY = Metric(
    name="latency", unit="s", direction="lower", scale="ratio", estimator="median of a block"
)
THROUGHPUT = Metric(
    name="throughput", unit="samples/s", direction="higher", scale="ratio", estimator="rate"
)
BYTES = Metric(name="model_bytes", unit="B", direction="lower", scale="ratio", estimator="bytes")
SAMPLES = Metric(
    name="samples_to_target", unit="samples", direction="lower", scale="ratio", estimator="epoch"
)
AUC = Metric(name="auc", unit="", direction="higher", scale="difference", estimator="test set")
LOGLOSS = Metric(
    name="logloss", unit="nat", direction="lower", scale="difference", estimator="test set"
)


def trial(
    process: int,
    rows: Sequence[Any],
    *,
    stack: str = "fast",
    mode: str = "measure",
    scenarios: tuple[str, ...] = ("single-stream", "offline", "train", "quality"),
    status: str = "ok",
    cause: str = "",
    baseline: str = "toy",
) -> Trial:
    """One trial of `stack` with these rows."""
    head = TrialRow(
        id=f"{baseline}-{stack}-{mode}-{process}-{id(rows)}",
        baseline=baseline,
        stack=stack,
        device="cpu",
        mode=mode,  # type: ignore[arg-type]
        scenarios=scenarios,
        process=process,
        seed=process,
        started="2026-01-01T00:00:00Z",
    )
    end = EndRow(status=status, cause=cause, wall=1.0)  # type: ignore[arg-type]
    return Trial(head=head, rows=tuple(rows), end=end)


def blocks(
    control: Iterable[float],
    treatment: Iterable[float],
    *,
    metric: Metric = LATENCY,
    scenario: str = "single-stream",
    batch: int = 1,
    durations: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> list[BlockRow]:
    """Block pairs of one point of one process."""
    return [
        BlockRow(
            scenario=scenario,
            metric=metric,
            point={"batch": batch},
            pair=pair,
            position=0 if arm == "control" else 1,
            arm=arm,  # type: ignore[arg-type]
            value=value,
            samples=20,
            durations_ns=tuple(calls),
            dropped=2,
            outliers=0,
        )
        for pair, values in enumerate(zip(control, treatment, strict=True))
        for arm, value, calls in zip(("control", "treatment"), values, durations, strict=True)
    ]


def value(metric: Metric, arm: str, number: float, scenario: str = "offline") -> ValueRow:
    """One number of one arm."""
    return ValueRow(scenario=scenario, metric=metric, arm=arm, value=number)  # type: ignore[arg-type]


def quality(
    control: float,
    treatment: float,
    *,
    metric: Metric = AUC,
    segment: str = "",
    replicates: Sequence[float] | None = None,
    protocol: str = "split 1",
    units: int = 1000,
) -> QualityRow:
    """A quality row; without `replicates` every resample repeats the difference."""
    return QualityRow(
        scenario="quality",
        metric=metric,
        segment=segment,
        control=control,
        treatment=treatment,
        replicates=tuple([treatment - control] * 50 if replicates is None else replicates),
        units=units,
        protocol=protocol,
        primary=not segment,
    )


def failure(scenario: str, name: str = "skipped_work", detail: str = "why") -> EventRow:
    """An event that voids its cell."""
    return EventRow(scenario=scenario, name=name, severity="failure", detail=detail)
