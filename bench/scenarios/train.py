"""Training load: steps of both arms in paired blocks, and how far each must go to its target."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from baselines.trainer import History
from bench.comparison import Comparison
from bench.pipeline import TRAINING_STAGES
from bench.records import Arm, Metric, ValueRow
from bench.scenarios.base import Load, ScenarioRow, TimedScenario, all_threads, scenario

SAMPLES_TO_TARGET = Metric(
    name="samples_to_target",
    unit="samples",
    direction="lower",
    scale="ratio",
    estimator="first epoch whose validation reaches the target",
    over_ranks="none",
)

MEAN_STALENESS = Metric(
    name="mean_staleness",
    unit="updates",
    direction="lower",
    scale="difference",
    estimator="updates between reading weights and applying the gradient, mean over a training",
    over_ranks="max",
)
MAX_STALENESS = MEAN_STALENESS.model_copy(
    update={"name": "max_staleness", "estimator": "the largest of a training"}
)


@scenario("train")
@dataclass(frozen=True)
class Train(TimedScenario):
    """Training steps on the baseline's own batches.

    target: the share of the control's best validation metric that counts as trained. Time to
    quality is the samples that each arm needs to reach it, by its training history, over the
    throughput measured here, so that no two times of different hours are compared.
    threads: 0 for all processors.
    """

    stages: ClassVar[frozenset[str]] = TRAINING_STAGES
    mode: ClassVar[Literal["latency", "throughput"]] = "throughput"
    inference: ClassVar[bool] = False

    target: float = 0.99
    threads: int = 0

    def loads(self, comparison: Comparison) -> Iterator[Load]:
        """Steps of two fresh trainers on the control's batches."""
        with comparison.phases("load"):
            control, treatment = (
                p.trainer(p.fresh_model(p.device.torch_device))
                for p in (comparison.control, comparison.treatment)
            )
            drawn = itertools.islice(
                control.batches(comparison.control.data),
                comparison.protocol.distinct_batches,
            )
            batches = list(drawn)
            size = len(batches[0][0])  # the last of an epoch may be smaller
            batches = [batch for batch in batches if len(batch[0]) == size]
        calls = (lambda *b: control.step(b)), (lambda *b: treatment.step(b))
        try:
            yield Load(calls, batches, size, self.threads or all_threads())
        finally:
            control.close()
            treatment.close()

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Training throughput of both arms, and samples to the target."""
        yield from super().measure(comparison)
        yield from samples_to_target(comparison, self.target, self.name)
        if comparison.treatment.recipe.asynchronous:
            for arm, history in _histories(comparison):
                values = ((MEAN_STALENESS, history.mean_staleness),
                          (MAX_STALENESS, history.max_staleness))  # fmt: skip
                for metric, value in values:
                    yield ValueRow(scenario=self.name, metric=metric, arm=arm, value=value)


def _histories(comparison: Comparison) -> list[tuple[Arm, History]]:
    return [
        ("control", comparison.control.history()),
        ("treatment", comparison.treatment.history()),
    ]


def samples_to_target(
    comparison: Comparison, target: float, scenario_name: str
) -> Iterator[ValueRow]:
    """The samples that each arm's training took to `target` times the control's best."""
    histories = _histories(comparison)
    control = histories[0][1]
    best = control.epochs[control.best].valid
    goal = best * target if control.direction == "higher" else best / target
    for arm, history in histories:
        reached = history.samples_to(goal)
        yield ValueRow(
            scenario=scenario_name,
            metric=SAMPLES_TO_TARGET,
            arm=arm,
            value=math.inf if reached is None else reached,
        )
