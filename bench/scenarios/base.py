"""The contract of a scenario: it measures a comparison and yields rows, nothing else."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from baselines.base import Batch
from baselines.registry import Registry
from bench import checks
from bench.blocks import LATENCY, THROUGHPUT, PairedBlocks, TooSmall, rows_of
from bench.comparison import Comparison
from bench.pipeline import Pipeline
from bench.records import BlockRow, CurveRow, EventRow, QualityRow, ValueRow, point_text
from techniques.base import STAGES
from techniques.caching.counters import CacheCounts, caches

# A model that is only trained otherwise is as fast, and starts as fast, as the control's.
SERVING_STAGES = frozenset(STAGES) - {"train"}

ScenarioRow = BlockRow | ValueRow | QualityRow | CurveRow | EventRow


class Scenario(ABC):
    """One kind of load. Subclass it as a frozen dataclass; its fields are its parameters.

    stages: the pipeline stages whose change it can show. A stack that changes none of them is
    skipped, with that as the reason. parallel: of those that show training, whether it is that of
    several ranks.
    """

    name: ClassVar[str]
    stages: ClassVar[frozenset[str]] = frozenset(STAGES)
    parallel: ClassVar[bool] = False

    @property
    def largest_batch(self) -> int:
        """The rows of a request under which memory is measured."""
        return 4096

    def reason_against(self, pipeline: Pipeline) -> str | None:
        """Why this scenario does not show `pipeline`'s baseline under its stack; None where it
        does. The empty stack is asked about as well: it is the A/A arm."""
        return None

    @abstractmethod
    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Measure both arms of the comparison."""


@dataclass(frozen=True)
class Load:
    """One point of a timed scenario: what both arms are called with. renew: see PairedBlocks."""

    calls: tuple[Callable[..., Any], Callable[..., Any]]
    batches: Sequence[Batch]
    batch_size: int
    threads: int
    renew: Callable[[int], list[Batch]] | None = None


class TimedScenario(Scenario):
    """A scenario that times both arms by paired blocks at each of its loads.

    mode: what a block is worth, "latency" or "throughput". inference: the same batch gives the
    same answer, so that gradients are off and sampled answers are asked again.
    """

    mode: ClassVar[Literal["latency", "throughput"]]
    inference: ClassVar[bool] = True

    @abstractmethod
    def loads(self, comparison: Comparison) -> Iterator[Load]:
        """The points, each made just before it is measured."""

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Paired blocks at every load."""
        with torch.inference_mode(self.inference):
            for load in self.loads(comparison):
                yield from self._measure_load(comparison, load)

    def _measure_load(self, comparison: Comparison, load: Load) -> Iterator[ScenarioRow]:
        torch.set_num_threads(load.threads)
        point = {"batch": load.batch_size, "threads": load.threads}
        blocks = PairedBlocks(
            *load.calls, load.batches, comparison.device, comparison.protocol, comparison.rng,
            self.mode, load.renew,
        )  # fmt: skip
        metric = LATENCY if self.mode == "latency" else THROUGHPUT
        held = caches(comparison.served[1]) if comparison.repeats and self.inference else []
        for cache in held:
            cache.counts = CacheCounts()
        try:
            with comparison.phases("blocks"):
                yield from rows_of(blocks, self.name, metric, point, load.batch_size)
        except TooSmall as error:
            detail = f"{point_text(point)}: {error}"
            yield EventRow(scenario=self.name, name="too_small", severity="failure", detail=detail)
        if counts := [cache.counts for cache in held]:
            yield self._hits(point, sum(counts, CacheCounts()))
        for i, arm in enumerate(blocks.arms):
            comparison.preparation[i] += max(0.0, arm.first_call - arm.steady_call)
        with comparison.phases("checks"):
            yield from checks.verify_complete(blocks, self.name)
            yield from checks.verify_processors(blocks, load.threads, self.name)
            if self.inference:
                fresh = comparison.requests(load.batch_size, checks.fresh_needed(blocks))
                yield from checks.verify_timed_outputs(
                    blocks, fresh, self.name, comparison.rng, comparison.repeats
                )
                yield from checks.verify_rows(blocks, self.name, comparison.rng)

    def _hits(self, point: dict[str, int], counts: CacheCounts) -> EventRow:
        """How often the treatment's caches had what they were asked for at this load."""
        rates = counts.hits / max(1, counts.asked), counts.distinct_hits / max(1, counts.distinct)
        return EventRow(
            scenario=self.name,
            name="hits",
            severity="note",
            detail=f"{point_text(point)}: treatment's caches held {rates[0]:.1%} of what they were "
            f"asked for, {rates[1]:.1%} by distinct keys of a batch, warm-up included",
        )


SCENARIOS: Registry[Scenario] = Registry("scenario", "bench.scenarios", "leanrec.scenarios")
scenario = SCENARIOS.register


def all_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
