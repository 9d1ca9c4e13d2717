"""Recommendations: what is chosen, what is tied or open, and what a search finds at what cost."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from fake_worker import QUICK, FakeWorkers, toy_plan
from test_limits import auc, effect, latency

from baselines.errors import LeanRecError
from bench import runner
from bench.effects import Effect
from bench.limits import Limits
from bench.protocol import Protocol
from bench.recommend import Recommendation, recommend, require_objective
from bench.run import Run
from bench.runner import Runner, locked
from bench.search import search
from bench.store import Store
from reports.recommendation import lines

QUALITY = Limits(max_quality_loss="auc-0.001")


def stack(
    name: str, gain: float, wide: float = 0.02, quality: str = "non-inferior", loss: float = 0.0
) -> list[Effect]:
    """A stack's throughput and quality, with an interval of ± `wide` of the gain."""
    fast = effect(stack=name, effect=gain, low=gain * (1 - wide), high=gain * (1 + wide))
    return [fast, auc(-loss, -loss, -loss, quality).model_copy(update={"stack": name})]


def chosen(*stacks: list[Effect], limits: Limits = QUALITY) -> Recommendation:
    (found,) = recommend([e for s in stacks for e in s], limits, "throughput")
    return found


CONTROL = stack("control", 1.0)


def names(group: tuple[object, ...]) -> list[str]:
    return [c.stack for c in group]  # type: ignore[attr-defined]


def test_the_fastest_that_keeps_the_limits_is_chosen() -> None:
    lossy = stack("lossy", 3.0, quality="inferior", loss=0.01)
    found = chosen(CONTROL, stack("slow", 1.3), stack("fast", 2.0), lossy)
    assert found.chosen is not None
    assert found.chosen.stack == "fast"
    assert found.sure
    assert names(found.beaten) == ["slow", "control"]
    assert names(found.out) == ["lossy"]
    assert found.out[0].distance == pytest.approx(9.0)


def test_intervals_that_meet_are_a_tie_and_not_sure() -> None:
    found = chosen(CONTROL, stack("a", 2.0, 0.05), stack("b", 1.95, 0.05), stack("c", 1.5))
    assert found.chosen is not None
    assert (found.chosen.stack, names(found.tied), found.sure) == ("a", ["b"], False)


def test_an_inconclusive_gain_is_named_and_not_sure() -> None:
    maybe = stack("maybe", 2.0, 0.4)
    maybe[0] = maybe[0].model_copy(update={"verdict": "inconclusive", "point": "batch=512"})
    found = chosen(CONTROL, maybe)
    assert found.chosen is not None
    assert (found.chosen.stack, found.chosen.inconclusive) == ("maybe", ("offline batch=512",))
    assert (found.tied, found.open, found.sure) == ((), (), False)
    assert "inconclusive by itself at offline batch=512" in dict(lines(found))["use"]


def test_the_undecided_is_never_chosen_and_is_named() -> None:
    found = chosen(
        CONTROL, stack("a", 1.5), stack("maybe", 2.0, quality="inconclusive", loss=0.001)
    )
    assert found.chosen is not None
    assert (found.chosen.stack, names(found.open), found.sure) == ("a", ["maybe"], False)


def test_the_undecided_that_is_surely_worse_leaves_the_choice_sure() -> None:
    found = chosen(
        CONTROL, stack("a", 2.0), stack("maybe", 1.2, quality="inconclusive", loss=0.001)
    )
    assert found.sure
    assert names(found.out) == ["maybe"]


def test_what_a_search_left_early_is_named_and_leaves_the_choice_sure() -> None:
    one = [e.model_copy(update={"n_processes": 1, "low": 0.0, "high": math.inf, "margins": {}})
           for e in stack("left", 1.2, quality="inconclusive")]  # fmt: skip
    found = chosen(CONTROL, stack("a", 2.0), one)
    assert (names(found.dropped), found.open, found.sure) == (["left"], (), True)


def test_the_control_is_the_answer_where_nothing_else_is_better() -> None:
    found = chosen(CONTROL, stack("worse", 0.8))
    assert found.chosen is not None
    assert found.chosen.stack == "control"


def test_where_every_stack_breaks_a_limit_none_is_chosen_and_the_nearest_comes_first() -> None:
    limits = Limits(min_speedup=3.0)
    found = chosen(CONTROL, stack("far", 1.1), stack("near", 2.5), limits=limits)
    assert found.chosen is None
    assert not found.sure
    assert names(found.out) == ["near", "far", "control"]


def test_a_failed_stack_is_out_and_one_without_the_objective_is_open() -> None:
    failed = effect(stack="broken", effect=math.nan, low=math.nan, high=math.nan, verdict="failed")
    found = chosen(CONTROL, stack("a", 2.0), [failed], stack("unmeasured", 2.0)[1:])
    assert names(found.out) == ["broken"]
    assert names(found.open) == ["unmeasured"]


