"""Inference loads without queueing: `offline` for throughput, `single-stream` for latency.

The two are MLPerf Inference's scenarios of those names (Reddi et al., 2020, arXiv:1911.02549),
measured by paired blocks instead of LoadGen, which cannot interleave two systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from bench.comparison import Comparison
from bench.scenarios.base import SERVING_STAGES, Load, TimedScenario, scenario

MOST_TO_WARM = 4096


@dataclass(frozen=True)
class _Inference(TimedScenario):
    stages: ClassVar[frozenset[str]] = SERVING_STAGES

    batch_sizes: tuple[int, ...] = (512, 4096)
    threads: int = 1

    @property
    def largest_batch(self) -> int:
        """The largest of the batch sizes."""
        return max(self.batch_sizes)

    def loads(self, comparison: Comparison) -> Iterator[Load]:
        """Requests drawn from the test split, at every batch size. For a stack that gains from
        repeats, none of a block's has come before in it: ids repeat as they do in the data."""
        for size in self.batch_sizes:
            renew = partial(comparison.requests, size) if comparison.repeats else None
            with comparison.phases("load"):
                batches = comparison.requests(size, _to_warm(comparison, size))
            yield Load(comparison.served, batches, size, self.threads, renew)


def _to_warm(comparison: Comparison, size: int) -> int:
    """How many requests warm the arms: where repeats count, about what the test split holds."""
    least = comparison.protocol.distinct_batches
    if not comparison.repeats:
        return least
    return min(MOST_TO_WARM, max(least, len(comparison.control.data.test) // size))


@scenario("offline")
@dataclass(frozen=True)
class Offline(_Inference):
    """All requests are there at once: samples a second in saturated windows."""

    mode: ClassVar[Literal["latency", "throughput"]] = "throughput"


@scenario("single-stream")
@dataclass(frozen=True)
class SingleStream(_Inference):
    """One request after another: the latency that a caller waits for, and its tail."""

    mode: ClassVar[Literal["latency", "throughput"]] = "latency"

    batch_sizes: tuple[int, ...] = (1, 32, 512, 4096)
