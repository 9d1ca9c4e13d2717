"""The `server` load: single requests that arrive by themselves, a queue, and an SLA."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from bench import checks
from bench.blocks import LATENCY, outliers
from bench.comparison import Comparison
from bench.records import ARMS, BlockRow, CurveRow, EventRow, Metric, ValueRow
from bench.scenarios.base import SERVING_STAGES, Scenario, ScenarioRow, scenario
from bench.serving.arms import ServedArms
from bench.serving.queue import Policy, Served, poisson
from bench.serving.search import (
    Goal,
    RateSearch,
    bearable,
    probe,
    requests_for,
    search_in_turn,
)
from bench.serving.verify import verify_served

QUEUE_TIME = Metric(
    name="queue_time", unit="s", direction="lower", scale="ratio", estimator="mean of a block"
)
COMPUTE_TIME = Metric(
    name="compute_time", unit="s", direction="lower", scale="ratio", estimator="mean of a block"
)
SHED_SHARE = Metric(
    name="shed_share", unit="", direction="lower", scale="difference",
    estimator="requests of a burst not answered ÷ all",
)  # fmt: skip
RECOVERY = Metric(
    name="recovery_time", unit="s", direction="lower", scale="ratio",
    estimator="from the end of a burst until no request waits",
)  # fmt: skip
START, FLOOR = 0.9, 0.1  # of the peak: where the search begins, and the least that it asks for
LASTS = 20  # times the SLA that a probe takes: a load 5 % too much has a backlog that long by then
LONGEST_PROBE, LONGEST_SEARCH, LONGEST_BURST = 2.0, 60.0, 4.0  # seconds
BURST, CALM = 1.5, 0.5  # of the control's peak: what is offered in a burst, and after it
LATE = 0.1  # of the SLA: arrivals noticed later than that are said
Share = Annotated[int, Field(ge=1, le=100)]


@scenario("server")
@dataclass(frozen=True)
class Server(Scenario):
    """Requests of one row by a Poisson process, batched as they wait: MLPerf's server scenario.

    throughput_at_sla is the largest rate whose `percentile` of latency stays within `sla_ms`, by
    MLPerf LoadGen's early-stopping bound; 0, with an event, where none does. Then latency, and the
    mean time in the queue and in compute, of both arms under the same rates: `loads` percent of
    the control's largest. Last, a burst of 1.5 × what the control can do at most: the share of
    requests that a full queue sheds, and how long the backlog lasts.

    max_batch, max_delay_ms: a batch leaves when full, or when its first request has waited so
    long. queue: batches' worth of requests that may wait; a request beyond is shed.

    LoadGen itself (mlcommons-loadgen) does not issue the load: it runs a test to its end, lost or
    not, and against the wall clock alone, so that neither could a search be short nor the queue
    be held against queueing theory. Both arms meet the same arrivals, by turns.
    """

    stages: ClassVar[frozenset[str]] = SERVING_STAGES

    sla_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    percentile: Literal[50, 90, 95, 99] = 99
    max_batch: Annotated[int, Field(ge=1)] = 32
    max_delay_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    queue: Annotated[int, Field(ge=1)] = 8
    loads: tuple[Share, ...] = (50, 80)
    threads: Annotated[int, Field(ge=1)] = 1

    @property
    def largest_batch(self) -> int:
        """A full batch."""
        return self.max_batch

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Search, then loads at the same rates, then a burst; at last the answers are verified."""
        torch.set_num_threads(self.threads)
        with torch.inference_mode():
            with comparison.phases("load"):
                served = self._arms(comparison)
            with comparison.phases("blocks"):
                yield from self._settle(served, comparison)
                peaks = [served.peak(i, comparison.protocol.window_seconds) for i in (0, 1)]
                rates = yield from self._capacities(served, peaks, comparison)
                if rates[0]:
                    for load in self.loads:
                        yield from self._under(load, rates[0], served, comparison)
                yield from self._burst(peaks[0], served, comparison)
            with comparison.phases("checks"):
                yield from checks.verify_processors(served, self.threads, self.name)
                yield from verify_served(served, self.name, comparison.rng)

    def _arms(self, comparison: Comparison) -> ServedArms:
        requests = comparison.requests(1, comparison.protocol.distinct_batches * self.max_batch)
        policy = Policy(self.max_batch, round(self.max_delay_ms * 1e6), self.queue * self.max_batch)
        return ServedArms(comparison.served, requests, policy, comparison.device, comparison.rng)

    def _settle(self, served: ServedArms, comparison: Comparison) -> Iterator[EventRow]:
        served.warm_up(comparison.protocol.warmup_cap_seconds)
        for i, arm in enumerate(served.arms):
            comparison.preparation[i] += arm.first_call
            if not arm.steady:
                yield self._event(
                    "not_steady", f"{arm.name} had not settled when its warm-up was cut off"
                )

    def _capacities(
        self, served: ServedArms, peaks: list[float], comparison: Comparison
    ) -> Generator[ScenarioRow, None, list[float]]:
        """The throughput at the SLA of both arms, yielded and returned."""
        sla = round(self.sla_ms * 1e6)
        percentile = bearable(self.percentile, min(peaks), LONGEST_PROBE)
        shows = LASTS * self.sla_ms / 1e3 / (percentile / 100)
        lasts = max(comparison.protocol.window_seconds, shows)
        if percentile < self.percentile:
            yield self._event(
                "percentile_lowered",
                f"the slower arm answers {min(peaks):.0f} requests/s at most, so few that the SLA "
                f"is held against p{percentile:g} and not p{self.percentile}",
            )
        searches = [RateSearch(START * peak, FLOOR * peak) for peak in peaks]
        asked: tuple[dict[float, list[float]], ...] = {}, {}  # of each arm: rate → bounds, s
        seed = int(comparison.rng.integers(2**31))

        def met(i: int, rate: float, turn: int) -> bool:
            requests = max(requests_for(percentile), math.ceil(lasts * rate))
            goal = Goal(sla, percentile, requests)
            picks = served.picks(goal.skipped + goal.requests, [seed, turn])
            answering = served.answering(i, np.roll(picks, i * len(picks) // 2))
            shown = probe(rate, answering, goal, served.policy, served.clock, [seed, turn])
            asked[i].setdefault(rate, []).append(goal.bound(shown) / 1e9)
            return goal.met_by(shown)

        end = time.monotonic() + LONGEST_SEARCH
        search_in_turn(searches, met, comparison.rng, lambda: time.monotonic() > end)
        metric = Metric(
            name="throughput_at_sla", unit="samples/s", direction="higher", scale="ratio",
            estimator=f"largest Poisson rate with the bound of p{percentile:g} of latency "
            f"within {self.sla_ms:g} ms",
            over_ranks="sum",
        )  # fmt: skip
        bound = LATENCY.model_copy(
            update={
                "name": f"latency_p{percentile:g}_bound",
                "estimator": "the middle one of the probes of a rate, of two the larger",
            }
        )
        for arm, probed in zip(ARMS, asked, strict=True):
            rates = tuple(sorted(probed))
            yield CurveRow(
                scenario=self.name, metric=bound, name=arm, along="requests/s offered", x=rates,
                y=tuple(sorted(probed[rate])[len(probed[rate]) // 2] for rate in rates),
                limit=self.sla_ms / 1e3,
            )  # fmt: skip
        for arm, search in zip(ARMS, searches, strict=True):
            yield ValueRow(scenario=self.name, metric=metric, arm=arm, value=search.found)
            if not search.done:
                yield self._event(
                    "search_cut_short",
                    f"after {LONGEST_SEARCH:.0f} s the largest rate of {arm} was known to lie "
                    f"between {search.low:.3g} and {search.high:.3g} requests/s",
                )
            elif not search.found:
                yield self._event(
                    "sla_not_met",
                    f"{arm} does not keep p{percentile:g} of latency within "
                    f"{self.sla_ms:g} ms even at {search.floor:.3g} requests/s",
                )
        return [search.found for search in searches]

    def _under(
        self, load: int, capacity: float, served: ServedArms, comparison: Comparison
    ) -> Iterator[ScenarioRow]:
        """Paired blocks at `load` percent of the capacity."""
        rate, protocol, rng = load / 100 * capacity, comparison.protocol, comparison.rng
        needed = requests_for(self.percentile) / protocol.pairs
        counted = math.ceil(max(needed, rate * protocol.window_seconds))
        skipped = math.ceil(counted / 9)
        point, late = {"load": load}, []
        for pair, first in enumerate(rng.permutation([0, 1] * (protocol.pairs // 2))):
            seed = rng.integers(2**31, size=1).tolist()
            arrivals = poisson(rate, counted + skipped, seed)
            picks = served.picks(len(arrivals), seed)
            for position in (0, 1):
                arm = int(first) ^ position
                shown = served.serve(arm, arrivals, np.roll(picks, position * len(picks) // 2))
                late.append(shown.late)
                yield self._block(shown.after(skipped), point, pair, position, arm, skipped)
                for metric, times in (
                    (QUEUE_TIME, shown.after(skipped).queue_time),
                    (COMPUTE_TIME, shown.after(skipped).compute_time),
                ):
                    yield ValueRow(
                        scenario=self.name, metric=metric, point=point, arm=ARMS[arm],
                        value=float(times.mean()) / 1e9,
                    )  # fmt: skip
        tail = float(np.percentile(np.concatenate(late), 99)) / 1e6
        if tail > LATE * self.sla_ms:
            yield self._event(
                "late_arrivals",
                f"at load {load} the 99th percentile of what an idle server noticed too late is "
                f"{tail:.2g} ms: the host was busy elsewhere, and latencies hold that",
            )

    def _block(
        self, shown: Served, point: dict[str, int], pair: int, position: int, arm: int, skipped: int
    ) -> BlockRow:
        durations = shown.latency.tolist()
        return BlockRow(
            scenario=self.name, metric=LATENCY, point=point, pair=pair,
            position=1 if position else 0, arm=ARMS[arm],
            value=float(np.median(durations)) / 1e9, samples=len(durations),
            durations_ns=tuple(durations), dropped=skipped, outliers=outliers(durations),
        )  # fmt: skip

    def _burst(
        self, peak: float, served: ServedArms, comparison: Comparison
    ) -> Iterator[ScenarioRow]:
        """More than the control can do for as long as fills the queue twice, then half of it."""
        fills = 2 * served.policy.max_queue / ((BURST - 1) * peak)
        seconds = min(LONGEST_BURST, max(2 * comparison.protocol.window_seconds, fills))
        seed = int(comparison.rng.integers(2**31))
        burst = poisson(BURST * peak, math.ceil(BURST * peak * seconds), [seed, 0])
        end = int(burst[-1])
        calm = end + poisson(CALM * peak, math.ceil(CALM * peak * seconds), [seed, 1])
        arrivals = np.concatenate([burst, calm])
        picks = served.picks(len(arrivals), [seed])
        for i in map(int, comparison.rng.permutation(2)):
            shown = served.serve(i, arrivals, np.roll(picks, i * len(picks) // 2))
            shed = 1 - float(shown.answered[: len(burst)].mean())
            recovery = (shown.idle_after(end) - end) / 1e9
            for metric, value in ((SHED_SHARE, shed), (RECOVERY, recovery)):
                yield ValueRow(scenario=self.name, metric=metric, arm=ARMS[i], value=value)

    def _event(self, name: str, detail: str) -> EventRow:
        return EventRow(scenario=self.name, name=name, severity="warning", detail=detail)
