"""Records → series: one value a process and arm for each metric of each cell at each point."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.records import (
    CONTROL,
    Arm,
    BlockRow,
    Cell,
    EventRow,
    Metric,
    QualityRow,
    Trial,
    TrialRow,
    ValueRow,
    point_text,
)
from bench.stats import supported_percentile, tail_bound

SAMPLES_TO_TARGET = "samples_to_target"
TIME_TO_QUALITY = Metric(
    name="time_to_quality",
    unit="s",
    direction="lower",
    scale="ratio",
    estimator="samples to the target ÷ throughput of a process",
)
_NANOSECONDS = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}


@dataclass
class Series:
    """One metric of one cell at one point: process → value of each arm, in the metric's unit.

    durations: arm → process → ns of every timed call, of latency blocks. blocks: blocks of both
    arms that the values rest on.
    """

    cell: Cell
    metric: Metric
    point: str
    control: dict[int, float]
    treatment: dict[int, float]
    blocks: int = 0
    note: str = ""
    durations: dict[Arm, dict[int, list[int]]] = field(default_factory=dict)


def cell_of(head: TrialRow, scenario: str) -> Cell:
    """The cell that a trial's rows of `scenario` belong to."""
    return Cell(baseline=head.baseline, stack=head.stack, scenario=scenario, device=head.device)


def causes(trial: Trial) -> dict[str, str]:
    """Scenario → the first failure that voids what this trial says of it."""
    found = [
        (event.scenario, f"{event.name}: {event.detail}")
        for event in trial.rows
        if isinstance(event, EventRow) and event.severity == "failure"
    ]
    if trial.end.status != "ok":
        found.append(("", f"{trial.end.status}: {trial.end.cause}"))
    voided: dict[str, str] = {}
    for scenario, cause in found:
        for name in (scenario,) if scenario else trial.head.scenarios:
            voided.setdefault(name, f"process {trial.head.process}: {cause}")
    return voided


def failed_cells(trials: Iterable[Trial]) -> dict[Cell, str]:
    """Every cell that a failure in any of its trials voids, with the first cause."""
    failed: dict[Cell, str] = {}
    for trial in trials:
        for scenario, cause in causes(trial).items():
            failed.setdefault(cell_of(trial.head, scenario), cause)
    return failed


def block_series(trials: Iterable[Trial]) -> list[Series]:
    """Series of every block metric; an arm's value in a process is the mean of its blocks.

    The mean is geometric for ratios, so that the log ratio of two arms is the mean of the log
    ratios of the block pairs. Pairs that lack an arm are left out, with a note.
    """
    pairs: dict[tuple[Cell, Metric, str], dict[tuple[str, int, int], dict[Arm, BlockRow]]]
    pairs = defaultdict(lambda: defaultdict(dict))
    for trial in trials:
        head = trial.head
        cells = {s: cell_of(head, s) for s in {r.scenario for r in trial.rows}}
        for row in trial.rows:
            if isinstance(row, BlockRow):
                key = (cells[row.scenario], row.metric, point_text(row.point))
                pairs[key][head.id, head.process, row.pair][row.arm] = row
    return [_block_series(*key, found) for key, found in pairs.items()]


def _block_series(
    cell: Cell,
    metric: Metric,
    point: str,
    pairs: dict[tuple[str, int, int], dict[Arm, BlockRow]],
) -> Series:
    blocks: dict[Arm, dict[int, list[BlockRow]]] = {
        "control": defaultdict(list),
        "treatment": defaultdict(list),
    }
    whole = 0
    for (_, process, _), arms in pairs.items():
        if len(arms) == 2:
            whole += 1
            for arm, row in arms.items():
                blocks[arm][process].append(row)
    values = {
        arm: {p: _mean([row.value for row in rows], metric) for p, rows in by_process.items()}
        for arm, by_process in blocks.items()
    }
    outliers = sum(
        r.outliers for by_process in blocks.values() for rows in by_process.values() for r in rows
    )
    lost = len(pairs) - whole
    notes = [f"{lost} block pairs lacked an arm" if lost else ""]
    notes.append(f"{outliers} outliers, kept" if outliers else "")
    durations: dict[Arm, dict[int, list[int]]] = {}
    if metric.name == "latency":
        durations = {
            arm: {
                p: [d for row in rows for d in row.durations_ns] for p, rows in by_process.items()
            }
            for arm, by_process in blocks.items()
        }
    return Series(
        cell,
        metric,
        point,
        values["control"],
        values["treatment"],
        blocks=2 * whole,
        note="; ".join(filter(None, notes)),
        durations=durations,
    )