def test_the_gain_is_the_mean_over_points_turned_so_that_more_is_better() -> None:
    points = [
        latency(effect=0.5, low=0.4, high=0.6),
        latency(effect=2.0, low=1.9, high=2.1, point="b"),
    ]
    (found,) = recommend(points, Limits(), "latency")
    assert found.chosen is not None
    assert found.chosen.gain == pytest.approx(1.0)
    assert found.chosen.low == pytest.approx(1 / math.sqrt(0.6 * 2.1))


def test_each_baseline_has_its_own() -> None:
    other = [e.model_copy(update={"baseline": "two-tower"}) for e in stack("slow", 1.2)]
    found = recommend([*stack("fast", 2.0), *other], Limits(), "throughput")
    assert [(r.baseline, r.chosen and r.chosen.stack) for r in found] == [
        ("dcnv2", "fast"), ("two-tower", "slow"),
    ]  # fmt: skip


def test_an_objective_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(LeanRecError, match="memory was not measured"):
        recommend(stack("a", 2.0), Limits(), "memory")
    with pytest.raises(LeanRecError, match="no objective 'speed'"):
        require_objective("speed")


FULL = Protocol(
    looks=(5, 12), spend=(0.6, 0.4), pairs=2, bootstraps=50, memory_processes=2, margin=0.001
)
STACKS = 16


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """For stacks that are names alone."""
    monkeypatch.setattr(runner, "make_stack", lambda text: ())
    return monkeypatch


def searched(
    folder: Path,
    seed: int,
    noise: float,
    monkeypatch: pytest.MonkeyPatch,
    budget: float | None = None,
) -> tuple[Run, FakeWorkers, dict[str, float], dict[str, float]]:
    """A search among stacks of random gains and losses; noise: of a process, on the log scale."""
    rng = np.random.default_rng(seed)
    stacks = [f"s{k}" for k in range(STACKS)]
    gains = dict(zip(stacks, np.exp(rng.normal(0.2, 0.4, STACKS)), strict=True))
    losses = dict(zip(stacks, rng.choice([0.0, 0.0005, 0.004], STACKS), strict=True))
    ratio = {
        name: tuple(float(x) for x in np.exp(rng.normal(0, noise, 12)) / gain)
        for name, gain in gains.items()
    }
    workers = FakeWorkers(
        {**ratio, "control": tuple(np.exp(rng.normal(0, noise, 12)))}, loss=losses
    )
    monkeypatch.setattr(runner, "run_worker", workers)
    plan = toy_plan(*stacks, protocol=FULL, budget=budget)
    with locked(folder):
        (folder / "environment.json").write_text('{"host": "h"}')
        (folder / "plan.json").write_text(plan.model_dump_json())
        search(Runner(folder, plan, Store(folder / "s"), {}), QUALITY, "latency")
    return Run.load(folder), workers, gains, losses


@pytest.mark.slow
def test_a_search_comes_within_2_percent_of_the_best_for_a_quarter_of_the_cost(
    tmp_path: Path, simulated: pytest.MonkeyPatch
) -> None:
    """Against measuring every stack as well as the last are; over simulated matrices."""
    regrets, costs = [], []
    for seed in range(20):
        run, workers, gains, losses = searched(tmp_path / f"{seed}", seed, 0.02, simulated)
        (found,) = recommend(run.effects, QUALITY, "latency")
        allowed = {name: gain for name, gain in gains.items() if losses[name] < 0.001}
        best = max(1.0, *allowed.values())
        assert found.chosen is not None
        assert losses.get(found.chosen.stack, 0.0) < 0.001
        regrets.append(1 - gains.get(found.chosen.stack, 1.0) / best)
        measured = sum(spec.mode == "measure" for spec in workers.specs)
        costs.append(measured / ((STACKS + 1) * FULL.looks[-1]))
    assert sum(regret > 0.02 for regret in regrets) <= 1
    assert max(costs) <= 0.25


def test_where_noise_hides_the_best_the_choice_is_not_sure(
    tmp_path: Path, simulated: pytest.MonkeyPatch
) -> None:
    run, *_ = searched(tmp_path / "run", 1, 0.8, simulated)
    (found,) = recommend(run.effects, QUALITY, "latency")
    assert not found.sure


def test_a_search_keeps_to_its_budget(tmp_path: Path, simulated: pytest.MonkeyPatch) -> None:
    run, workers, *_ = searched(tmp_path / "run", 1, 0.02, simulated, budget=1e-9)
    assert not workers.specs
    with pytest.raises(LeanRecError, match="nothing that was measured"):
        recommend(run.effects, QUALITY, "latency")


def test_a_search_among_two_is_a_run_of_both(tmp_path: Path, simulated: pytest.MonkeyPatch) -> None:
    workers = FakeWorkers({"a": 0.5, "b": 0.7})
    simulated.setattr(runner, "run_worker", workers)
    with locked(tmp_path):
        search(Runner(tmp_path, toy_plan("a", "b"), Store(tmp_path / "s"), {}), QUALITY, "latency")
    assert [workers.count("measure", s) for s in ("control", "a", "b")] == [QUICK.looks[0]] * 3
