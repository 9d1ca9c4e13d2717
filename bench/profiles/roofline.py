"""Where the heaviest operators lie under the two roofs of this machine.

Source: Williams, Waterman, Patterson, "Roofline: An Insightful Visual Performance Model for
Multicore Architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.profiles.record import ArmProfile, Operator, Peaks

HEAVIEST = 8
LIGHT = 0.01  # of a request: an operator that takes less is left out


@dataclass(frozen=True)
class Placed:
    """An operator under the roofs. intensity: FLOP/byte, 0 where it computes nothing that counts.

    rate: FLOP/s, or bytes/s where intensity is 0. reached: rate ÷ the lower of the two roofs there.
    roof: which of them that is.
    """

    operator: Operator
    intensity: float
    rate: float
    reached: float
    roof: Literal["compute", "memory"]


def placed(arm: ArmProfile, peaks: Peaks) -> list[Placed]:
    """The arm's heaviest operators whose work was counted, by the time in them and below."""
    heavy = [o for o in arm.seen.operators if o.bytes and o.total_us >= LIGHT * arm.seen.wall_us]
    heavy.sort(key=lambda o: -o.total_us)
    return [_place(o, peaks) for o in heavy[:HEAVIEST]]


def _place(operator: Operator, peaks: Peaks) -> Placed:
    assert operator.bytes
    seconds = operator.total_us / 1e6
    intensity = (operator.flops or 0.0) / operator.bytes
    if not intensity:
        rate = operator.bytes / seconds
        return Placed(operator, 0.0, rate, rate / peaks.bandwidth, "memory")
    rate = intensity * operator.bytes / seconds
    under_memory = intensity * peaks.bandwidth
    roof: Literal["compute", "memory"] = "compute" if peaks.flops < under_memory else "memory"
    return Placed(operator, intensity, rate, rate / min(peaks.flops, under_memory), roof)
