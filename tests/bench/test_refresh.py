"""Refreshed serving: what is fresher is better under drift, and who answers with what."""

from __future__ import annotations

import dataclasses
import time
from multiprocessing import active_children
from typing import cast

import numpy as np
import pytest
import torch
from small_trials import (
    accusations,
    run,
)
from torch import Tensor, nn

from baselines.base import BASELINES, Baseline, Batch, Dataset, QualityMetric, Scored
from baselines.data.sources import cache_dir
from baselines.errors import LeanRecError
from baselines.trainer import Trainer
from bench.device import get_device
from bench.pipeline import Pipeline
from bench.records import CurveRow, EventRow, QualityRow, ValueRow
from bench.refreshing.curves import WINDOWS, load_curves, quality_curve
from bench.refreshing.learner import Learner, part, prequential
from bench.refreshing.load import serve_stream
from bench.refreshing.trainer import RefreshTrainer, Written
from bench.scenarios.base import SCENARIOS
from bench.serving.queue import Policy, poisson
from bench.store import Store
from techniques.asynchronous.double_buffer import DoubleBuffered
from techniques.base import TECHNIQUES

CPU = torch.device("cpu")
ROWS, BATCH = 12_000, 128
DRIFTING = (
    f'deepfm(dataset="planted(rows={ROWS}, ids=20, drift=2.5)", embedding_dim=4, width=16, '
    "depth=1, batch_size=256, epochs=6)"
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A baseline trained on the first part of a drifting stream."""

    baseline: Baseline
    data: Dataset
    weights: dict[str, Tensor]

    def model(self) -> nn.Module:
        """Its model, anew."""
        model = self.baseline.build(self.data)
        model.load_state_dict(self.weights)
        return model.eval()

    def served(self) -> DoubleBuffered:
        """What answers."""
        return DoubleBuffered(self.baseline.task.predictor(self.model(), self.data))

    def learner(self, **recipe: object) -> Learner:
        """One that has learned nothing yet."""
        online = TECHNIQUES.make(f"async-refresh(lr=0.01, batch_size={BATCH})").online(
            self.baseline.recipe
        )
        assert online is not None
        how = dataclasses.replace(online, **recipe)  # type: ignore[arg-type]
        return Learner(self.model(), self.baseline.task, how, self.data, 0)

    def auc(self, period: int, learner: Learner | None) -> float:
        """Over the stream, test-then-train."""
        task = self.baseline.task
        return task.metrics[0](prequential(self.served(), learner, task, self.data, period))


@pytest.fixture(scope="module")
def trained() -> Trained:
    torch.set_num_threads(1)
    baseline = BASELINES.make(DRIFTING)
    data = baseline.data()
    torch.manual_seed(0)
    model = baseline.build(data)
    Trainer(model, baseline.task, baseline.recipe, CPU, 0).fit(data)
    return Trained(baseline, data, model.state_dict())


def scores_of(served: nn.Module, data: Dataset, start: int, stop: int) -> Tensor:
    with torch.inference_mode():
        return cast(Tensor, served(*part(data.test, start, stop).inputs)).clone()


@pytest.mark.slow
def test_under_drift_what_is_fresher_is_better(trained: Trained) -> None:
    oracle, fresh, stale = (trained.auc(p, trained.learner()) for p in (BATCH, 2 * BATCH, 2048))
    frozen = trained.auc(0, None)
    assert trained.data.best["auc"] > oracle
    assert oracle > fresh - 0.002
    assert fresh > stale + 0.005
    assert stale > frozen + 0.02


@pytest.mark.slow
def test_each_answer_is_of_weights_that_have_learned_all_before_its_period(
    trained: Trained,
) -> None:
    period, task = 1000, trained.baseline.task
    given = prequential(trained.served(), trained.learner(), task, trained.data, period)
    learner, served = trained.learner(), trained.served()
    for start in range(0, 3000, period):
        expected = scores_of(served, trained.data, start, start + period)
        got = torch.from_numpy(given.columns["score"][start : start + period])
        assert torch.equal(got, expected)
        learner.learn(start + period)
        served.swap(task.predictor(learner._trainer.model, trained.data).state_dict())
    assert len(given.unit) == len(trained.data.test)


@pytest.mark.slow
def test_a_period_as_long_as_the_stream_is_frozen(trained: Trained) -> None:
    assert trained.auc(ROWS, trained.learner()) == trained.auc(0, None)


class Instant:
    """A trainer that has learned as soon as it is asked, and is noticed at the next batch."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.busy = False

    def ask(self, stop: int) -> None:
        self.asked.append(stop)
        self.busy = True

    def take(self) -> Written | None:
        if not self.busy:
            return None
        self.busy = False
        now = time.perf_counter_ns()
        return Written(self.asked[-1], now, now, 8)


def load(count: int = 400, rate: float = 4000.0) -> tuple[list[Batch], np.ndarray]:
    return [(torch.tensor([i]),) for i in range(count)], poisson(rate, count, [1])


def test_weights_know_only_what_was_answered_before() -> None:
    requests, arrivals = load()
    trainer, policy = Instant(), Policy(8, 0, 64)
    shown = serve_stream(
        lambda ids: ids.float(), requests, arrivals, policy, get_device("cpu"),
        cast(RefreshTrainer, trainer), period=50,
    )  # fmt: skip
    answered = shown.served.answered
    assert trainer.asked == sorted(set(trainer.asked))
    assert all(stop % 50 == 0 for stop in trainer.asked)
    newest = shown.newest[answered]
    assert (np.diff(newest) >= 0).all()
    assert set(newest.tolist()) <= {0, *trainer.asked}
    for k, known in zip(np.flatnonzero(answered), newest, strict=True):
        assert known <= k
        if known:
            assert shown.served.done[known - 1] <= shown.served.taken[k]
    np.testing.assert_array_equal(shown.staleness, np.flatnonzero(answered) - newest)
    assert len(shown.swaps) >= len(trainer.asked) - 1
    for swap in shown.swaps:
        assert 0 <= swap.begun <= swap.ended
        assert shown.around([swap]).any()
    assert not shown.around([]).any()


def test_frozen_weights_get_as_stale_as_the_load_is_long() -> None:
    requests, arrivals = load(100)
    shown = serve_stream(
        lambda ids: ids.float(), requests, arrivals, Policy(8, 0, 200), get_device("cpu")
    )
    np.testing.assert_array_equal(shown.staleness, np.arange(100))
    assert (shown.newest == 0).all()
    assert shown.swaps == []


class Right(QualityMetric):
    """The share of rows whose score is their label."""

    name = "right"

    def __call__(self, scored: Scored, weight: np.ndarray | None = None) -> float:
        return float((scored.columns["score"] == scored.columns["label"]).mean())


def test_a_curve_of_quality_is_the_metric_window_by_window() -> None:
    rows = 10 * WINDOWS + 3
    label = np.arange(rows) % 2
    score = np.where(np.arange(rows) < rows // 2, label, 1 - label)  # right, then wrong
    curve = quality_curve("refresh", Right(), "frozen", Scored(
        {"score": score, "label": label}, np.arange(rows)
    ))  # fmt: skip
    assert len(curve.x) == WINDOWS
    assert curve.x[-1] == rows
    assert (curve.y[0], curve.y[-1]) == (1.0, 0.0)
    lengths = np.diff((0, *curve.x))
    assert lengths @ np.array(curve.y) == pytest.approx(rows // 2)


def test_curves_of_a_load_hold_its_worst_latency_and_mean_staleness() -> None:
    requests, arrivals = load()
    shown = serve_stream(
        lambda ids: ids.float(), requests, arrivals, Policy(8, 0, 64), get_device("cpu"),
        cast(RefreshTrainer, Instant()), period=50,
    )  # fmt: skip
    curves = {(c.metric.name, c.name): c for c in load_curves("refresh", "treatment", shown)}
    worst = curves["worst_latency", "treatment"]
    assert np.nanmax(worst.y) == shown.served.latency.max() / 1e9
    assert 0 < worst.x[0] < worst.x[-1] <= (arrivals.max() + 1) / 1e9
    stale = curves["staleness", "treatment"]
    assert shown.staleness.min() <= np.nanmin(stale.y) <= np.nanmax(stale.y)
    assert np.nanmax(stale.y) <= shown.staleness.max()
    swaps = curves["worst_latency", "treatment, during swaps"]
    assert len(swaps.x) == len(shown.swaps)
    assert max(swaps.y) == shown.served.latency[shown.around(shown.swaps)].max() / 1e9


@pytest.mark.slow
def test_the_trainer_beside_gives_what_one_here_would(trained: Trained) -> None:
    served, learner, task = trained.served(), trained.learner(), trained.baseline.task
    first = scores_of(served, trained.data, 0, 500)
    online = learner._recipe
    trainer = RefreshTrainer(served, trained.model(), task, online, trained.data, 0)
    try:
        assert trainer.take() is None
        assert torch.equal(scores_of(served, trained.data, 0, 500), first)
        for stop in (300, 1000, 1024):
            trainer.ask(stop)
            while (written := trainer.take()) is None:
                time.sleep(0.01)
            assert (written.newest, written.begun < written.ended) == (stop, True)
            learner.learn(stop)
            expected = task.predictor(learner._trainer.model.eval(), trained.data)
            got = scores_of(served, trained.data, 0, 500)
            assert torch.equal(got, scores_of(expected, trained.data, 0, 500))
            assert not torch.equal(got, first)
        trainer._process.process.kill()
        trainer._process.process.join()
        with pytest.raises(LeanRecError, match="trainer beside the server ended with exit code -9"):
            trainer.ask(2000)
    finally:
        trainer.close()
    assert active_children() == []


@pytest.mark.slow
def test_the_scenario_shows_quality_staleness_and_swaps() -> None:
    rows = run(
        "async-refresh", "refresh(periods=[256, 2048], rate=400, seconds=3)", baseline=DRIFTING
    )
    assert accusations(rows) == set()
    (quality,) = [row for row in rows if isinstance(row, QualityRow)]
    assert (quality.scenario, quality.metric.name, quality.primary) == ("refresh", "auc", True)
    assert quality.treatment > quality.control + 0.03
    behind = {
        (r.arm, r.point["period"]): r.value
        for r in rows
        if isinstance(r, ValueRow) and r.metric.name == "auc_behind_oracle"
    }
    assert behind["treatment", 256] < behind["treatment", 2048] < behind["control", 2048]
    assert behind["control", 256] == behind["control", 2048]
    values = {(r.metric.name, r.arm): r.value for r in rows if isinstance(r, ValueRow)}
    assert 0 < values["staleness", "treatment"] < values["staleness", "control"]
    assert 0 < values["swap_pause", "treatment"] < values["swap_latency", "treatment"]
    assert values["swap_bytes", "treatment"] > 0
    assert values["trainer_memory", "treatment"] > 2**20
    assert {arm for name, arm in values if name == "latency_p99"} == {"control", "treatment"}
    curves = {(r.metric.name, r.name): r for r in rows if isinstance(r, CurveRow)}
    later = {
        name: np.mean(curve.y[WINDOWS // 2 :])
        for (metric, name), curve in curves.items()
        if metric == "auc"
    }
    assert later["frozen"] < later["new weights every 2048 events"] < later["oracle"] + 0.002
    assert len({curve.x for (metric, _), curve in curves.items() if metric == "auc"}) == 1
    assert max(curves["staleness", "treatment"].y) < max(curves["staleness", "control"].y)
    swaps = curves["worst_latency", "treatment, during swaps"]
    assert max(swaps.y) == pytest.approx(values["swap_latency", "treatment"])
    assert active_children() == []


@pytest.mark.slow
def test_the_a_a_arm_is_frozen_twice() -> None:
    rows = run("control", "refresh(rate=400, seconds=0.5)", baseline=DRIFTING)
    assert accusations(rows) == set()
    (quality,) = [row for row in rows if isinstance(row, QualityRow)]
    assert quality.control == quality.treatment
    values = {(r.metric.name, r.arm): r.value for r in rows if isinstance(r, ValueRow)}
    assert values["staleness", "control"] == values["staleness", "treatment"]
    assert not any(name.startswith(("swap", "trainer")) for name, _ in values)


@pytest.mark.slow
def test_a_load_too_short_for_a_swap_says_so() -> None:
    rows = run("async-refresh", "refresh(periods=[5000], rate=400, seconds=0.5)", baseline=DRIFTING)
    assert accusations(rows) == set()
    assert "no_swap" in {row.name for row in rows if isinstance(row, EventRow)}


STREAM = 'dataset="planted(rows=500, ids=20, drift=1.0)"'


@pytest.mark.parametrize(
    ("baseline", "stack", "reason"),
    [
        (f"dcnv2({STREAM})", "async-refresh", None),
        (f"dcnv2({STREAM})", "control", None),
        (f"dcnv2({STREAM})", "async-ps+async-refresh", None),
        (f"dcnv2({STREAM})", "int8-linear+async-refresh", "int8-linear changes what is served"),
        (f"dcnv2({STREAM})", "bf16", "bf16 changes what is served and takes no new weights"),
        ('two-tower(dataset="planted")', "async-refresh", "the task is retrieval"),
        ('dcnv2(dataset="ml-100k")', "async-refresh", "not known to be in the order of time"),
    ],
)
def test_where_there_is_no_stream_or_no_learner_it_is_left_out(
    baseline: str, stack: str, reason: str | None
) -> None:
    store = Store(cache_dir() / "small-trials")
    pipeline = Pipeline.from_specs(baseline, stack, get_device("cpu"), 0, store)
    found = SCENARIOS.make("refresh").reason_against(pipeline)
    assert found is None if reason is None else reason in (found or "")


@pytest.mark.parametrize(
    "wrong", ["periods=[0]", "periods=[]", "rate=0", "seconds=-1", "rate=inf", "swaps=3"]
)
def test_what_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(LeanRecError, match=wrong.partition("=")[0]):
        SCENARIOS.make(f"refresh({wrong})")
