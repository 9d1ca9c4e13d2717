"""Both arms of a comparison in one process: made, checked, and ready for the scenarios."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from baselines.base import Batch
from bench import checks
from bench.device import Device
from bench.pipeline import Pipeline
from bench.protocol import Protocol
from bench.records import ARMS, EventRow, Metric, ValueRow
from techniques.base import Change
from techniques.sizes import deployed_bytes

PREPARATION = Metric(
    name="preparation",
    unit="s",
    direction="lower",
    scale="difference",
    estimator="compress, with fine-tuning once a seed, deploy and first calls of a process",
    over_ranks="max",
)
PROBES = 2


class Phases:
    """Seconds that a trial has spent, by phase. Phases do not nest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


@dataclass
class Comparison:
    """Control and treatment of one baseline, for one seed, on one device.

    treatment.stack is empty for the A/A arm: the same predictor, made a second time.
    """

    control: Pipeline
    treatment: Pipeline
    protocol: Protocol
    rng: np.random.Generator
    phases: Phases = field(default_factory=Phases)
    predictors: tuple[nn.Module, nn.Module] | None = None
    trained: tuple[nn.Module, str] | None = None  # the control's model, and its fingerprint
    preparation: list[float] = field(default_factory=lambda: [0.0, 0.0])
    plugins: tuple[Path, ...] = ()  # the user's own files, for processes that are started

    @property
    def served(self) -> tuple[nn.Module, nn.Module]:
        """Both predictors, once they are built."""
        assert self.predictors is not None
        return self.predictors

    @property
    def device(self) -> Device:
        """Where both arms run."""
        return self.control.device

    @property
    def repeats(self) -> bool:
        """Whether the treatment declares that it answers faster what it was asked before."""
        return any(Change.REPEATS in t.changes for t in self.treatment.stack)

    def requests(self, batch_size: int, count: int) -> list[Batch]:
        """Distinct requests, already on the device."""
        drawn = self.control.baseline.task.requests(
            self.control.data, batch_size, count, int(self.rng.integers(2**31))
        )
        return [self.device.move(batch) for batch in drawn]

    def build(self) -> Iterator[EventRow]:
        """Make both predictors, in random order, and verify what the technique did to get there."""
        with self.phases("load"):
            model = self.control.trained_model()
            own = self.treatment.changes_training or not self.treatment.stack
            trained = self.treatment.trained_model() if own else model
            probes = self.requests(checks.PROBE_ROWS, PROBES)
            self.trained = model, checks.fingerprint(model)
        context = self.treatment.context
        for technique in self.treatment.stack:
            if said := technique.explain(trained, context):
                yield EventRow(scenario="", name="expect", severity="note", detail=said)
        made: dict[int, nn.Module] = {}
        given: dict[int, list[Tensor]] = {}
        arms = (self.control, model), (self.treatment, trained)
        with self.phases("preparation"):
            for i in map(int, self.rng.permutation(2)):
                pipeline, whole = arms[i]
                start = time.perf_counter()
                made[i], earlier = pipeline.serve(whole)
                self.preparation[i] += time.perf_counter() - start + earlier
                given[i], excess = checks.answers(made[i], probes, self.device)
                self.preparation[i] += excess
        self.predictors = made[0], made[1]
        with self.phases("checks"):
            yield from self.verify_unmutated()
            sizes = (deployed_bytes(p) for p in self.predictors)
            yield from checks.verify_changes(self.treatment.stack, given[0], given[1], *sizes)

    def verify_unmutated(self) -> Iterator[EventRow]:
        """The control's model must be what it was before the technique was applied."""
        assert self.trained is not None
        model, before = self.trained
        yield from checks.verify_unmutated(before, checks.fingerprint(model))

    def preparation_rows(self, scenario: str) -> Iterator[ValueRow]:
        """What each arm cost before it could serve at speed."""
        for arm, seconds in zip(ARMS, self.preparation, strict=True):
            yield ValueRow(scenario=scenario, metric=PREPARATION, arm=arm, value=seconds)
