"""The certificate's analysis on trials whose truth is chosen, and one small real certificate."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_trials import LATENCY
from rich.console import Console

from baselines.errors import LeanRecError
from bench import certify as certify_module
from bench.certificate import Certificate, latest_certificate, print_certificate
from bench.certify import certify
from bench.device import get_device
from bench.protocol import Protocol
from bench.records import BlockRow, EndRow, Status, Trial, TrialRow
from bench.runner import Progress
from bench.worker import TrialSpec

CPU = get_device("cpu")
Truth = Callable[[int, int, int], float]  # comparison, percent injected, process → log ratio


class Host:
    """Answers specs of the certificate as a host would whose every ratio is chosen."""

    def __init__(self, truth: Truth, status: Status = "ok") -> None:
        self.truth, self.status = truth, status
        self.specs: list[TrialSpec] = []

    def __call__(self, spec: TrialSpec, limit: float, log: Path) -> Trial:
        self.specs.append(spec)
        head = TrialRow(
            id=spec.id, baseline=spec.baseline, stack=spec.stack, device=spec.device,
            mode=spec.mode, scenarios=(), process=spec.process, seed=spec.process, started="",
        )  # fmt: skip
        rows = tuple(
            self.block(key, arm, pair, spec.process)
            for key in spec.comparisons
            for pair in range(2)
            for arm in ("control", "treatment")
        )
        return Trial(head=head, rows=rows, end=EndRow(status=self.status, cause="why", wall=1.0))

    def block(self, key: tuple[int, int], arm: str, pair: int, process: int) -> BlockRow:
        ratio = float(np.exp(self.truth(*key, process))) if arm == "treatment" else 1.0
        nanoseconds = round(1e6 * ratio)
        return BlockRow.model_validate(
            {
                "scenario": "single-stream",
                "metric": LATENCY,
                "point": {"batch": 64, "comparison": key[0], "injected_percent": key[1]},
                "pair": pair,
                "position": 0,
                "arm": arm,
                "value": 1e-3 * ratio,
                "samples": 1280,
                "durations_ns": tuple(nanoseconds + jitter for jitter in range(-10, 10)),
                "dropped": 2,
                "outliers": 0,
            }
        )


@pytest.fixture
def certified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Certificate]:
    """Certifies a host that measures the given truth, into a cache of its own."""
    monkeypatch.setenv("LEANREC_CACHE", str(tmp_path))

    def run(host: Host, comparisons: int, **more: object) -> Certificate:
        monkeypatch.setattr(certify_module, "run_worker", host)
        return certify(CPU, comparisons, **more)

    return run


def faithful(number: int, percent: int, process: int) -> float:
    """What was injected, and a noise of 0.1 % that differs between processes."""
    return float(np.log1p(percent / 100)) + 1e-3 * (-1) ** (number + process) * (1 + process % 3)


def test_a_quiet_host_raises_no_alarm_and_finds_what_is_beyond_the_margin(certified) -> None:
    host = Host(faithful)
    made = certified(host, 30)
    assert (made.false_alarms.rate, made.false_alarms.n) == (0.0, 30)
    assert made.coverage.rate == 1.0
    assert {p.injected: p.found.rate for p in made.power} == {0.02: 0.0, 0.05: 1.0, 0.1: 1.0}
    assert 0 < made.noise_floor["latency"] < 0.002
    assert (made.device, made.protocol) == ("cpu", Protocol())


def test_alarms_are_counted_each(certified) -> None:
    """Three of forty comparisons of a model with itself come out 10 % slower."""

    def truth(number: int, percent: int, process: int) -> float:
        return faithful(number, percent, process) + (0.1 if number in (3, 20, 39) else 0.0)

    made = certified(Host(truth), 40)
    assert made.false_alarms.rate == pytest.approx(3 / 40)
    assert made.false_alarms.low < 3 / 40 < made.false_alarms.high
    assert made.coverage.rate == pytest.approx(37 / 40)
    assert made.noise_floor["latency"] == pytest.approx(0.105, rel=0.05)  # the 95 % quantile


def test_a_slow_down_that_is_found_half_the_time_is_a_power_of_a_half(certified) -> None:
    def truth(number: int, percent: int, process: int) -> float:
        return faithful(number, percent if number % 4 else 0, process)

    made = certified(Host(truth), 20)
    assert [p.found.rate for p in made.power] == [0.0, 0.5, 0.5]
    assert [p.found.n for p in made.power] == [5, 10, 10]
    assert made.false_alarms.n == 20


def test_what_is_undecided_is_measured_on_to_the_next_look(certified) -> None:
    """A slow-down at the margin itself is never decided; the others are at the first look."""
    looks = Protocol().looks
    host = Host(faithful)
    certified(host, 2)
    asked = [spec.comparisons for spec in host.specs]
    assert len(asked) == looks[-1]
    assert set(asked[0]) == {(0, p) for p in (0, 2, 5, 10)} | {(1, 0)}
    assert all(set(keys) == set(asked[0]) for keys in asked[: looks[0]])
    assert all(set(keys) == {(0, 2)} for keys in asked[looks[0] :])
    assert len({spec.process for spec in host.specs}) == looks[-1]


def test_groups_of_comparisons_have_processes_of_their_own(
    certified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certify_module, "PER_PROCESS", 4)
    host = Host(faithful)
    told: list[Progress] = []
    certified(host, 10, tell=told.append)
    first_rounds = [s for s in host.specs if s.id.endswith("-0")]
    assert [len({n for n, _ in s.comparisons}) for s in first_rounds] == [4, 4, 2]
    assert len({s.process for s in host.specs}) == len(host.specs)
    assert len(told) == len(host.specs)
    assert all(p.seconds_left >= 0 and p.expected == 3 for p in told)


def test_common_rules_are_judged_on_the_same_timings(certified) -> None:
    made = certified(Host(faithful), 10)
    said = {(r.rule, r.injected): r.different.rate for r in made.rules}
    assert len(said) == 24  # three rules, one process or pooled, four truths
    assert said["mean + 5 %, one process", 0.0] == 0.0
    assert said["mean + 5 %, one process", 0.1] == 1.0
    assert said["Student's t on raw timings, one process", 0.0] == 1.0  # a fixed shift of 0.1 %


def test_the_certificate_is_kept_for_its_host_and_device(certified) -> None:
    assert latest_certificate("nowhere", "cpu") is None
    made = certified(Host(faithful), 5)
    kept = latest_certificate(made.host, "cpu")
    assert kept is not None
    assert kept["noise_floor"] == made.noise_floor
    assert latest_certificate(made.host, "cuda") is None


def test_the_table_says_every_rate_with_its_interval(certified) -> None:
    console = Console(record=True, width=200)
    print_certificate(certified(Host(faithful), 5), console)
    text = console.export_text()
    for words in ("identical code", "+5%", "Noise floor of latency", "Mann-Whitney"):
        assert words in text
    assert re.search(r"\+10% +│ slower +│ 100\.0% +│ 29\.2% to 100\.0% +│ 3", text)


def test_a_worker_that_fails_leaves_no_certificate(certified, tmp_path: Path) -> None:
    with pytest.raises(LeanRecError, match=r"ended with crash: why\. There is no certificate"):
        certified(Host(faithful, status="crash"), 5)
    assert not list(tmp_path.glob("certificates/*.json"))


@pytest.mark.slow
def test_a_small_certificate_is_really_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = functools.partial(
        Protocol, looks=(2,), pairs=2, block_seconds=0.02, distinct_batches=8,
        warmup_cap_seconds=0.5,
    )  # fmt: skip
    monkeypatch.setattr(certify_module, "Protocol", quick)
    monkeypatch.setattr(certify_module, "INJECTED", {0: 1, 400: 2})
    made = certify(CPU, 2)
    assert made.false_alarms.n == 2
    (power,) = made.power
    assert power.injected == 4.0
    assert power.found.rate == 1.0
    assert made.noise_floor["latency"] < 1.0
    assert latest_certificate(made.host, "cpu") is not None
