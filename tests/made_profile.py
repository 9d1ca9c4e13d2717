"""Profiles made by hand, whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.profiles.parts import PARTS, part_of
from bench.profiles.record import (
    ArmProfile,
    Clock,
    Kernel,
    MemoryPoint,
    Operator,
    Peaks,
    Profile,
    Seen,
)
from bench.records import Arm, Cell

CELL = Cell(baseline="dcnv2", stack="int8-linear", scenario="offline", device="cpu")
Times = dict[str, float]  # operator → µs of its only call
CONTROL: Times = {"aten::addmm": 800.0, "aten::copy_": 60.0, "aten::relu": 40.0}
TREATMENT: Times = {"quantized::linear_dynamic": 200.0, "aten::copy_": 60.0, "aten::relu": 40.0}


def seen(times: Times, outside: float = 100.0) -> Seen:
    """A request that calls each operator once; the product does 2 MFLOP on 40 kB."""
    operators = tuple(
        Operator(
            name=name,
            part=part_of(name),
            calls=1,
            self_us=us,
            total_us=us,
            flops=2e6 if "mm" in name or "linear" in name else None,
            bytes=40_000,
        )
        for name, us in times.items()
    )
    parts = {part: math.fsum(o.self_us for o in operators if o.part == part) for part in PARTS}
    parts["outside"] += outside
    return Seen(
        requests=10,
        wall_us=math.fsum(times.values()) + outside,
        parts=parts,
        operators=operators,
        memory=(MemoryPoint(us=10, bytes=4096), MemoryPoint(us=90, bytes=0)),
    )


def made_profile(
    control: Times = CONTROL,
    treatment: Times = TREATMENT,
    *,
    gains: Sequence[float] | None = None,
    operator_us: float = 0.5,
    cell: Cell = CELL,
    names: tuple[str, str] = ("control", "int8-linear"),
    kernels: tuple[Kernel, ...] = (),
    interrupted: int | None = 0,
) -> Profile:
    """Both arms, and a clock that agrees unless other `gains` are given."""
    arms = seen(control), seen(treatment).model_copy(update={"kernels": kernels})
    gains = gains or [arms[0].wall_us / arms[1].wall_us * f for f in (0.98, 1.0, 1.02)]

    def arm(arm: Arm, name: str, one: Seen) -> ArmProfile:
        return ArmProfile(
            arm=arm, name=name, trace=f"{arm}/1.pt.trace.json", seen=one, flops=2e6, bytes=12e4,
            asked=30, interrupted=interrupted,
        )  # fmt: skip

    return Profile(
        made="2025-01-01T00:00:00+00:00",
        cell=cell,
        baseline="dcnv2()",
        stack=cell.stack,
        scenario="offline()",
        point={"batch": 512, "threads": 1},
        host="a1b2c3",
        torch="2.13.0",
        arms=tuple(map(arm, ("control", "treatment"), names, arms)),
        clock=Clock(seconds=(arms[0].wall_us / 1e6, arms[1].wall_us / 1e6), gains=tuple(gains)),
        peaks=Peaks(flops=50e9, bandwidth=10e9, operator_us=operator_us),
    )
