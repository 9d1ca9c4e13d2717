"""The contract of a scenario: it measures a comparison and yields rows, nothing else."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from baselines.base import Batch
from baselines.registry import Registry
from bench import checks
from bench.blocks import LATENCY, THROUGHPUT, PairedBlocks, TooSmall, rows_of
from bench.comparison import Comparison
from bench.records import BlockRow, EventRow, QualityRow, ValueRow
from techniques.base import STAGES

ScenarioRow = BlockRow | ValueRow | QualityRow | EventRow


class Scenario(ABC):
    """One kind of load. Subclass it as a frozen dataclass; its fields are its parameters.

    stages: the pipeline stages whose change it can show. A stack that changes none of them is
    skipped, with that as the reason.
    """

    name: ClassVar[str]
    stages: ClassVar[frozenset[str]] = frozenset(STAGES)

    @abstractmethod
    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Measure both arms of the comparison."""


SCENARIOS: Registry[Scenario] = Registry("scenario", "bench.scenarios", "leanrec.scenarios")
scenario = SCENARIOS.register


def all_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class PointLoad:
    """One point of a scenario: what both arms are called with."""

    calls: tuple[Callable[..., Any], Callable[..., Any]]
    batches: Sequence[Batch]
    batch_size: int
    threads: int


def measure_point(
    comparison: Comparison, name: str, mode: str, load: PointLoad, *, repeatable: bool
) -> Iterator[ScenarioRow]:
    """Paired blocks at one point, then the checks of what was timed.

    repeatable: the same batch gives the same answer (inference, not a training step), so that
    sampled outputs can be asked again. Adds the excess of the first calls to the preparation.
    """
    torch.set_num_threads(load.threads)
    point = {"batch": load.batch_size, "threads": load.threads}
    blocks = PairedBlocks(
        *load.calls, load.batches, comparison.device, comparison.protocol, comparison.rng, mode
    )
    metric = LATENCY if mode == "latency" else THROUGHPUT
    try:
        with comparison.phases("blocks"):
            yield from rows_of(blocks, name, metric, point, load.batch_size)
    except TooSmall as error:
        yield EventRow(
            scenario=name, name="too_small", severity="failure", detail=f"{point}: {error}"
        )
        return
    for i, arm in enumerate(blocks.loads):
        comparison.preparation[i] += max(0.0, arm.first_call - arm.steady_call)
    with comparison.phases("checks"):
        yield from checks.verify_drain(blocks, name)
        if repeatable:
            yield from checks.verify_timed_outputs(blocks, name, comparison.rng)
