"""Inference loads without queueing: `offline` for throughput, `single-stream` for latency.

The two are MLPerf Inference's scenarios of those names (Reddi et al., 2020, arXiv:1911.02549),
measured by paired blocks instead of LoadGen, which cannot interleave two systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from bench.comparison import Comparison
from bench.scenarios.base import PointLoad, Scenario, ScenarioRow, measure_point, scenario


def _measure(
    comparison: Comparison, name: str, mode: str, batch_sizes: tuple[int, ...], threads: int
) -> Iterator[ScenarioRow]:
    assert comparison.predictors is not None
    with torch.inference_mode():
        for size in batch_sizes:
            with comparison.phases("load"):
                batches = comparison.requests(size, comparison.protocol.distinct_batches)
            load = PointLoad(comparison.predictors, batches, size, threads)
            yield from measure_point(comparison, name, mode, load, repeatable=True)


@scenario("offline")
@dataclass(frozen=True)
class Offline(Scenario):
    """All requests are there at once: samples a second in saturated windows."""

    batch_sizes: tuple[int, ...] = (512, 4096)
    threads: int = 1

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Throughput of both arms at every batch size."""
        yield from _measure(comparison, self.name, "throughput", self.batch_sizes, self.threads)


@scenario("single-stream")
@dataclass(frozen=True)
class SingleStream(Scenario):
    """One request after another: the latency that a caller waits for, and its tail."""

    batch_sizes: tuple[int, ...] = (1, 32, 512, 4096)
    threads: int = 1

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Latency of both arms at every batch size."""
        yield from _measure(comparison, self.name, "latency", self.batch_sizes, self.threads)
