"""Limits: what is met, broken or undecided, and by how much."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.errors import LeanRecError
from bench.effects import Effect
from bench.limits import Finding, Limits, findings, reach, standing


def effect(**changes: Any) -> Effect:
    fields: dict[str, Any] = {
        "baseline": "dcnv2", "stack": "bf16", "scenario": "offline", "device": "cpu",
        "metric": "throughput", "unit": "samples/s", "direction": "higher", "scale": "ratio",
        "estimator": "a window", "control": 100.0, "treatment": 150.0, "effect": 1.5, "low": 1.4,
        "high": 1.6, "level": 0.95, "margin": 0.02, "verdict": "faster", "n_processes": 5,
        "n_blocks": 40, "primary": True,
    }  # fmt: skip
    return Effect.model_validate(fields | changes)


def auc(effect_: float, low: float, high: float, verdict: str) -> Effect:
    return effect(
        scenario="quality", metric="auc", unit="", scale="difference", control=0.8,
        effect=effect_, low=low, high=high, margin=0.001, verdict=verdict,
        margins={"auc-0.001": verdict, "mlperf-99": "non-inferior"},
    )  # fmt: skip


def latency(metric: str = "latency", **changes: Any) -> Effect:
    return effect(
        **{"scenario": "single-stream", "metric": metric, "unit": "s", "direction": "lower",
           "control": 0.010, "effect": 0.5, "low": 0.4, "high": 0.6, "point": "batch=1",
           "primary": metric == "latency"} | changes
    )  # fmt: skip


def only(effects: list[Effect], **limits: Any) -> Finding:
    (found,) = findings(effects, Limits(**limits))
    return found


@pytest.mark.parametrize(
    ("wanted", "state"), [(1.2, "met"), (1.4, "met"), (1.5, "undecided"), (1.7, "broken")]
)
def test_a_speed_up_is_met_by_its_whole_interval(wanted: float, state: str) -> None:
    found = only([effect()], min_speedup=wanted)
    assert (found.state, found.value, found.bound) == (state, 1.5, 1.4)
    assert found.distance == pytest.approx(max(0.0, wanted / 1.4 - 1))


def test_a_time_is_turned_around() -> None:
    found = only([latency()], min_speedup=1.5)
    assert (found.state, found.value) == ("met", 2.0)
    assert found.bound == pytest.approx(1 / 0.6)


@pytest.mark.parametrize(
    ("allowed", "state"), [(0.007, "met"), (0.0055, "undecided"), (0.003, "broken")]
)
def test_an_absolute_latency_is_the_controls_times_the_ratio(allowed: float, state: str) -> None:
    found = only([latency()], max_latency=allowed)
    assert (found.state, found.value) == (state, 0.005)
    assert found.bound == pytest.approx(0.006)


def test_latency_is_that_of_the_highest_percentile_of_each_point() -> None:
    effects = [latency(), latency("latency_p90"), latency("latency_p99"),
               latency("latency_p90", point="batch=32")]  # fmt: skip
    found = findings(effects, Limits(max_latency=1.0))
    assert [(f.metric, f.point) for f in found] == [
        ("latency_p99", "batch=1"), ("latency_p90", "batch=32"),
    ]  # fmt: skip


def test_memory_is_the_peak_of_serving() -> None:
    peak = {"metric": "peak_memory", "unit": "B", "direction": "lower", "primary": False,
            "control": 1000.0, "effect": 0.5, "low": 0.5, "high": 0.5}  # fmt: skip
    effects = [effect(**peak), effect(**peak, scenario="train"), effect(**peak, scenario="quality")]
    found = findings(effects, Limits(max_memory=600))
    assert [(f.scenario, f.state, f.bound) for f in found] == [
        ("offline", "met", 500.0), ("quality", "met", 500.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "state"),
    [("non-inferior", "met"), ("better", "met"), ("inconclusive", "undecided"),
     ("inferior", "broken"), ("failed", "broken")],
)  # fmt: skip
def test_quality_is_judged_by_its_named_margin(verdict: str, state: str) -> None:
    found = only([auc(-0.002, -0.004, 0.0, verdict)], max_quality_loss="auc-0.001")
    assert (found.state, found.allowed, found.value) == (state, 0.001, 0.002)
    assert found.distance == (0 if state == "met" else pytest.approx(3.0))
    assert only([auc(-0.002, -0.004, 0.0, verdict)], max_quality_loss="mlperf-99").allowed == (
        pytest.approx(0.008)
    )


def test_what_failed_keeps_no_limit() -> None:
    nothing = dict.fromkeys(("effect", "low", "high"), math.nan)
    assert only([effect(**nothing, verdict="failed")], min_speedup=0.1).state == "broken"
    assert only([effect(**nothing, verdict="inconclusive")], min_speedup=0.1).state == "undecided"


def test_a_stack_stands_by_the_worst_of_its_findings() -> None:
    kept, open_ = only([effect()], min_speedup=1.2), only([effect()], min_speedup=1.5)
    beaten, other = only([effect()], min_speedup=9.0), only([latency()], max_latency=9.0)
    assert (kept.state, open_.state, beaten.state) == ("met", "undecided", "broken")
    speed = {"min_speedup"}
    assert standing([kept], speed) == "met"
    assert standing([kept, open_], speed) == "undecided"
    assert standing([kept, open_, beaten], speed) == "broken"
    assert standing([kept], speed, failed=True) == "broken"
    assert standing([kept], speed | {other.limit}) == "undecided"  # nobody knows of its latency
    assert standing([], set()) == "met"


def test_segments_are_not_held() -> None:
    effects = [effect(), effect(segment="popularity=0")]
    assert len(findings(effects, Limits(min_speedup=1.2))) == 1


def test_patterns_choose_the_cells() -> None:
    effects = [effect(), latency()]
    found = findings(effects, Limits(min_speedup=1.2), ["*-offline-*"])
    assert [f.scenario for f in found] == ["offline"]


@pytest.mark.parametrize("patterns", [[], ["*-train-*"]])
def test_a_limit_that_concerns_nothing_is_an_error(patterns: list[str]) -> None:
    with pytest.raises(LeanRecError, match="max_memory concerns nothing"):
        findings([effect()], Limits(max_memory=1), patterns)


@pytest.mark.parametrize(
    ("given", "limit"),
    [((None, -1.0, None, None), "min_speedup"), (("auc-1", None, None, None), "max_quality_loss"),
     ((None, None, math.nan, None), "max_latency"), ((None, None, None, 0.0), "max_memory")],
)  # fmt: skip
def test_a_limit_that_is_none_is_refused(given: tuple[Any, ...], limit: str) -> None:
    with pytest.raises(LeanRecError, match=limit):
        Limits.of(*given)


def test_limits_are_given_in_milliseconds_and_mebibytes() -> None:
    assert Limits.of(None, None, 5.0, 2.0, 3.0) == Limits(
        max_latency=0.005, max_memory=2 * 2**20, max_preparation=3.0
    )


def preparation(low: float, high: float) -> Effect:
    return effect(
        metric="preparation", unit="s", direction="lower", scale="difference", control=0.5,
        effect=1.5, low=low, high=high, margin=0.0, verdict="inconclusive", primary=False,
    )  # fmt: skip


@pytest.mark.parametrize(("allowed", "state"), [(2.1, "met"), (2.05, "undecided"), (1.8, "broken")])
def test_preparation_is_the_controls_and_the_difference(allowed: float, state: str) -> None:
    found = only([preparation(1.4, 1.6)], max_preparation=allowed)
    assert (found.state, found.value, found.bound) == (state, 2.0, 2.1)


def test_preparation_of_a_single_process_decides_nothing() -> None:
    found = only([preparation(-math.inf, math.inf)], max_preparation=100.0)
    assert found.state == "undecided"


def test_the_reach_of_limits_is_what_was_measured() -> None:
    found = reach([effect(), effect(effect=0.5), latency(), preparation(1.4, 1.6)])
    assert found == {
        "min_speedup": (0.5, 2.0), "max_latency": (0.005, 0.005), "max_preparation": (2.0, 2.0),
    }  # fmt: skip
    assert reach([]) == {}


ratios = st.floats(0.05, 20.0)


@given(ratios, ratios, ratios, ratios, st.sampled_from(["higher", "lower"]))
def test_states_follow_the_interval(
    a: float, b: float, c: float, wanted: float, direction: str
) -> None:
    low, value, high = sorted((a, b, c))
    found = only(
        [effect(effect=value, low=low, high=high, direction=direction)], min_speedup=wanted
    )
    worst, best = (low, high) if direction == "higher" else (1 / high, 1 / low)
    expected = "met" if worst >= wanted else "broken" if best < wanted else "undecided"
    assert found.state == expected
    assert (found.distance == 0) == (expected == "met")
