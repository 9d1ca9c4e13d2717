"""Which operators explain the difference between two arms, and whether the clock agrees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.profiles.parts import Part
from bench.profiles.record import Operator, Profile

OUTSIDE = "outside operators"
SAME = 0.03  # of the control's time: a smaller gap is none to explain
LEFT = 0.1  # of the gap: what all changes that are not named come to at most, signs aside
MOST_NAMED = 6
AGREES = 0.1  # by which the ratio of the profile may miss the clock's


@dataclass(frozen=True)
class Change:
    """One operator in both arms, µs and calls of a request. saved_us: control's time less
    treatment's; share: of the gap between the arms, None where there is none to explain."""

    name: str
    part: Part
    calls: tuple[float, float]
    self_us: tuple[float, float]
    share: float | None

    @property
    def saved_us(self) -> float:
        """More than 0 where the treatment spends less here."""
        return self.self_us[0] - self.self_us[1]


def gap_us(profile: Profile) -> float:
    """What a request takes less in the treatment than in the control, by the profile."""
    return profile.control.wall_us - profile.treatment.wall_us


def changes(profile: Profile) -> list[Change]:
    """Every operator, and the time outside of them, the largest change first.

    What they save adds up to the gap.
    """
    gap = gap_us(profile)
    notable = abs(gap) > SAME * profile.control.wall_us
    own = [{o.name: o for o in arm.operators} for arm in (profile.control, profile.treatment)]
    outside = profile.control.outside_us, profile.treatment.outside_us
    none: Part = "outside"
    found = [(OUTSIDE, none, (0.0, 0.0), outside)]
    for name in {**own[0], **own[1]}:
        control, treatment = (arm.get(name, _absent(name)) for arm in own)
        part = own[0].get(name, treatment).part
        calls, times = (control.calls, treatment.calls), (control.self_us, treatment.self_us)
        found.append((name, part, calls, times))
    made = [
        Change(name, part, calls, times, (times[0] - times[1]) / gap if notable else None)
        for name, part, calls, times in found
    ]
    return sorted(made, key=lambda c: (-abs(c.saved_us), c.name))


def explaining(profile: Profile) -> list[Change]:
    """The largest changes, as few as leave LEFT of the gap to all others, at most MOST_NAMED; none
    where there is no gap to explain."""
    found = changes(profile)
    if found[0].share is None:
        return []
    sizes = [abs(change.share or 0.0) for change in found]
    fewest = next(n for n in range(1, len(found) + 1) if math.fsum(sizes[n:]) <= LEFT)
    return found[: min(fewest, MOST_NAMED)]


@dataclass(frozen=True)
class Agreement:
    """Control's time ÷ treatment's by the clock and by the profile, and by the profile without
    what the profiler costs, None where that cost is more than an arm took.

    verdict: "agrees"; "profiler" where the profiler's own cost is why they differ; "disagrees".
    """

    clock: float
    profile: float
    corrected: float | None
    verdict: Literal["agrees", "profiler", "disagrees"]


def agreement(profile: Profile) -> Agreement:
    """Whether the profile shows the difference that the clock measured: within AGREES, or within
    what the clock's own pairs differ by."""
    gains = np.log(profile.clock.gains)
    clock = float(gains.mean())
    allowed = max(math.log1p(AGREES), float(np.ptp(gains)) / 2)
    walls = profile.control.wall_us, profile.treatment.wall_us
    seen = math.log(walls[0] / walls[1])
    bare = [
        arm.wall_us - arm.events * profile.peaks.operator_us
        for arm in (profile.control, profile.treatment)
    ]
    corrected = math.log(bare[0] / bare[1]) if min(bare) > 0 else None
    verdict: Literal["agrees", "profiler", "disagrees"] = "disagrees"
    if abs(seen - clock) <= allowed:
        verdict = "agrees"
    elif corrected is not None and abs(corrected - clock) <= allowed:
        verdict = "profiler"
    return Agreement(
        math.exp(clock),
        math.exp(seen),
        None if corrected is None else math.exp(corrected),
        verdict,
    )


def _absent(name: str) -> Operator:
    return Operator(name=name, part="compute", calls=0, self_us=0, total_us=0)
