"""The test set, in full, once: every quality metric of both arms on the same examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from baselines.base import QualityMetric, Scored, scores
from bench.comparison import Comparison
from bench.records import EventRow, Metric, QualityRow
from bench.scenarios.base import Scenario, ScenarioRow, scenario

MIN_SEGMENT_UNITS = 30


class _Watched(nn.Module):
    """A predictor, and whether all its scores were finite: a ranking would hide it."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor, self.finite = predictor, True

    def forward(self, *request: Tensor) -> Tensor | tuple[Tensor, ...]:
        answer: Tensor | tuple[Tensor, ...] = self.predictor(*request)
        self.finite = self.finite and bool(scores(answer).isfinite().all())
        return answer


@scenario("quality")
@dataclass(frozen=True)
class Quality(Scenario):
    """Quality of the served predictor, overall and by segment for the primary metric.

    Each difference comes with paired bootstrap resamples of the units (examples, or users), the
    same resamples in every process (Efron and Tibshirani, 1993, chapter 16).
    """

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Score both arms, then resample."""
        pipeline = comparison.control
        task, device = pipeline.baseline.task, comparison.device.torch_device
        watched = [_Watched(predictor) for predictor in comparison.served]
        with comparison.phases("quality"), torch.inference_mode():
            control, treatment = (
                task.score(p, pipeline.data, pipeline.data.test, device) for p in watched
            )
        control.require_comparable(treatment)
        protocol = f"{pipeline.data.protocol} [split {pipeline.data_digest}]"
        with comparison.phases("quality"):
            weights = resamples(control.unit, comparison.protocol.bootstraps)
            for i, metric in enumerate(task.metrics):
                yield quality_row(metric, "", control, treatment, weights, protocol, primary=i == 0)
            yield from _segments(task.metrics[0], control, treatment, weights, protocol)
        for arm, predictor in zip(("control", "treatment"), watched, strict=True):
            if not predictor.finite:
                yield EventRow(
                    scenario=self.name,
                    name="non_finite",
                    severity="failure",
                    detail=f"{arm} gave NaN or infinite scores on the test set",
                )


def resamples(unit: np.ndarray, count: int) -> np.ndarray:
    """How often each row counts in each resample: float64 [count, rows]."""
    _, index = np.unique(unit, return_inverse=True)
    units = int(index.max()) + 1 if len(index) else 0
    rng = np.random.default_rng(0)  # the same for every process: replicates are averaged over them
    drawn = rng.multinomial(units, np.full(units, 1 / max(units, 1)), size=count)
    return drawn[:, index].astype(np.float64)


def _segments(
    metric: QualityMetric,
    control: Scored,
    treatment: Scored,
    weights: np.ndarray,
    protocol: str,
) -> Iterator[QualityRow]:
    for name, numbers in control.segments.items():
        for number in np.unique(numbers):
            mask = numbers == number
            if len(np.unique(control.unit[mask])) < MIN_SEGMENT_UNITS:
                continue
            row = quality_row(
                metric, f"{name}={number}", control.where(mask), treatment.where(mask),
                weights[:, mask], protocol, primary=False,
            )  # fmt: skip
            if np.isfinite(row.control):
                yield row


def quality_row(
    metric: QualityMetric,
    segment: str,
    control: Scored,
    treatment: Scored,
    weights: np.ndarray,
    protocol: str,
    *,
    primary: bool,
    scenario: str = "quality",
) -> QualityRow:
    """The row of `metric` for two results on the same rows; weights: what `resamples` gives."""
    same = all(
        np.array_equal(control.columns[name], treatment.columns[name]) for name in control.columns
    )
    replicates = (
        np.zeros(len(weights))
        if same  # nothing to resample: every difference is zero
        else np.array([metric(treatment, w) - metric(control, w) for w in weights])
    )
    value = metric(control)
    return QualityRow(
        scenario=scenario,
        metric=Metric(
            name=metric.name,
            unit=metric.unit,
            direction=metric.direction,
            scale="difference",
            estimator="over the test set",
            over_ranks="none",
        ),
        segment=segment,
        control=value,
        treatment=value if same else metric(treatment),
        replicates=tuple(replicates),
        units=len(np.unique(control.unit)),
        protocol=protocol,
        primary=primary,
    )
