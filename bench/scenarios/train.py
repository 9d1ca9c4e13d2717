"""Training load: steps of both arms in paired blocks, and how far each must go to its target."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from baselines.base import Batch
from bench.comparison import Comparison
from bench.pipeline import TRAINING_STAGES, Pipeline
from bench.records import Arm, Metric, ValueRow
from bench.scenarios.base import (
    PointLoad,
    Scenario,
    ScenarioRow,
    all_threads,
    measure_point,
    scenario,
)

SAMPLES_TO_TARGET = Metric(
    name="samples_to_target",
    unit="samples",
    direction="lower",
    scale="ratio",
    estimator="first epoch whose validation reaches the target",
    over_ranks="none",
)


@scenario("train")
@dataclass(frozen=True)
class Train(Scenario):
    """Training steps on the baseline's own batches.

    target: the share of the control's best validation metric that counts as trained. Time to
    quality is the samples that each arm needs to reach it, by its training history, over the
    throughput measured here, so that no two times of different hours are compared.
    threads: 0 for all processors.
    """

    stages: ClassVar[frozenset[str]] = TRAINING_STAGES

    target: float = 0.99
    threads: int = 0

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Training throughput of both arms, and samples to the target."""
        with comparison.phases("load"):
            control, size, batches = _step(comparison.control, comparison)
            treatment, _, _ = _step(comparison.treatment, comparison)
        load = PointLoad((control, treatment), batches, size, self.threads or all_threads())
        yield from measure_point(comparison, self.name, "throughput", load, repeatable=False)
        histories = comparison.control.history(), comparison.treatment.history()
        best = histories[0].epochs[histories[0].best].valid
        goal = best * self.target if histories[0].direction == "higher" else best / self.target
        arms: tuple[Arm, Arm] = ("control", "treatment")
        for arm, history in zip(arms, histories, strict=True):
            reached = history.samples_to(goal)
            yield ValueRow(
                scenario=self.name,
                metric=SAMPLES_TO_TARGET,
                arm=arm,
                value=math.inf if reached is None else reached,
            )


def _step(
    pipeline: Pipeline, comparison: Comparison
) -> tuple[Callable[..., Any], int, list[Batch]]:
    device = comparison.device
    trainer = pipeline.trainer(pipeline.fresh_model(device.torch_device))
    drawn = itertools.islice(
        trainer.batches(pipeline.data.train), comparison.protocol.distinct_batches
    )
    size = pipeline.recipe.batch_size
    batches = [batch for batch in drawn if len(batch[0]) == size]
    return lambda *batch: trainer.step(batch), size, batches
