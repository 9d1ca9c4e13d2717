"""Both arms of a comparison behind queues of one policy, fed from one pool of requests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from baselines.base import Batch
from bench.blocks import STEADY, ArmState
from bench.device import Device
from bench.meters.clock import quiet
from bench.serving.answering import Answering
from bench.serving.queue import Nanoseconds, Policy, Served, WallClock, serve

SAMPLES = 2  # batches of a load that are kept to be verified, beside the first


class ServedArms:
    """requests: of one row each, on the device. Calls are (control, treatment)."""

    def __init__(
        self,
        calls: tuple[Callable[..., Any], Callable[..., Any]],
        requests: Sequence[Batch],
        policy: Policy,
        device: Device,
        rng: np.random.Generator,
    ) -> None:
        self.arms = (ArmState("control", calls[0]), ArmState("treatment", calls[1]))
        self.requests, self.policy, self.device, self.rng = requests, policy, device, rng
        self.clock = WallClock()

    def warm_up(self, cap: float) -> None:
        """Batches of every size until two passes over them agree, or `cap` seconds have passed.

        An arm's first_call is the excess of the first pass: compilation, packing, cache fill.
        """
        sizes = self.rng.permutation(self.policy.max_batch) + 1
        for i in map(int, self.rng.permutation(2)):
            arm, passes, start = self.arms[i], [math.inf], time.perf_counter()
            arm.steady = False
            while not arm.steady and (len(passes) < 3 or time.perf_counter() - start < cap):
                passes.append(self._timed(i, sizes))
                arm.steady = abs(passes[-1] - passes[-2]) <= STEADY * min(passes[-2:])
            arm.first_call = max(0.0, passes[1] - passes[-1])

    def peak(self, i: int, seconds: float) -> float:
        """Samples a second of arm i in full batches, back to back, for about `seconds`."""
        full = [self.policy.max_batch]
        count = max(5, math.ceil(seconds / self._timed(i, full)))
        return count * self.policy.max_batch / self._timed(i, full * count)

    def _timed(self, i: int, sizes: Sequence[int] | np.ndarray) -> float:
        """Seconds that arm i takes for batches of these sizes."""
        answering = self.answering(i, self.picks(int(np.sum(sizes)), [len(sizes)]))
        ends = np.cumsum(sizes).tolist()
        with quiet():
            start = time.perf_counter()
            for first, end in zip([0, *ends[:-1]], ends, strict=True):
                answering(list(range(first, end)))
            return time.perf_counter() - start

    def picks(self, count: int, seed: Sequence[int]) -> np.ndarray:
        """Which request each of `count` arrivals is; none comes again before all have come."""
        rng = np.random.default_rng(seed)
        pool = len(self.requests)
        rounds = [rng.permutation(pool) for _ in range(math.ceil(count / pool))]
        return np.concatenate(rounds)[:count]

    def answering(self, i: int, picks: np.ndarray, sampled: Sequence[int] = ()) -> Answering:
        """What answers for arm i."""
        return Answering(self.arms[i], self.requests, picks, self.device, sampled)

    def serve(self, i: int, arrivals: Nanoseconds, picks: np.ndarray) -> Served:
        """A whole load on arm i; some of its answers are kept to be verified."""
        sampled = [0, *self.rng.choice(len(arrivals), SAMPLES).tolist()]  # later ones may be shed
        answering = self.answering(i, picks, sampled)
        wall, processor = time.perf_counter(), time.process_time()
        served = serve(arrivals, answering, self.policy, self.clock)
        self.arms[i].wall += time.perf_counter() - wall
        self.arms[i].processor += time.process_time() - processor
        return served
