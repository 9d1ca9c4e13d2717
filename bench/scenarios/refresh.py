"""The `refresh` load: a server whose weights are learned from its requests while it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from baselines.base import Recipe, Scored
from bench.comparison import Comparison
from bench.meters.children import Children
from bench.pipeline import Pipeline
from bench.records import ARMS, Arm, EventRow, Metric, ValueRow
from bench.refreshing.curves import load_curves, quality_curve
from bench.refreshing.learner import Learner, part, prequential
from bench.refreshing.load import Shown, serve_stream
from bench.refreshing.trainer import RefreshTrainer
from bench.scenarios.base import Scenario, ScenarioRow, scenario
from bench.scenarios.quality import quality_row, resamples
from bench.serving.arms import ServedArms
from bench.serving.queue import Policy, poisson
from bench.stats import supported_percentile
from techniques.asynchronous.double_buffer import DoubleBuffered

TAIL = 99.0
WAIT_LIMIT = 2.0  # × the tail of latency without swaps: what a swap may make a request wait
MAX_BATCH, MAX_QUEUE = 32, 256


def _metric(
    name: str, unit: str, estimator: str, scale: Literal["ratio", "difference"] = "ratio"
) -> Metric:
    return Metric(name=name, unit=unit, direction="lower", scale=scale, estimator=estimator)


STALENESS = _metric("staleness", "events", "mean over requests: events since the newest in weights")
SWAP_LATENCY = _metric("swap_latency", "s", "worst of the requests in the server during a swap")
SWAP_PAUSE = _metric(
    "swap_pause", "s", "longest that a swap took the server's thread", "difference"
)
SWAP_BYTES = _metric("swap_bytes", "B", "mean of what a swap carries; control: the whole weights")
TRAINER_MEMORY = _metric("trainer_memory", "B", "peak of the trainer's process", "difference")
TRAINER_LOAD = _metric(
    "trainer_processors", "", "processor time of the trainer ÷ time of the load", "difference"
)


@scenario("refresh")
@dataclass(frozen=True)
class Refresh(Scenario):
    """The test rows as a stream, each answered before its label is known (test-then-train).

    The control is the model as it was trained, frozen; the treatment gets new weights after every
    so many events, the first of `periods`. Two passes:

    - Quality, in the stream's own time: the task's first metric over all answers, where new
      weights are there as soon as their period has ended, so that only the data decide. How far
      each arm stays behind the oracle is given for all `periods`: the same learner without delay,
      which swaps after every batch. A frozen model is a period without end.
    - Latency, in real time: the first rows arrive by a Poisson process of `rate` requests a second
      for `seconds`, the same for both arms, and a trainer works beside the server. Staleness is
      what it was there, training and waiting included, in events; ÷ `rate` it is in seconds.
      swap_latency is the worst latency of the requests that were in the server during a swap, and
      of the same requests in the control; an event says so where it is more than twice the tail
      of latency outside swaps.

    Needs clicks whose test rows are in the order of time, and a stack whose only change of what is
    served is a technique that goes on learning.
    """

    stages: ClassVar[frozenset[str]] = frozenset({"deploy"})

    periods: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (512, 4096)
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 500.0
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 8.0

    @property
    def largest_batch(self) -> int:
        """That of the queue."""
        return MAX_BATCH

    def reason_against(self, pipeline: Pipeline) -> str | None:
        """As the class says."""
        if pipeline.baseline.task.name != "ctr":
            return f"the stream is of clicks, and the task is {pipeline.baseline.task.name}"
        if not pipeline.control().data.ordered:
            return "the test rows are not known to be in the order of time"
        for technique in pipeline.stack:
            serving = {"prepare", "compress", "deploy"} & set(technique.stages)
            if serving and technique.online(pipeline.baseline.recipe) is None:
                return f"{technique.name} changes what is served and takes no new weights"
        return None

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Quality, then latency."""
        torch.set_num_threads(1)
        recipe = online_recipe(comparison.treatment)
        with comparison.phases("quality"):
            yield from self._quality(comparison, recipe)
        with comparison.phases("blocks"):
            yield from self._latency(comparison, recipe)

    def _quality(self, comparison: Comparison, recipe: Recipe | None) -> Iterator[ScenarioRow]:
        pipeline = comparison.control
        task, data = pipeline.baseline.task, pipeline.data

        def judged(arm: Pipeline, period: int, how: Recipe | None) -> Scored:
            served, learner = _fresh(arm, how)
            return prequential(served, learner, task, data, period)

        control = judged(pipeline, 0, None)
        treatments = [judged(comparison.treatment, p, recipe) for p in self.periods]
        metric = task.metrics[0]
        protocol = (
            f"{data.protocol} Test rows in order, each before it is learned from; new weights "
            f"every {self.periods[0]} events [split {pipeline.data_digest}]"
        )
        weights = resamples(control.unit, comparison.protocol.bootstraps)
        yield quality_row(
            metric, "", control, treatments[0], weights, protocol, primary=True, scenario=self.name
        )
        if recipe is None:
            return
        best = judged(comparison.treatment, recipe.batch_size, recipe)
        lines = {"frozen": control, "oracle": best} | {
            f"new weights every {p} events": scored
            for p, scored in zip(self.periods, treatments, strict=True)
        }
        for name, scored in lines.items():
            yield quality_curve(self.name, metric, name, scored)
        oracle = metric(best)
        sign = 1 if metric.direction == "higher" else -1
        behind = _metric(
            f"{metric.name}_behind_oracle", metric.unit, "over the stream", "difference"
        )
        for period, treatment in zip(self.periods, treatments, strict=True):
            for arm, scored in zip(ARMS, (control, treatment), strict=True):
                yield self._value(behind, arm, sign * (oracle - metric(scored)), period)

    def _latency(self, comparison: Comparison, recipe: Recipe | None) -> Iterator[ScenarioRow]:
        rng, data = comparison.rng, comparison.control.data
        count = min(len(data.test), round(self.rate * self.seconds))
        inputs = part(data.test, 0, count).inputs
        requests = list(zip(*(column.split(1) for column in inputs), strict=True))
        arrivals = poisson(self.rate, count, [int(rng.integers(2**31))])
        policy = Policy(MAX_BATCH, 0, MAX_QUEUE)
        frozen, _ = _fresh(comparison.control, None)
        served, _ = _fresh(comparison.treatment, None)
        with torch.inference_mode():
            both = ServedArms((frozen, served), requests, policy, comparison.device, rng)
            both.warm_up(comparison.protocol.warmup_cap_seconds)
        shown: dict[int, Shown] = {}

        def serve(call: Callable[..., Any], trainer: RefreshTrainer | None) -> Shown:
            with torch.inference_mode():
                return serve_stream(
                    call, requests, arrivals, policy, comparison.device, trainer, self.periods[0]
                )

        for i in map(int, rng.permutation(2)):
            if i == 0 or recipe is None:
                shown[i] = serve((frozen, served)[i], None)
                continue
            assert isinstance(served, DoubleBuffered)
            model = comparison.treatment.trained_model()
            stream = replace(data, test=part(data.test, 0, count))
            task, seed = comparison.treatment.baseline.task, comparison.treatment.seed
            trainer = RefreshTrainer(served, model, task, recipe, stream, seed)
            try:
                children = Children()
                before = children.seconds()
                shown[i] = serve(served, trainer)
                span = (shown[i].served.done.max() - arrivals[0]) / 1e9
                spent = {
                    TRAINER_LOAD: (children.seconds() - before) / span,
                    TRAINER_MEMORY: float(children.resident_bytes()[0]),
                }
            finally:
                trainer.close()
            for metric, value in spent.items():
                yield self._value(metric, "control", 0.0)
                yield self._value(metric, "treatment", value)
        yield from self._seen(shown[0], shown[1])
        for arm, one in zip(ARMS, (shown[0], shown[1]), strict=True):
            yield from load_curves(self.name, arm, one)
        if recipe is not None:
            weights = sum(t.nbytes for t in frozen.state_dict().values())
            yield from self._swaps(shown[0], shown[1], weights)

    def _seen(self, *shown: Shown) -> Iterator[ScenarioRow]:
        """Latency of all requests, and how stale the weights were that answered them."""
        fewest = min(len(s.served.latency) for s in shown)
        tail = min(TAIL, supported_percentile(fewest) or 50.0)
        for arm, one in zip(ARMS, shown, strict=True):
            for q in sorted({50.0, tail}):
                metric = _metric(f"latency_p{q:g}", "s", "percentile over the load")
                yield self._value(metric, arm, float(np.percentile(one.served.latency, q)) / 1e9)
            yield self._value(STALENESS, arm, float(one.staleness.mean()))
            if one.served.shed_share:
                detail = (
                    f"{arm} did not answer {one.served.shed_share:.1%} of {self.rate:g} requests/s"
                )
                yield self._event("overloaded", detail)

    def _swaps(self, control: Shown, treatment: Shown, weights: int) -> Iterator[ScenarioRow]:
        """What swaps cost those that were there."""
        if not treatment.swaps:
            count = len(treatment.served.arrived)
            detail = f"the load of {count} events ended before new weights were there"
            yield self._event("no_swap", detail)
            return
        met = treatment.around(treatment.swaps)
        latency = treatment.served.latency
        worst = float(latency[met].max())
        tail = min(TAIL, supported_percentile(int((~met).sum())) or 50.0)
        outside = float(np.percentile(latency[~met], tail)) if (~met).any() else worst
        if worst > WAIT_LIMIT * outside:
            yield self._event(
                "slow_swap",
                f"a request that met a swap took {worst / 1e6:.2g} ms, more than {WAIT_LIMIT:g} × "
                f"the {outside / 1e6:.2g} ms of p{tail:g} without swaps; the server's thread was "
                f"never held for longer than {max(s.pause for s in treatment.swaps) / 1e6:.2g} ms",
            )
        same = control.around(treatment.swaps)
        beside = float(control.served.latency[same].max()) if same.any() else outside
        pairs = {
            SWAP_LATENCY: (beside / 1e9, worst / 1e9),
            SWAP_PAUSE: (0.0, max(s.pause for s in treatment.swaps) / 1e9),
            SWAP_BYTES: (weights, float(np.mean([s.nbytes for s in treatment.swaps]))),
        }
        for metric, values in pairs.items():
            for arm, value in zip(ARMS, values, strict=True):
                yield self._value(metric, arm, value)

    def _value(self, metric: Metric, arm: Arm, value: float, period: int = 0) -> ValueRow:
        point = {"period": period or self.periods[0]}
        return ValueRow(scenario=self.name, metric=metric, point=point, arm=arm, value=value)

    def _event(self, name: str, detail: str) -> EventRow:
        return EventRow(scenario=self.name, name=name, severity="warning", detail=detail)


def online_recipe(pipeline: Pipeline) -> Recipe | None:
    """How the stack goes on learning; None where it does not."""
    recipes = (technique.online(pipeline.recipe) for technique in pipeline.stack)
    return next((recipe for recipe in recipes if recipe is not None), None)


def _fresh(pipeline: Pipeline, recipe: Recipe | None) -> tuple[nn.Module, Learner | None]:
    """A predictor of the pipeline as it was trained, and its learner."""
    model = pipeline.trained_model()
    served = pipeline.predictor(model)
    if recipe is None:
        return served, None
    task = pipeline.baseline.task
    return served, Learner(model, task, recipe, pipeline.data, pipeline.seed)
