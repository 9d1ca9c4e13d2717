from __future__ import annotations

import math
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from small_trials import (
    DCNV2,
    FRAUDS,
    QUICK,
    accusations,
    run,
)
from torch.nn.functional import binary_cross_entropy

from baselines.data.sources import cache_dir
from baselines.registry import load_plugin
from bench.comparison import Comparison
from bench.device import get_device
from bench.pipeline import Pipeline
from bench.records import BlockRow, EventRow, QualityRow, ValueRow
from bench.scenarios.base import SCENARIOS, TimedScenario, all_threads
from bench.scenarios.quality import MIN_SEGMENT_UNITS
from bench.store import Store


def comparison(stack: str = "control", baseline: str = DCNV2) -> Comparison:
    load_plugin(FRAUDS)
    store = Store(cache_dir() / "small-trials")
    treatment = Pipeline.from_specs(baseline, stack, get_device("cpu"), 0, store)
    made = Comparison(treatment.control(), treatment, QUICK, np.random.default_rng(0))
    list(made.build())
    return made


def of(rows: list, kind: type) -> list:
    return [row for row in rows if isinstance(row, kind)]


@pytest.mark.parametrize(
    ("name", "metric", "sizes"),
    [("offline", "throughput", [16, 64]), ("single-stream", "latency", [1, 7])],
)
def test_a_timed_scenario_measures_every_size(name: str, metric: str, sizes: list[int]) -> None:
    rows = run("control", f"{name}(batch_sizes={sizes})")
    blocks = of(rows, BlockRow)
    assert accusations(rows) == set()
    assert [b.point for b in blocks] == [
        {"batch": size, "threads": 1} for size in sizes for _ in range(2 * QUICK.pairs)
    ]
    assert {(b.metric.name, b.scenario) for b in blocks} == {(metric, name)}
    assert all(b.samples % b.point["batch"] == 0 for b in blocks)
    assert {r.metric.name for r in of(rows, ValueRow)} == {"preparation"}


def test_the_load_is_of_distinct_requests_drawn_from_the_test_split() -> None:
    made = comparison()
    scenario = SCENARIOS.make("offline(batch_sizes=[5, 30], threads=1)")
    assert isinstance(scenario, TimedScenario)
    test = {tuple(ids) for ids in made.control.data.test.inputs[0].tolist()}
    for load, size in zip(scenario.loads(made), (5, 30), strict=True):
        assert load.batch_size == size
        assert len(load.batches) == QUICK.distinct_batches
        contents = {batch[0].numpy().tobytes() for batch in load.batches}
        assert len(contents) == QUICK.distinct_batches
        for (ids,) in load.batches:
            assert len(ids) == size
            assert {tuple(row) for row in ids.tolist()} <= test


def test_the_arms_of_an_a_a_comparison_are_two_models_with_the_same_answers() -> None:
    first, second = comparison().served
    tables = [next(iter(p.parameters())) for p in (first, second)]
    assert torch.equal(*tables)
    assert tables[0].data_ptr() != tables[1].data_ptr()


def test_a_call_too_short_to_be_timed_is_said_with_its_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.blocks.OVERHEAD_FACTOR", 10**9)
    rows = run("control", "single-stream(batch_sizes=[4])")
    (event,) = of(rows, EventRow)
    assert (event.name, event.severity) == ("too_small", "failure")
    assert event.detail.startswith("batch=4")
    assert of(rows, BlockRow) == []


def test_preparation_includes_what_the_first_calls_cost_more() -> None:
    rows = run("honest-bytes", "single-stream(batch_sizes=[4])")
    seconds = {row.arm: row.value for row in of(rows, ValueRow)}
    assert set(seconds) == {"control", "treatment"}
    assert min(seconds.values()) > 0


def test_training_is_measured_in_steps_on_full_batches() -> None:
    rows = run("retrained", "train(threads=1)")
    assert accusations(rows) == set()
    blocks = of(rows, BlockRow)
    assert {b.metric.name for b in blocks} == {"throughput"}
    assert [b.point for b in blocks] == [{"batch": 1024, "threads": 1}] * 2 * QUICK.pairs


def test_training_uses_all_processors_unless_told_otherwise() -> None:
    made = comparison()
    scenario = SCENARIOS.make("train")
    assert isinstance(scenario, TimedScenario)
    (load,) = scenario.loads(made)
    assert load.threads == all_threads()


def test_a_split_smaller_than_a_batch_is_trained_on_whole() -> None:
    small = 'dcnv2(dataset="planted(rows=500, ids=50)", width=8, depth=1, cross_layers=1)'
    rows = run("control", "train(threads=1)", baseline=small)
    assert accusations(rows) == set()
    assert {b.point["batch"] for b in of(rows, BlockRow)} == {400}


