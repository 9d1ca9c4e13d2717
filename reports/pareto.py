"""Which points nothing beats on both axes, and which of the rest the noise does not tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A value with its interval, more being better; margin: what does not matter."""

    value: float
    low: float
    high: float
    margin: float = 0.0

    def differs(self, other: Axis) -> bool:
        """Whether the intervals are apart, and the values by more than either margin."""
        apart = self.low > other.high or other.low > self.high
        return apart and abs(self.value - other.value) > max(self.margin, other.margin)


@dataclass(frozen=True)
class Spot:
    """A point of a trade-off."""

    name: str
    x: Axis
    y: Axis

    def dominates(self, other: Spot) -> bool:
        """At least as good on both axes by the estimates, and better on one."""
        mine, its = (self.x.value, self.y.value), (other.x.value, other.y.value)
        return mine != its and mine[0] >= its[0] and mine[1] >= its[1]

    @property
    def bounded(self) -> bool:
        """Whether both axes have an interval."""
        return all(map(math.isfinite, (self.x.low, self.x.high, self.y.low, self.y.high)))

    def ties(self, other: Spot) -> bool:
        """Whether the two differ on neither axis."""
        return not (self.x.differs(other.x) or self.y.differs(other.y))


def front(spots: Sequence[Spot]) -> tuple[list[Spot], list[Spot]]:
    """Those that no other dominates, by rising x; and those tied with it.

    Tied with the front: dominated, but by none that differs from it on an axis; one without
    intervals, of a single process, is not known to be. Intervals of two
    stacks are compared as if independent though both hold the noise of a control, which errs on
    the side of a tie.
    """
    on, tied = [], []
    for spot in spots:
        above = [other for other in spots if other.dominates(spot)]
        if not above:
            on.append(spot)
        elif spot.bounded and all(other.ties(spot) for other in above):
            tied.append(spot)
    return sorted(on, key=lambda spot: (spot.x.value, -spot.y.value)), tied