def tail_series(latency: Series) -> Series | None:
    """The highest latency percentile that every process of both arms has the samples to bear.

    None where not even the median has them.
    """
    arms = latency.durations
    counts = [len(calls) for by_process in arms.values() for calls in by_process.values()]
    n = min(counts, default=0)
    percentile = supported_percentile(n)
    if percentile is None:
        return None
    scale = _NANOSECONDS.get(latency.metric.unit, 1.0)
    values = {
        arm: {p: float(np.percentile(calls, percentile)) / scale for p, calls in by_process.items()}
        for arm, by_process in arms.items()
    }
    bounds = [
        f"{max(tail_bound(calls, percentile) for calls in arms[arm].values()) / scale:.4g}"
        for arm in ("control", "treatment")
    ]
    metric = Metric(
        name=f"latency_p{percentile:g}",
        unit=latency.metric.unit,
        direction=latency.metric.direction,
        scale=latency.metric.scale,
        estimator=f"p{percentile:g} of the calls of a process",
    )
    note = (
        f"≥{n} calls a process and arm; 99 % upper bounds in the worst process: "
        f"control {bounds[0]}, treatment {bounds[1]} {latency.metric.unit}"
    )
    return Series(
        latency.cell,
        metric,
        latency.point,
        values["control"],
        values["treatment"],
        blocks=latency.blocks,
        note=note,
    )


def value_series(trials: Iterable[Trial]) -> list[Series]:
    """Series of every value metric.

    A trial that holds one arm only is paired, by process, with the control arm of the trials of
    the stack "control" of the same baseline, device, mode and scenario that did not fail.
    """
    found: dict[tuple[Cell, str, Metric, str], dict[Arm, dict[int, list[float]]]]
    found = defaultdict(lambda: {"control": defaultdict(list), "treatment": defaultdict(list)})
    for trial in trials:
        voided = causes(trial) if trial.head.stack == CONTROL else {}
        for row in trial.rows:
            if isinstance(row, ValueRow) and row.scenario not in voided:
                cell = cell_of(trial.head, row.scenario)
                key = (cell, trial.head.mode, row.metric, point_text(row.point))
                found[key][row.arm][trial.head.process].append(row.value)
    series = []
    for (cell, mode, metric, point), arms in list(found.items()):
        control, treatment = arms["control"], arms["treatment"]
        base = cell.model_copy(update={"stack": CONTROL}), mode, metric, point
        if not control and base in found:
            control = found[base]["control"]
        if treatment or cell.stack != CONTROL:
            means = [{p: _mean(v, metric) for p, v in arm.items()} for arm in (control, treatment)]
            series.append(Series(cell, metric, point, means[0], means[1]))
    return series


def time_to_quality_series(values: Iterable[Series], blocks: Iterable[Series]) -> list[Series]:
    """Seconds to the target quality: samples to it ÷ the throughput of the same process and arm."""
    throughput = [s for s in blocks if s.metric.name == "throughput"]
    series = []
    for samples in values:
        if samples.metric.name != SAMPLES_TO_TARGET:
            continue
        for rate in (s for s in throughput if s.cell == samples.cell):
            control, treatment = (
                {
                    p: n / rates[p] if rates[p] > 0 else math.nan
                    for p, n in counts.items()
                    if p in rates
                }
                for counts, rates in (
                    (samples.control, rate.control),
                    (samples.treatment, rate.treatment),
                )
            )
            series.append(
                Series(samples.cell, TIME_TO_QUALITY, rate.point, control, treatment, rate.blocks)
            )
    return series


def quality_rows(
    trials: Iterable[Trial],
) -> dict[tuple[Cell, Metric, str], dict[int, QualityRow]]:
    """(cell, metric, segment) → process → quality row."""
    found: dict[tuple[Cell, Metric, str], dict[int, QualityRow]] = defaultdict(dict)
    for trial in trials:
        for row in trial.rows:
            if isinstance(row, QualityRow):
                cell = cell_of(trial.head, row.scenario)
                found[cell, row.metric, row.segment][trial.head.process] = row
    return found


def _mean(values: Sequence[float], metric: Metric) -> float:
    """NaN where a value is not finite, or not positive though the metric is a ratio.

    Infinity alone passes: a target that was never reached.
    """
    if metric.scale == "difference":
        return sum(values) / len(values)
    if not all(v > 0 for v in values):
        return math.nan
    if len(set(values)) == 1:  # exact counts stay exact
        return values[0]
    return math.exp(math.fsum(map(math.log, values)) / len(values))
