"""A clock of simulated time, and servers of known service time: what queueing theory speaks of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SimulatedClock:
    """Time that passes only by waiting and by work."""

    time: int = 0

    def now(self) -> int:
        return self.time

    def wait_until(self, moment: int) -> None:
        self.time = max(self.time, moment)


@dataclass
class Work:
    """A server whose batches take `fixed` + `each` × rows ns, exactly."""

    clock: SimulatedClock
    fixed: int
    each: int = 0

    def __call__(self, members: list[int]) -> None:
        self.clock.time += self.fixed + self.each * len(members)
