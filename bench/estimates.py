"""The numbers of one effect: from a series, or from the quality rows of all seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bench.protocol import Protocol
from bench.records import Cell, Metric, QualityRow
from bench.series import SAMPLES_TO_TARGET, TIME_TO_QUALITY, Series
from bench.stats import (
    Interval,
    at_least_p,
    minimum_effect_p,
    quality_interval,
    ratio_interval,
)
from bench.verdicts import (
    QUALITY_MARGINS,
    Verdict,
    gain_of,
    quality_verdict,
    ratio_verdict,
    tolerated_loss,
)

HEADLINES = {  # scenario → the metric it is judged by
    "train": "throughput",
    "distributed": "throughput",
    "offline": "throughput",
    "single-stream": "latency",
    "server": "throughput_at_sla",
    "cold-start": "time_to_first_answer",
    "cache-phases": "warm_latency",
    "refresh": None,  # its quality alone
}
TIMED = ("latency", "throughput")  # what a scenario of the user's own is judged by
_MISSED = {  # metric → what an arm did whose value is not a number to compare
    SAMPLES_TO_TARGET: "did not reach the target quality",
    TIME_TO_QUALITY.name: "did not reach the target quality",
    "throughput_at_sla": "met the SLA at no rate that was asked for",
}
UNDEFINED_RESAMPLES = 0.1  # the share of undefined resamples beyond which there is no interval
Fields = dict[str, Any]  # of a `bench.effects.Effect`


def estimate_series(
    series: Series, protocol: Protocol, noise_floor: float, failure: str | None
) -> Fields:
    """The effect of a series. failure: why its cell is void, None where it is not."""
    metric, ratio = series.metric, series.metric.scale == "ratio"
    processes = sorted(series.control.keys() & series.treatment.keys())
    level = protocol.level_at(len(processes))
    margin = max(protocol.margin, noise_floor) if ratio else 0.0
    fields = {
        **_identity(series.cell, metric),
        "point": series.point,
        "control": _typical(_chosen(series.control, processes), ratio),
        "treatment": _typical(_chosen(series.treatment, processes), ratio),
        "level": level,
        "margin": margin,
        "n_processes": len(processes),
        "n_blocks": series.blocks,
        "primary": _is_headline(series.cell.scenario, metric),
        "note": _notes(series.note, _lone(processes)),
    }
    if failure:
        return _without_estimate(fields, "failed", failure)
    if fault := _fault(series, processes):
        return _without_estimate(fields, *fault)
    pairs = [(series.control[p], series.treatment[p]) for p in processes]
    if not ratio:
        interval = ratio_interval([t - c for c, t in pairs], level)
        why = "no margin is defined for a difference in it, so there is no verdict"
        return {
            **fields,
            **_bounds(interval),
            "verdict": "inconclusive",
            "note": _notes(fields["note"], why),
        }
    interval = ratio_interval([math.log(t / c) for c, t in pairs], level)
    return {
        **fields,
        **_bounds(interval, _exp),
        "verdict": ratio_verdict(interval, margin, metric.unit, metric.direction),
        "p_value": _over_looks(minimum_effect_p(interval, math.log1p(margin)), level, protocol),
    }


def _is_headline(scenario: str, metric: Metric) -> bool:
    if scenario in HEADLINES:
        return HEADLINES[scenario] == metric.name
    return metric.name in TIMED


def _fault(series: Series, processes: Sequence[int]) -> tuple[Verdict, str] | None:
    """The verdict and the reason where a series bears no estimate; None where it does."""
    if not processes:
        lacking = "control" if series.treatment else "treatment"
        return "inconclusive", f"no {lacking} value of the same process"
    missed = _MISSED.get(series.metric.name)
    positive = series.metric.scale == "ratio"
    for arm, values in (("control", series.control), ("treatment", series.treatment)):
        for process in processes:
            value = values[process]
            if math.isfinite(value) and (value > 0 or not positive):
                continue
            if missed:
                verdict: Verdict = "inconclusive" if arm == "control" else "failed"
                return verdict, f"the {arm} of process {process} {missed}"
            needed = "positive, finite" if positive else "finite"
            return "failed", f"the {arm} of process {process} is not a {needed} number"
    return None


def estimate_quality(
    cell: Cell,
    metric: Metric,
    segment: str,
    rows: Sequence[QualityRow],
    protocol: Protocol,
    failure: str | None,
) -> Fields | None:
    """The effect on a quality metric; rows: one a seed.

    None for a segment in which the metric is not defined for the control of any seed.
    """
    defined = [row for row in rows if math.isfinite(row.control)]
    if not defined and segment:
        return None
    controls = [row.control for row in defined]
    control = _typical(controls)
    level = protocol.level_at(len(defined))
    left_out = len(rows) - len(defined)
    fields = {
        **_identity(cell, metric),
        "scale": "difference",
        "segment": segment,
        "control": control,
        "treatment": _typical(row.treatment for row in defined),
        "level": level,
        "margin": tolerated_loss(protocol.quality_margin, control),
        "seed_spread": float(np.std(controls, ddof=1)) if len(defined) > 1 else None,
        "protocol": defined[0].protocol if defined else "",
        "n_processes": len(defined),
        "n_blocks": 0,
        "primary": not segment and any(row.primary for row in rows),
        "note": _notes(
            f"not defined in {left_out} processes, which are left out" if left_out else "",
            _lone(defined),
        ),
    }
    if why := failure or _quality_fault(defined):
        return _without_estimate(fields, "failed", why)
    replicates = np.array([row.replicates for row in defined])
    whole = np.isfinite(replicates).all(axis=0)
    undefined = int((~whole).sum())
    if undefined:
        why = f"not defined in {undefined} of {len(whole)} resamples"
        if undefined > UNDEFINED_RESAMPLES * len(whole):
            return _without_estimate(fields, "inconclusive", why)
        fields["note"] = _notes(fields["note"], why)
    interval = quality_interval(
        [row.treatment - row.control for row in defined],
        replicates[:, whole],
        min(row.units for row in defined),
        level,
    )
    gain = gain_of(interval, metric.direction)
    safe_p = at_least_p(gain, -fields["margin"])
    harm_p = 1.0 - safe_p if interval.df > 0 else 1.0
    return {
        **fields,
        **_bounds(interval),
        "verdict": quality_verdict(gain, fields["margin"], level),
        "margins": {
            name: quality_verdict(gain, tolerated_loss(name, control), level)
            for name in QUALITY_MARGINS
        },
        "p_value": _over_looks(harm_p if segment else safe_p, level, protocol),
    }


def _quality_fault(rows: Sequence[QualityRow]) -> str:
    """Why rows of a quality metric bear no difference; "" where they do."""
    if not rows:
        return "the metric is not defined on this test set"
    if not all(math.isfinite(row.treatment) for row in rows):
        return "the metric is not a finite number for the treatment"
    if len({row.protocol for row in rows}) > 1:
        return "processes followed different quality protocols, which do not compare"
    if len({len(row.replicates) for row in rows}) > 1 or len(rows[0].replicates) < 2:
        return "processes do not hold the same number of bootstrap replicates"
    return ""


def _identity(cell: Cell, metric: Metric) -> Fields:
    return {
        **cell.model_dump(),
        "metric": metric.name,
        "unit": metric.unit,
        "direction": metric.direction,
        "scale": metric.scale,
        "estimator": metric.estimator,
    }


def _without_estimate(fields: Fields, verdict: Verdict, why: str) -> Fields:
    nothing = dict.fromkeys(("effect", "low", "high"), math.nan)
    return {**fields, **nothing, "verdict": verdict, "note": _notes(why, fields["note"])}


def _bounds(interval: Interval, scale: Callable[[float], float] = float) -> Fields:
    return {
        "effect": scale(interval.estimate),
        "low": scale(interval.low),
        "high": scale(interval.high),
    }


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # e^710 overflows


def _over_looks(p: float, level: float, protocol: Protocol) -> float:
    """p made valid over the looks: divided by the share of alpha that this look may spend."""
    return min(1.0, p * protocol.alpha / (1.0 - level))


def _chosen(values: dict[int, float], processes: Sequence[int]) -> list[float]:
    """Those of the paired processes; all where no process is paired, so that they can be shown."""
    return [values[p] for p in processes] or list(values.values())


def _typical(values: Iterable[float], ratio: bool = False) -> float:
    """The geometric mean for ratios, the arithmetic mean otherwise; NaN of none."""
    array = np.array(list(values), dtype=np.float64)
    if not array.size or np.isnan(array).any():
        return math.nan
    if np.all(array == array[0]):  # exact counts stay exact
        return float(array[0])
    return float(np.exp(np.log(array).mean())) if ratio else float(array.mean())


def _lone(processes: Sequence[object]) -> str:
    return "one process bears no interval" if len(processes) == 1 else ""


def _notes(*notes: str) -> str:
    return "; ".join(filter(None, notes))
