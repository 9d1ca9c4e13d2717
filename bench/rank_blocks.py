"""Paired blocks of two trainings whose ranks are processes of their own.

As `bench.blocks`, except that a block is an order to all ranks of an arm: they start together, and
the block has ended when the last one has. The ranks of the other arm wait meanwhile, asleep.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from bench.blocks import LONG_BLOCK, STEADY
from bench.meters.clock import TALLY
from bench.protocol import Protocol
from bench.ranks import Order, Ranks, Ready, Window
from bench.records import Arm

CHUNK = 16  # steps of one order while the ranks warm up
LEAST = 5  # steps of a block


@dataclass
class RankArm:
    """One arm: its ranks, and what they have shown. windows: of its timed blocks, by rank."""

    name: Arm
    ranks: Ranks
    ready: Ready
    timeout: float  # seconds for an order
    steady: bool = False
    step: float = math.nan  # seconds, of the last warm-up window
    windows: list[list[Window]] = field(default_factory=list)

    def run(self, picks: list[int], together: bool = True) -> tuple[int, int]:
        """Have the ranks train on the batches of these numbers; nanoseconds and rows. Of ranks that
        train by themselves, all rows count."""
        order = Order(picks=tuple(pick % self.ready.batches for pick in picks), together=together)
        seen = self.ranks.order(order, self.timeout)
        self.windows.append(seen)
        rows = [window.rows for window in seen]
        elapsed = max(w.end for w in seen) - min(w.start for w in seen)
        TALLY.rows += min(rows) if together else sum(rows)
        return elapsed, min(rows) if together else sum(rows)

    def warm_up(self, cap: float) -> None:
        """Step until communication has become what it stays, and two windows agree within 5 %, or
        `cap` seconds more have passed."""
        for start in range(0, self.ready.steady_after, CHUNK):
            self.run(list(range(start, min(start + CHUNK, self.ready.steady_after))))
        steps = self.whole(LEAST)
        begun, previous = time.monotonic(), math.inf
        while not self.steady and time.monotonic() - begun < cap:
            self.step = self.run(list(range(steps)))[0] / 1e9 / steps
            self.steady = abs(self.step - previous) <= STEADY * min(self.step, previous)
            previous = self.step
        self.windows.clear()

    def whole(self, steps: int) -> int:
        """At least so many steps, in whole cycles of communication."""
        return math.ceil(steps / self.ready.cycle) * self.ready.cycle


@dataclass(frozen=True)
class RankBlock:
    """One block: nanoseconds from the first start to the last end, and rows."""

    elapsed: int
    rows: int

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / (self.elapsed / 1e9)


class RankBlocks:
    """Measures two arms over the same batches, and the treatment's ranks each by itself."""

    def __init__(
        self, control: RankArm, treatment: RankArm, protocol: Protocol, rng: np.random.Generator
    ) -> None:
        self.arms = (control, treatment)
        self.protocol, self.rng = protocol, rng
        self.calls = self.dropped = 0
        self.apart: list[RankBlock] = []  # of the treatment's ranks without the others

    def prepare(self) -> None:
        """Warm both arms, in random order, and fix the size of a block."""
        for i in self.rng.permutation(2):
            self.arms[i].warm_up(self.protocol.warmup_cap_seconds)
        slowest = max(arm.step for arm in self.arms)
        least = min(self.protocol.min_iterations, math.ceil(LONG_BLOCK / slowest))
        wanted = max(least, math.ceil(self.protocol.window_seconds / slowest), LEAST)
        treatment = self.arms[1]
        self.calls = treatment.whole(wanted)
        self.dropped = treatment.whole(max(2, self.calls // 10))
        if treatment.ranks.count > 1:
            treatment.run(list(range(LEAST)), together=False)  # makes what they train apart
            treatment.windows.clear()

    def run(self) -> Iterator[tuple[int, int, RankArm, RankBlock]]:
        """(pair, position, arm, block) for every block, in the order measured."""
        pairs = self.protocol.pairs
        treatment = self.arms[1]
        for pair, first in enumerate(self.rng.permutation([0, 1] * (pairs // 2))):
            picks = self.rng.permutation(self.calls)
            for position in (0, 1):
                arm = self.arms[first ^ position]
                turned = np.roll(picks, position * (self.calls // 2)).tolist()
                yield pair, position, arm, self._block(arm, turned)
            if treatment.ranks.count > 1:
                self.apart.append(self._block(treatment, picks.tolist(), together=False))

    def _block(self, arm: RankArm, picks: list[int], together: bool = True) -> RankBlock:
        arm.run(list(range(self.dropped)), together)
        arm.windows.pop()
        elapsed, rows = arm.run(picks, together)
        if not together:
            arm.windows.pop()
        return RankBlock(elapsed, rows)
