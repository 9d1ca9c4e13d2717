from __future__ import annotations

from pathlib import Path

import pytest
from small_trials import (
    QUICK,
    accusations,
    run,
)

from baselines.errors import LeanRecError
from bench import network
from bench.device import get_device
from bench.pipeline import Pipeline
from bench.plan import make_plan
from bench.ranks import Order, Ranks, Ready
from bench.records import AnyRow, BlockRow, EventRow, ValueRow
from bench.scenarios.base import SCENARIOS
from bench.scenarios.distributed import WIRE_TOLERANCE
from bench.store import Store
from bench.suite import Suite

PLAIN = (
    'dcnv2(dataset="planted(rows=2000, ids=300)", width=32, depth=1, cross_layers=1, '
    "batch_size=64, epochs=1, dropout=0.0)"
)


def values(rows: list[AnyRow], metric: str) -> dict[str, float]:
    return {r.arm: r.value for r in rows if isinstance(r, ValueRow) and r.metric.name == metric}


def weight_bytes(store: Path) -> int:
    model = Pipeline.from_specs(PLAIN, "control", get_device("cpu"), 0, Store(store)).fresh_model(
        get_device("cpu").torch_device
    )
    return sum(p.nbytes for p in model.parameters())


@pytest.mark.slow
def test_ranks_behind_a_modelled_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "reason_against", lambda: "this host is a test")
    scenario = "distributed(rate_mbit=100, delay_ms=4.0)"
    rows = run("ddp", scenario, baseline=PLAIN)

    assert accusations(rows) == set()
    point = {"batch": 64, "ranks": 2, "mbit": 100, "delay_us": 4000}
    blocks = [row for row in rows if isinstance(row, BlockRow)]
    assert [row.point for row in blocks] == [point] * 2 * QUICK.pairs
    assert {row.arm for row in blocks} == {"control", "treatment"}
    weights = weight_bytes(tmp_path)
    assert values(rows, "sent") == {"control": 0, "treatment": weights}
    assert values(rows, "collectives") == {"control": 0, "treatment": 1}
    assert values(rows, "step_time")["treatment"] >= 2 * 0.004 + weights / (100e6 / 8)
    efficiency = values(rows, "efficiency")
    assert efficiency["control"] == 1
    assert 0 < efficiency["treatment"] < 1.5
    assert values(rows, "training_state")["treatment"] >= 3 * weights
    assert set(values(rows, "samples_to_target")) == {"control", "treatment"}
    (link,) = [row for row in rows if isinstance(row, EventRow) and row.name == "link"]
    assert link.detail.startswith("modelled, since this host is a test: 100 Mbit/s a rank")


@pytest.mark.slow
def test_the_a_a_arm_is_two_processes_that_send_nothing() -> None:
    rows = run("control", "distributed(rate_mbit=1000)", baseline=PLAIN)
    assert accusations(rows) == set()
    assert values(rows, "sent") == {"control": 0, "treatment": 0}
    assert values(rows, "efficiency") == {}
    assert len([row for row in rows if isinstance(row, BlockRow)]) == 2 * QUICK.pairs


@pytest.mark.slow
def test_ranks_on_networks_of_their_own(tmp_path: Path) -> None:
    if reason := network.reason_against():
        pytest.skip(reason)
    pipeline = Pipeline.from_specs(PLAIN, "ddp", get_device("cpu"), 0, Store(tmp_path))
    weights, mbit = weight_bytes(tmp_path), 20
    with Ranks(2, network.isolated(2)) as ranks, network.joined(ranks, mbit):
        ranks.begin(pipeline.job(interface=network.INTERFACE))
        assert ranks.hear(Ready, 300)[0].rows == 64
        ranks.order(Order(picks=(0, 1)), 300)
        windows = ranks.order(Order(picks=tuple(range(8))), 300)
    for window in windows:
        assert window.sent == 8 * weights
        assert window.on_wire is not None
        assert abs(window.on_wire / window.sent - 1) < WIRE_TOLERANCE
        burst = 2**17  # bytes that the bucket lets through at once
        assert (window.end - window.start) / 1e9 >= (8 * weights - burst) / (mbit * 1e6 / 8)


def test_a_host_without_the_tools_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.shutil, "which", lambda tool: None if tool == "tc" else tool)
    assert network.reason_against() == "tc not found"


def test_only_root_makes_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(network.os, "geteuid", lambda: 1000)
    assert network.reason_against() == "only root may make network namespaces"


@pytest.mark.parametrize(
    "spec", ["distributed(rate_mbit=-1)", "distributed(delay_ms=-1.0)", "distributed(threads=0)"]
)
def test_impossible_numbers_are_refused(spec: str) -> None:
    with pytest.raises(LeanRecError):
        SCENARIOS.make(spec)


def test_each_training_scenario_takes_the_ranks_that_it_measures(tmp_path: Path) -> None:
    suite = Suite(
        name="ranks", about="Ranks", baselines=(f"small = {PLAIN}",),
        stacks=("ddp", "int8-linear", "bf16"), scenarios=("train", "distributed"),
    )  # fmt: skip
    plan = make_plan(suite, get_device("cpu"), Store(tmp_path))
    skipped = {(c.cell.stack, c.cell.scenario): c.skip for c in plan.cells}
    assert skipped["ddp", "train"] == "trains on 2 ranks, which the scenario distributed measures"
    assert skipped["ddp", "distributed"] == ""
    assert skipped["bf16", "train"] == ""
    assert skipped["bf16", "distributed"].startswith("trains on one rank")
    assert "changes nothing that training shows" in skipped["int8-linear", "train"]
    assert "changes nothing that training shows" in skipped["int8-linear", "distributed"]
    assert skipped["control", "distributed"] == skipped["control", "train"] == ""
