"""The largest rate that meets an SLA, by bracketing and bisection, for arms asked in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.serving.queue import Clock, Policy, Served, poisson, serve
from bench.stats import PERCENTILES, bounding_rank

RESOLUTION = 1.03  # the rate that failed ÷ the rate that is reported
STEP = 1.25  # the first step of a bracket; each further one is the square of the one before
MAJORITY = 2  # probes that agree settle a rate: a hiccup of the host fails one
ROOM = 1.5  # requests of a probe ÷ those that would just bear the percentile


@dataclass(frozen=True)
class Goal:
    """An SLA and how it is held against a load: the percentile's bound must be within it.

    sla: ns. percentile: one of `bench.stats.PERCENTILES`. requests: of a probe, those counted.
    The bound is LoadGen's early-stopping estimate, see `bench.stats.bounding_rank`. It takes
    latencies to be independent, which those of a queue are not: that is why rates are settled by
    several probes, and verdicts by processes.
    """

    sla: int
    percentile: float
    requests: int

    @property
    def tolerated(self) -> int:
        """Requests of a probe that may be late or shed."""
        return bounding_rank(self.requests, self.percentile) - 1

    @property
    def skipped(self) -> int:
        """Requests at the head of a probe that are not counted, while the queue fills."""
        return math.ceil(self.requests / 9)

    def met_by(self, served: Served) -> bool:
        """Whether a whole probe met the SLA."""
        counted = served.after(self.skipped)
        if len(counted.done) < self.requests:
            return False
        late = int((counted.latency > self.sla).sum() + (~counted.answered).sum())
        return late <= self.tolerated

    def bound(self, served: Served) -> float:
        """The bound of the percentile, ns; of a probe that was left, what it is at least.

        Infinite where so many requests were shed that there is none.
        """
        counted = served.after(self.skipped)
        latency = np.sort(counted.latency)
        lost = int((latency > self.sla).sum()) > self.tolerated
        rank = self.tolerated + 1 - (0 if lost else int((~counted.answered).sum()))
        return float(latency[-rank]) if 0 < rank <= len(latency) else math.inf


def bearable(percentile: float, rate: float, seconds: float) -> float:
    """The highest percentile, up to `percentile`, that `seconds` at `rate` have the requests for.

    The lowest where none has.
    """
    known = [percentile, *(p for p in PERCENTILES if p < percentile)]
    return next((p for p in known if requests_for(p) <= seconds * rate), known[-1])


def requests_for(percentile: float) -> int:
    """The requests with which a percentile is judged: more than just bear it."""
    return math.ceil(ROOM * fewest(percentile))


def fewest(percentile: float) -> int:
    """The fewest requests that bear a percentile."""
    low, high = 1, 2
    while bounding_rank(high, percentile) < 1:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bounding_rank(middle, percentile) >= 1 else (middle, high)
    return high


def probe(
    rate: float,
    answer: Callable[[list[int]], object],
    goal: Goal,
    policy: Policy,
    clock: Clock,
    seed: Sequence[int],
) -> Served:
    """Serve Poisson arrivals at `rate` a second; left as soon as they cannot meet the goal."""
    arrivals = poisson(rate, goal.skipped + goal.requests, seed)
    late = 0

    def lost(members: list[int], done: int) -> bool:
        nonlocal late
        late += sum(
            done - int(arrivals[member]) > goal.sla for member in members if member >= goal.skipped
        )
        return late > goal.tolerated

    return serve(arrivals, answer, policy, clock, lost)


class RateSearch:
    """One search. Ask `rate`, probe it, `tell`; until `done`, when `found` is the answer.

    start, floor: the rate to begin with, and the lowest that is asked for. found is the largest
    rate that met the goal; 0 where not even the floor did.
    """

    def __init__(self, start: float, floor: float) -> None:
        self.rate, self.floor = start, floor
        self.low, self.high = 0.0, math.inf
        self.votes = [0, 0]  # against, for
        self.step = STEP

    @property
    def done(self) -> bool:
        """Whether the answer is known well enough."""
        return self.high <= max(self.floor, self.low * RESOLUTION)

    @property
    def found(self) -> float:
        """The largest rate that met the goal so far."""
        return self.low

    def tell(self, met: bool) -> None:
        """Take in a probe at `rate`; a rate is settled once a majority of probes agree."""
        self.votes[met] += 1
        if max(self.votes) < MAJORITY:
            return
        if self.votes[True] == MAJORITY:
            self.low = self.rate
        else:
            self.high = self.rate
        self.votes = [0, 0]
        if self.low and math.isfinite(self.high):
            self.rate = math.sqrt(self.low * self.high)
        else:  # no bracket yet
            self.rate = self.rate * self.step if self.low else self.rate / self.step
            self.rate = max(self.rate, self.floor)
            self.step **= 2


def search_in_turn(
    searches: Sequence[RateSearch],
    met: Callable[[int, float, int], bool],
    rng: np.random.Generator,
    out_of_time: Callable[[], bool] = lambda: False,
) -> None:
    """Run the searches of all arms to their ends, a probe of each in turn, in random order.

    met: whether an arm meets a rate; called with the arm, the rate, and the number of the turn,
    which is the same for all arms. out_of_time: asked before every turn; searches are left as they
    are where it says yes.
    """
    turn = 0
    while not all(search.done for search in searches) and not out_of_time():
        for i in map(int, rng.permutation(len(searches))):
            if not searches[i].done:
                searches[i].tell(met(i, searches[i].rate, turn))
        turn += 1
