"""Two runs side by side."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_trials import AUC, THROUGHPUT, blocks, quality, trial, value

from bench.compare import Change, compare
from bench.protocol import Protocol
from bench.records import Metric, Trial
from bench.rules import rate
from bench.run import Plan, Run


def run(trials: list[Trial], host: str | None = "host 1") -> Run:
    environment: dict[str, Any] = {"host": host} if host else {}
    return Run(Path("run"), Plan(suite="s", protocol=Protocol(), cells=()), environment, trials)


def served(
    ratio: float, *, spread: float = 0.003, seed: int = 0, stack: str = "fast", speed: float = 1.0
) -> list[Trial]:
    rng = np.random.default_rng(seed)
    return [
        trial(p, blocks([speed] * 4, [speed * ratio * math.exp(spread * rng.normal())] * 4),
              stack=stack)
        for p in range(5)
    ]  # fmt: skip


def only(changes: list[Change]) -> Change:
    (change,) = changes
    return change


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(0.5, 0.4, "better"), (0.5, 0.6, "worse"), (0.5, 0.5, "unchanged")],
)
def test_what_a_stack_buys_is_compared_by_the_ratio_to_its_own_control(
    before: float, after: float, verdict: str
) -> None:
    """Though the second run's host is three times slower: absolute times are not compared."""
    change = only(compare(run(served(before)), run(served(after, seed=1, speed=3.0), "host 2")))
    assert change.verdict == verdict
    assert change.low <= after / before <= change.high
    assert change.change == pytest.approx((change.effect_b or 0) / (change.effect_a or 0))
    assert not change.same_host


def test_direction_decides_what_is_better() -> None:
    def throughput(ratio: float) -> Run:
        return run(
            [
                trial(p, blocks([1.0], [ratio + 0.001 * p], metric=THROUGHPUT, scenario="offline"))
                for p in range(5)
            ]
        )

    assert only(compare(throughput(1.0), throughput(2.0))).verdict == "better"
    assert only(compare(throughput(2.0), throughput(1.0))).verdict == "worse"


def test_noise_is_inconclusive_and_one_process_too() -> None:
    noisy = run(served(0.5, spread=0.2)), run(served(0.45, spread=0.2, seed=1))
    assert only(compare(*noisy)).verdict == "inconclusive"
    lone = only(compare(run(served(0.5)[:1]), run(served(0.1))))
    assert lone.verdict == "inconclusive"
    assert lone.high == math.inf


def test_the_interval_of_a_change_covers_no_change() -> None:
    covered = 0
    for seed in range(200):
        a, b = run(served(0.5, seed=seed)), run(served(0.5, seed=1000 + seed))
        change = only(compare(a, b))
        covered += change.low <= 1.0 <= change.high
    assert rate(covered, 200, 0.999)[2] >= 0.97


@pytest.mark.parametrize(("second", "same"), [("host 1", True), ("host 2", False), (None, False)])
def test_says_whether_the_hosts_are_the_same(second: str | None, same: bool) -> None:
    assert only(compare(run(served(0.5)), run(served(0.5), second))).same_host is same


def test_two_unknown_hosts_are_not_the_same() -> None:
    assert not only(compare(run(served(0.5), None), run(served(0.5), None))).same_host


def test_a_cell_that_one_run_lacks_is_told() -> None:
    change = only(compare(run(served(0.5)), run([])))
    assert (change.verdict, change.effect_b) == ("not comparable", None)
    assert change.reason == "run B has no such effect"
    assert only(compare(run([]), run(served(0.5)))).reason == "run A has no such effect"


def test_a_failure_is_never_a_change() -> None:
    trials = served(0.5)
    failed = [*trials[:4], trial(4, trials[4].rows, status="crash", cause="signal 11")]
    change = only(compare(run(trials), run(failed)))
    assert change.verdict == "not comparable"
    assert "failed in run B: process 4: crash: signal 11" in change.reason


def test_the_control_against_itself_is_no_change() -> None:
    assert compare(run(served(1.0, stack="control")), run(served(1.0, stack="control"))) == []


def scored(loss: float, protocol: str = "split 1") -> Run:
    rng = np.random.default_rng(0)
    noise = 1e-4 * rng.normal(size=(5, 50))
    rows = [
        quality(0.8 + 0.01 * p, 0.8 + 0.01 * p - loss, protocol=protocol,
                replicates=(noise[p] - loss).tolist())
        for p in range(5)
    ]  # fmt: skip
    return run([trial(p, [row]) for p, row in enumerate(rows)])


def test_quality_is_compared_by_its_difference() -> None:
    assert only(compare(scored(0.0), scored(0.001))).verdict == "unchanged"
    worse = only(compare(scored(0.0), scored(0.05)))
    assert (worse.verdict, worse.metric) == ("worse", AUC.name)
    assert worse.change == pytest.approx(-0.05)


def test_quality_of_another_protocol_refuses_to_be_compared() -> None:
    change = only(compare(scored(0.0), scored(0.05, "split 2")))
    assert change.verdict == "not comparable"
    assert "different protocols" in change.reason


def test_a_metric_defined_otherwise_refuses_to_be_compared() -> None:
    def measured(unit: str) -> Run:
        metric = Metric(name="m", unit=unit, direction="lower", scale="ratio", estimator="")
        return run([trial(p, blocks([1.0], [2.0], metric=metric)) for p in range(2)])

    change = only(compare(measured("B"), measured("MiB")))
    assert "defined differently" in change.reason


def test_absolute_seconds_are_not_compared() -> None:
    def prepared(seconds: float) -> Run:
        metric = Metric(name="preparation", unit="s", direction="lower", scale="difference",
                        estimator="")  # fmt: skip
        rows = [value(metric, "control", 0.0), value(metric, "treatment", seconds)]
        return run([trial(p, rows) for p in range(3)])

    change = only(compare(prepared(1.0), prepared(9.0)))
    assert change.verdict == "not comparable"
    assert "absolute difference in s" in change.reason