@pytest.mark.slow
def test_training_by_workers_is_measured_with_what_they_use_and_how_stale_they_are() -> None:
    rows = run("async-ps(staleness=1)", "train")
    assert accusations(rows) == set()
    assert {b.arm for b in of(rows, BlockRow)} == {"control", "treatment"}
    values = {(r.metric.name, r.arm): r.value for r in of(rows, ValueRow)}
    assert values["max_staleness", "control"] == 0
    assert 1 <= values["max_staleness", "treatment"] <= 3
    assert 0 < values["mean_staleness", "treatment"] <= values["max_staleness", "treatment"]
    assert active_children() == []


def test_samples_to_the_target_come_from_the_histories() -> None:
    rows = run("retrained(epochs=1)", "train(threads=1, target=1.0)")
    to_target = {r.arm: r.value for r in of(rows, ValueRow)}
    history = comparison().control.history()
    assert to_target["control"] == history.epochs[history.best].samples_seen
    assert to_target["treatment"] == math.inf  # one epoch does not get there


def test_quality_of_identical_arms_has_no_difference_anywhere() -> None:
    rows = of(run("honest", "quality"), QualityRow)
    assert {r.metric.name for r in rows if r.primary} == {"auc"}
    assert {r.metric.name for r in rows} > {"auc", "logloss"}
    for row in rows:
        assert row.control == row.treatment
        assert set(row.replicates) == {0.0}
        assert len(row.replicates) == QUICK.bootstraps


@pytest.mark.parametrize("baseline", [DCNV2, "small-towers"])
def test_quality_is_that_of_the_task_over_the_whole_test_set(baseline: str) -> None:
    made = comparison("retrained(epochs=2)", baseline)
    task, data = made.control.baseline.task, made.control.data
    scored = [task.score(p, data, data.test, torch.device("cpu")) for p in made.served]
    rows = of(list(SCENARIOS.make("quality").measure(made)), QualityRow)
    overall = {row.metric.name: row for row in rows if not row.segment}
    assert list(overall) == [metric.name for metric in task.metrics]
    for metric in task.metrics:
        row = overall[metric.name]
        assert (row.control, row.treatment) == tuple(map(metric, scored))
        assert row.metric.direction == metric.direction
        assert row.units == len(np.unique(scored[0].unit))
        assert made.control.data_digest in row.protocol


def test_resamples_are_paired_and_the_same_in_every_process() -> None:
    made = comparison("size-only")
    first, second = (
        of(list(SCENARIOS.make("quality").measure(c)), QualityRow)
        for c in (made, comparison("size-only"))
    )
    assert [r.replicates for r in first] == [r.replicates for r in second]
    (logloss,) = [r for r in first if r.metric.name == "logloss"]
    difference = logloss.treatment - logloss.control
    spread = np.std(logloss.replicates)
    assert difference != 0
    assert abs(np.mean(logloss.replicates) - difference) < 3 * spread / QUICK.bootstraps**0.5
    test = made.control.data.test
    with torch.inference_mode():
        control, treatment = (
            binary_cross_entropy(p(*test.inputs), test.labels, reduction="none")
            for p in made.served
        )
    paired = float((treatment - control).std()) / len(test) ** 0.5  # of the difference of each row
    assert spread == pytest.approx(paired, rel=0.4)


def test_segments_are_those_of_the_data_that_hold_enough_units() -> None:
    made = comparison("retrained")
    test = made.control.data.test
    rows = of(list(SCENARIOS.make("quality").measure(made)), QualityRow)
    segments = {row.segment: row.units for row in rows if row.segment}
    assert {row.metric.name for row in rows if row.segment} == {"auc"}
    assert not any(row.primary for row in rows if row.segment)
    expected = {
        f"{name}={number}": int((numbers == number).sum())
        for name, numbers in test.segments.items()
        for number in numbers.unique().tolist()
        if (numbers == number).sum() >= MIN_SEGMENT_UNITS
    }
    assert segments == expected
    assert len(expected) < sum(len(n.unique()) for n in test.segments.values())


def test_a_scenario_of_ones_own_is_found_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from bench.scenarios.base import scenario\n"
        "from bench.scenarios.inference import Offline\n"
        '@scenario("night")\n'
        "@dataclass(frozen=True)\n"
        "class Night(Offline):\n"
        '    """Small batches."""\n'
        "    batch_sizes: tuple[int, ...] = (3,)\n"
    )
    rows = run("control", "night", plugins=(FRAUDS, file))
    assert accusations(rows) == set()
    assert {(b.scenario, b.point["batch"]) for b in of(rows, BlockRow)} == {("night", 3)}
