"""The queue: requests arrive by a schedule, wait, are answered in batches, and are timed apart.

Arrivals are a schedule and not a thread: whenever the one serving thread looks at its queue, what
was due by then is in it, in order, or was shed where the queue was full. That is the queue which a
thread would have filled at those moments, without one that takes the processor or the interpreter
lock from what it measures (in Python, a thread that issues requests is late by up to the lock's
switch interval). Latency counts from the scheduled arrival, however late anything was noticed.
The clock is handed in, so that the same loop runs in simulated time.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bench.meters.clock import quiet

Nanoseconds = npt.NDArray[np.int64]
_TIMER_SLACK = 29  # PR_SET_TIMERSLACK: how late, in ns, the kernel may end a sleep


class Clock(Protocol):
    """Times in nanoseconds from any origin."""

    def now(self) -> int:
        """The time."""

    def wait_until(self, moment: int) -> None:
        """Return at `moment` or soon after."""


class WallClock:
    """Real time. Waiting sleeps and does not spin: who spins on a shared host loses its turn to
    its neighbours just when a request arrives."""

    def __init__(self) -> None:
        if sys.platform == "linux":  # 50 µs otherwise
            ctypes.CDLL(None).prctl(_TIMER_SLACK, 1)

    def now(self) -> int:
        """The processor's monotonic clock."""
        return time.perf_counter_ns()

    def wait_until(self, moment: int) -> None:
        """Sleep."""
        while (left := moment - time.perf_counter_ns()) > 0:
            time.sleep(left / 1e9)


@dataclass(frozen=True)
class Policy:
    """How requests wait. max_delay: ns that the first of a batch may wait for others to join it.

    A batch leaves when it holds max_batch requests or its first has waited for max_delay. A
    request that finds max_queue others waiting is shed.
    """

    max_batch: int
    max_delay: int
    max_queue: int


@dataclass(frozen=True)
class Served:
    """What became of each request of a load, in order of arrival; times in ns from its start.

    arrived: when each was due. taken, done: when its batch was taken from the queue, and when its
    answer was there; −1 where it was not answered. late: by how much each wait for an arrival or
    for the end of a delay ended too late. batches: the rows of each batch.
    """

    arrived: Nanoseconds
    taken: Nanoseconds
    done: Nanoseconds
    late: Nanoseconds
    batches: Nanoseconds

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Which requests were."""
        return self.done >= 0

    @property
    def latency(self) -> Nanoseconds:
        """From the scheduled arrival to the answer, of the requests answered."""
        return (self.done - self.arrived)[self.answered]

    @property
    def queue_time(self) -> Nanoseconds:
        """From the scheduled arrival until the batch was taken, of the requests answered."""
        return (self.taken - self.arrived)[self.answered]

    @property
    def compute_time(self) -> Nanoseconds:
        """From then until the answer: joining, calling, splitting."""
        return (self.done - self.taken)[self.answered]

    @property
    def shed_share(self) -> float:
        """The share of the requests that were not answered."""
        return 1.0 - float(self.answered.mean()) if len(self.done) else 0.0

    def after(self, first: int) -> Served:
        """The same without the first requests. late and batches stay those of the whole load."""
        return Served(
            self.arrived[first:], self.taken[first:], self.done[first:], self.late, self.batches
        )

    def idle_after(self, moment: int) -> int:
        """The first time from `moment` on, in ns, at which no request was left waiting."""
        came = self.arrived[self.answered]
        taken = np.sort(self.taken[self.answered])
        moments = np.unique(taken[taken >= moment])
        waiting = np.searchsorted(came, moments, "right") - np.searchsorted(taken, moments, "right")
        idle = moments[waiting == 0]
        return int(idle[0]) if len(idle) else max(moment, int(self.done.max(initial=moment)))


def poisson(rate: float, count: int, seed: Sequence[int]) -> Nanoseconds:
    """The arrival times of `count` requests at `rate` a second, ns from 0: int64 [count].

    The same seed gives the same gaps at every rate, stretched: two arms meet the same luck.
    """
    gaps = np.random.default_rng(seed).exponential(size=count)
    return (np.cumsum(gaps) / rate * 1e9).astype(np.int64)


def serve(
    arrivals: Nanoseconds,
    answer: Callable[[list[int]], object],
    policy: Policy,
    clock: Clock,
    lost: Callable[[list[int], int], bool] = lambda members, done: False,
) -> Served:
    """Serve a load to its end.

    arrivals: when each request is due, rising, ns from the start: int64 [n]. answer: called with
    the places in `arrivals` of the requests of a batch; has their answers when it returns. lost:
    called after every batch with them and the time; where it says yes, the rest is left.
    """
    due = arrivals.tolist()
    taken, done = np.full((2, len(due)), -1, dtype=np.int64)
    late: list[int] = []
    batches: list[int] = []
    waiting: deque[int] = deque()
    seen = 0

    def wait_until(moment: int) -> None:
        clock.wait_until(start + moment)
        late.append(clock.now() - start - moment)

    with quiet():
        start = clock.now()
        while seen < len(due) or waiting:
            now = clock.now() - start
            while seen < len(due) and due[seen] <= now:
                if len(waiting) < policy.max_queue:
                    waiting.append(seen)
                seen += 1
            if not waiting:
                if seen < len(due):
                    wait_until(due[seen])
                continue
            leaves = due[waiting[0]] + policy.max_delay
            last = seen + policy.max_batch - len(waiting) - 1  # who would fill the batch
            if last >= seen and now < leaves:
                wait_until(min(leaves, due[last]) if last < len(due) else leaves)
                continue
            members = [waiting.popleft() for _ in range(min(len(waiting), policy.max_batch))]
            taken[members] = clock.now() - start
            answer(members)
            ended = clock.now() - start
            done[members] = ended
            batches.append(len(members))
            if lost(members, ended):
                break
    shown = slice(0, seen)
    return Served(
        arrivals[shown],
        taken[shown],
        done[shown],
        np.array(late, dtype=np.int64),
        np.array(batches, dtype=np.int64),
    )
