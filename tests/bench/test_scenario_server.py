"""The server scenario: what it measures of honest arms, and what it says of others."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from simulated import SimulatedClock
from small_trials import (
    QUICK,
    accusations,
    end_of,
    run,
)

from baselines.errors import LeanRecError
from bench.effects import effects_of
from bench.records import BlockRow, CurveRow, EndRow, EventRow, Trial, TrialRow, ValueRow
from bench.scenarios import server
from bench.scenarios.base import SCENARIOS
from bench.serving import arms
from bench.serving.arms import ServedArms

LAX = "sla_ms=500, percentile=50"  # so that what else the host does seldom matters
EASY = f"server({LAX})"


@pytest.fixture(autouse=True)
def short_probes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are not found rightly so, which few of these tests need."""
    if "long_probes" not in request.fixturenames:
        monkeypatch.setattr(server, "LASTS", 0)


@pytest.fixture
def long_probes() -> None:
    """Rates are found as they are for users."""


def values(rows: list, name: str) -> dict[str, float]:
    return {r.arm: r.value for r in rows if isinstance(r, ValueRow) and r.metric.name == name}


def events(rows: list, name: str) -> list[EventRow]:
    return [r for r in rows if isinstance(r, EventRow) and r.name == name]


def judged(rows: list) -> dict[tuple[str, str], object]:
    """(metric, point) → effect of one trial."""
    head, *body, end = rows
    assert isinstance(head, TrialRow)
    assert isinstance(end, EndRow)
    trial = Trial(head=head, rows=tuple(body), end=end)
    return {(e.metric, e.point): e for e in effects_of([trial], QUICK, set(), {})}


def test_both_arms_are_measured_at_the_same_rates() -> None:
    rows = run("control", EASY)
    assert accusations(rows) == set()
    blocks = [r for r in rows if isinstance(r, BlockRow)]
    assert {(b.metric.name, b.point["load"]) for b in blocks} == {("latency", 50), ("latency", 80)}
    assert {(b.pair, b.arm) for b in blocks if b.point["load"] == 50} == {
        (pair, arm) for pair in range(QUICK.pairs) for arm in ("control", "treatment")
    }
    found = values(rows, "throughput_at_sla")
    assert min(found.values()) > 0
    curves = {r.name: r for r in rows if isinstance(r, CurveRow)}
    for arm, rate in found.items():
        curve = curves[arm]
        assert curve.metric.name == "latency_p50_bound"
        assert curve.limit == 0.5
        bounds = dict(zip(curve.x, curve.y, strict=True))
        assert list(curve.x) == sorted(bounds)
        assert max(x for x, bound in bounds.items() if bound <= curve.limit) == rate
    for name in ("queue_time", "compute_time", "recovery_time"):
        assert min(values(rows, name).values()) > 0
    assert all(0 <= share < 1 for share in values(rows, "shed_share").values())


def test_latency_is_the_time_in_the_queue_and_in_compute() -> None:
    rows = run("control", f"server({LAX}, loads=[50])")
    means = [np.mean(r.durations_ns) / 1e9 for r in rows if isinstance(r, BlockRow)]
    parts = [
        [r.value for r in rows if isinstance(r, ValueRow) and r.metric.name == name]
        for name in ("queue_time", "compute_time")
    ]
    assert len(means) == 2 * QUICK.pairs
    assert np.allclose(means, np.sum(parts, axis=0))


def test_the_headline_is_the_throughput_and_tails_stand_beside_the_medians() -> None:
    found = judged(run("control", EASY))
    assert [key for key, e in found.items() if e.primary] == [("throughput_at_sla", "")]
    for load in ("load=50", "load=80"):
        (tail,) = {metric for metric, point in found if point == load and "latency_p" in metric}
        assert found[tail, load].control > found["latency", load].control


