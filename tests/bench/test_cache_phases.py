"""cache-phases: what it tells of caches, and of stacks that hold none."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_trials import accusations, run

from bench.device import get_device
from bench.plan import make_plan
from bench.records import AnyRow, ValueRow
from bench.scenarios.caching import PHASES
from bench.store import Store
from bench.suite import Suite

MODEL = 'dcnv2(dataset="planted(rows=6000, ids=600)", width=32, depth=1, cross_layers=1)'
SCENARIO = "cache-phases(batch_size=32, requests=20)"


def measured(stack: str, baseline: str = MODEL) -> dict[str, dict[str, float]]:
    """Metric → arm → value of a trial that nobody was accused in."""
    rows: list[AnyRow] = run(stack, SCENARIO, baseline=baseline)
    assert accusations(rows) == set()
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        if isinstance(row, ValueRow) and row.metric.name != "preparation":
            values.setdefault(row.metric.name, {})[row.arm] = row.value
    return values


@pytest.fixture(scope="module")
def lru() -> dict[str, dict[str, float]]:
    return measured("lru-cache")


def test_every_phase_is_told_with_its_optimum_and_its_skew(lru: dict) -> None:
    kinds = ("latency", "hit_rate", "unique_hit_rate", "optimal_hit_rate", "skew")
    for phase in PHASES:
        assert all(set(lru[f"{phase}_{kind}"]) == {"control", "treatment"} for kind in kinds)
        best = lru[f"{phase}_unique_optimal_hit_rate"]["treatment"]
        assert 0 < best < 1
        assert lru[f"{phase}_hit_rate"]["treatment"] > 0
        assert lru[f"{phase}_hit_rate"]["control"] == 1
        assert lru[f"{phase}_skew"]["control"] == lru[f"{phase}_skew"]["treatment"]
    assert lru["cold_hit_rate"]["treatment"] < lru["warm_hit_rate"]["treatment"]


@pytest.mark.slow
def test_a_cache_that_never_learns_loses_its_hits_in_drift(lru: dict) -> None:
    static = measured("static-hot-cache")
    fall = {
        name: told["warm_hit_rate"]["treatment"] - told["drift_hit_rate"]["treatment"]
        for name, told in {"static": static, "lru": lru}.items()
    }
    assert static["warm_hit_rate"]["treatment"] > lru["warm_hit_rate"]["treatment"]
    assert fall["static"] > fall["lru"]
    assert fall["static"] > 0.1


@pytest.mark.slow
def test_a_store_alone_hits_nothing_and_could_not() -> None:
    told = measured("stored-embedding")
    assert told["warm_hit_rate"]["treatment"] == told["warm_optimal_hit_rate"]["treatment"] == 0


def test_the_control_has_latencies_alone() -> None:
    assert set(measured("control")) == {f"{phase}_latency" for phase in PHASES}


@pytest.mark.slow
def test_towers_are_asked_for_users() -> None:
    told = measured("lfu-cache", 'two-tower(dataset="planted(rows=6000, ids=300)")')
    assert 0 < told["drift_hit_rate"]["treatment"] < 1


def test_a_cache_that_serves_what_was_not_asked_for_is_caught() -> None:
    assert "output_mismatch" in accusations(run("wrong-rows", SCENARIO, baseline=MODEL))


def test_a_stack_without_a_cache_is_skipped_with_the_reason(tmp_path: Path) -> None:
    suite = Suite.model_validate(
        {
            "name": "some",
            "about": "Some",
            "baselines": (f"toy = {MODEL}",),
            "stacks": ("int8-embedding", "int8-linear(min_width=8)+lru-cache"),
            "scenarios": ("cache-phases",),
        }
    )
    plan = make_plan(suite, get_device("cpu"), Store(tmp_path))
    found = {
        c.cell.stack: c.skip for c in plan.cells if c.cell.scenario == "cache-phases"
    }  # fmt: skip
    assert found == {
        "control": "",
        "int8-embedding": "the stack holds no cache to look into",
        "int8-linear(min_width=8)+lru-cache": "",
    }
