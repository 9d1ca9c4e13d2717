"""`cache-phases`: what a cache does while it fills, once it is full, and when popularity moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from baselines.base import Batch, scores
from bench import checks
from bench.caching import HitRates, Hits, optimum, zipf_exponent
from bench.comparison import Comparison
from bench.drift import Drift
from bench.meters.clock import time_each
from bench.pipeline import Pipeline
from bench.records import ARMS, Arm, EventRow, Metric, ValueRow
from bench.scenarios.base import Scenario, ScenarioRow, scenario
from techniques.base import Change
from techniques.caching.counters import Cache, CacheCounts, caches

PHASES = ("cold", "warm", "drift")
CHUNK = 8  # requests that an arm answers before the other has its turn


@scenario("cache-phases")
@dataclass(frozen=True)
class CachePhases(Scenario):
    """A stream of requests in three phases, each of `requests`: cold, warm, drift.

    Caches are emptied before the first. In the last, the ids of a growing part of the rows, at the
    end of all, are others (`bench.drift`). Both arms get the same stream, by turns of a few
    requests, on one thread. Each phase gives the median latency of a request; hit rates, by request
    and by unique id; those of Belady's optimum, which knows the stream from its beginning, for the
    same ids and capacity; and the skew of the stream. The control holds all rows: it hits always.
    """

    batch_size: int = 512
    requests: int = 64

    @property
    def largest_batch(self) -> int:
        """The batch size."""
        return self.batch_size

    def reason_against(self, pipeline: Pipeline) -> str | None:
        """Because nothing in the stack is a cache."""
        if not pipeline.stack or any(t.caches for t in pipeline.stack):
            return None
        return "the stack holds no cache to look into"

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Time both arms through all phases, then say what the caches did in each."""
        torch.set_num_threads(1)
        held = caches(comparison.served[1])
        with comparison.phases("load"):
            phases = self._phases(comparison)
        counted: list[list[CacheCounts]] = []
        with torch.inference_mode():
            for arm in comparison.served:
                time_each(arm, phases[0][:CHUNK], comparison.device.synchronize)
            for cache in held:
                cache.clear()
            for name, requests in zip(PHASES, phases, strict=True):
                for cache in held:
                    cache.counts = CacheCounts(stream=[])
                yield from self._timed(comparison, name, requests)
                counted.append([cache.counts for cache in held])
        with comparison.phases("checks"):
            yield from self._hits(held, counted)

    def _phases(self, comparison: Comparison) -> list[list[Batch]]:
        drawn = comparison.requests(self.batch_size, len(PHASES) * self.requests)
        cold, warm, plain = (
            drawn[i * self.requests : (i + 1) * self.requests] for i in range(len(PHASES))
        )
        drift, move = Drift(comparison.control.data), comparison.device.move
        moved = [
            move(drift(tuple(c.cpu() for c in request), (i + 1) / self.requests, comparison.rng))
            for i, request in enumerate(plain)
        ]
        return [cold, warm, moved]

    def _timed(
        self, comparison: Comparison, phase: str, requests: list[Batch]
    ) -> Iterator[ScenarioRow]:
        """Every request through both arms, which must agree where the stack keeps the numbers."""
        exact = not any(Change.NUMERICS in t.changes for t in comparison.treatment.stack)
        spent: tuple[list[int], list[int]] = [], []
        agree = True
        for start in range(0, len(requests), CHUNK):
            chunk = requests[start : start + CHUNK]
            last: dict[int, Tensor] = {}
            with comparison.phases("blocks"):
                for i in map(int, comparison.rng.permutation(2)):
                    durations, answer = time_each(
                        comparison.served[i], chunk, comparison.device.synchronize
                    )
                    spent[i].extend(durations)
                    last[i] = scores(answer).float().cpu()
            agree = agree and not (exact and checks.differs(last[0], last[1]))
        if not agree:
            yield EventRow(
                scenario=self.name,
                name="output_mismatch",
                severity="failure",
                detail=f"treatment answered {phase} requests otherwise than control: what a cache "
                "holds is not what it was asked for",
            )
        for name, durations in zip(ARMS, spent, strict=True):
            seconds = float(np.median(durations)) / 1e9
            yield self._value(f"{phase}_latency", "s", "median of a phase", name, seconds)

    def _hits(self, held: list[Cache], counted: list[list[CacheCounts]]) -> Iterator[ScenarioRow]:
        best = []  # of each cache, over all phases
        for i, cache in enumerate(held):
            streams = [counts[i].stream or [] for counts in counted]
            most = optimum(list(chain.from_iterable(streams)), cache.capacity)
            best.append((most, [len(stream) for stream in streams]))
        for number, (phase, counts) in enumerate(zip(PHASES, counted, strict=True)):
            whole = sum(counts, CacheCounts())
            if not whole.asked:
                continue
            hits = HitRates(whole.hits / whole.asked, whole.distinct_hits / whole.distinct)
            parts = [
                hit.of(slice(sum(lengths[:number]), sum(lengths[: number + 1])))
                for hit, lengths in best
            ]
            named = {"hit_rate": hits, "optimal_hit_rate": reduce(Hits.and_of, parts).rates()}
            for name, rates in named.items():
                for kind, value in (("", rates.request), ("unique_", rates.unique)):
                    metric = f"{phase}_{kind}{name}"
                    yield self._value(metric, "", "share of a phase's look-ups", "control", 1.0)
                    yield self._value(metric, "", "share of a phase's look-ups", "treatment", value)
            stream = max((c.stream or [] for c in counts), key=lambda s: sum(map(len, s)))
            skew = zipf_exponent(np.concatenate(stream))
            for arm in ARMS:
                how = "likeliest Zipf exponent of the ids that the busiest cache was asked for"
                yield self._value(f"{phase}_skew", "", how, arm, skew)

    def _value(self, name: str, unit: str, estimator: str, arm: Arm, value: float) -> ValueRow:
        metric = Metric(
            name=name,
            unit=unit,
            direction="lower" if unit else "higher",
            scale="ratio" if unit else "difference",
            estimator=estimator,
            over_ranks="mean",
        )
        return ValueRow(
            scenario=self.name, metric=metric, point={"batch": self.batch_size}, arm=arm,
            value=value,
        )  # fmt: skip