def test_an_sla_that_no_rate_meets_is_a_result() -> None:
    rows = run("control", "server(sla_ms=0.001)")
    assert end_of(rows).status == "ok"
    assert values(rows, "throughput_at_sla") == {"control": 0, "treatment": 0}
    assert [e.severity for e in events(rows, "sla_not_met")] == ["warning"] * 2
    assert "p99 of latency within 0.001 ms" in events(rows, "sla_not_met")[0].detail
    assert not [r for r in rows if isinstance(r, BlockRow)]
    curves = [r for r in rows if isinstance(r, CurveRow)]
    assert [r.name for r in curves] == ["control", "treatment"]
    assert all(bound > 1e-6 for r in curves for bound in r.y)
    effect = judged(rows)["throughput_at_sla", ""]
    assert effect.verdict == "inconclusive"
    assert "the control of process 0 met the SLA at no rate" in effect.note


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes the control 4 ms and the treatment 16 ms, of a time that is simulated."""
    clock = SimulatedClock()

    def taking(call: Callable[..., Any], ms: int) -> Callable[..., Any]:
        def answer(*batch: Any) -> Any:
            clock.time += ms * 1_000_000
            return call(*batch)

        return answer

    class Arms(ServedArms):
        def __init__(self, calls: tuple[Callable[..., Any], ...], *rest: Any) -> None:
            super().__init__((taking(calls[0], 4), taking(calls[1], 16)), *rest)
            self.clock = clock

    def seconds() -> float:
        return clock.time / 1e9

    monkeypatch.setattr(server, "ServedArms", Arms)
    monkeypatch.setattr(arms, "time", SimpleNamespace(perf_counter=seconds, process_time=seconds))
    monkeypatch.setattr(server, "time", SimpleNamespace(monotonic=lambda: 0.0))


@pytest.mark.slow
@pytest.mark.usefixtures("long_probes", "simulated")
def test_a_slower_arm_keeps_the_sla_at_lower_rates_only_and_sheds_in_a_burst() -> None:
    rows = run("honest", "server(sla_ms=80, percentile=90, max_batch=8, loads=[80])")
    assert accusations(rows) == set()
    rates, shed = values(rows, "throughput_at_sla"), values(rows, "shed_share")
    most = 1 / 0.9  # of ten requests one may be late or shed
    assert 0.8 < rates["control"] / (8 / 0.004) < most
    assert 0.8 < rates["treatment"] / (8 / 0.016) < most
    assert shed["control"] < shed["treatment"] < 1
    latency = judged(rows)["latency", "load=80"]
    assert latency.treatment > 2 * latency.control
    assert latency.effect > 2


@pytest.mark.slow
@pytest.mark.parametrize("fraud", ["keeps-last", "small-only", "knows-the-clock"])
def test_who_does_less_work_under_load_is_caught(fraud: str) -> None:
    rows = run(fraud, f"server({LAX}, max_delay_ms=20)")  # batches of more than a row or two
    assert "output_mismatch" in accusations(rows)
    assert {e.detail.split()[0] for e in events(rows, "output_mismatch")} == {"treatment"}


@pytest.mark.parametrize("stack", ["honest-numerics", "int8-linear"])
def test_who_does_the_work_is_not_accused(stack: str) -> None:
    assert accusations(run(stack, EASY)) == set()


def test_nan_is_caught_under_load() -> None:
    assert "non_finite" in accusations(run("nan", EASY))


@pytest.mark.slow
@pytest.mark.parametrize(
    "baseline",
    [
        "small-towers",
        'sasrec(dataset="planted(rows=2000, ids=100)", embedding_dim=8, length=10, epochs=1)',
    ],
)
def test_every_task_is_served(baseline: str) -> None:
    rows = run("control", EASY, baseline=baseline)
    assert accusations(rows) == set()
    assert min(values(rows, "throughput_at_sla").values()) > 0


def test_a_percentile_that_cannot_be_borne_gives_way_to_one_that_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "LONGEST_PROBE", 1e-6)
    rows = run("control", "server(sla_ms=500, loads=[])")
    (event,) = events(rows, "percentile_lowered")
    assert "p50 and not p99" in event.detail
    (metric,) = {r.metric for r in rows if getattr(r, "metric", None) and "sla" in r.metric.name}
    assert metric.estimator == "largest Poisson rate with the bound of p50 of latency within 500 ms"


def test_a_search_that_takes_too_long_is_cut_short_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "LONGEST_SEARCH", 0.0)
    rows = run("control", "server(sla_ms=500, loads=[])")
    assert end_of(rows).status == "ok"
    assert len(events(rows, "search_cut_short")) == 2
    assert not events(rows, "sla_not_met")


def test_arrivals_that_an_idle_server_notices_too_late_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "LATE", 0.0)
    rows = run("control", f"server({LAX}, loads=[20])")
    (event,) = events(rows, "late_arrivals")
    assert event.severity == "warning"
    assert "at load 20" in event.detail


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("sla_ms=0", "greater than 0"),
        ("sla_ms=inf", "finite"),
        ("percentile=98", "50, 90, 95 or 99"),
        ("max_batch=0", "greater than or equal to 1"),
        ("max_delay_ms=-1", "greater than or equal to 0"),
        ("queue=0", "greater than or equal to 1"),
        ("loads=[50, 120]", "less than or equal to 100"),
        ("threads=0", "greater than or equal to 1"),
        ("sla=20", "Did you mean 'sla_ms'?"),
    ],
)
def test_a_wrong_parameter_is_refused(parameters: str, said: str) -> None:
    with pytest.raises(LeanRecError, match=said.replace("?", r"\?")):
        SCENARIOS.make(f"server({parameters})")
