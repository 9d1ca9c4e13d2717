"""`profile.json`: what a profile of a cell holds, for every reader of it. Version 1.

A profile lies in a folder of its own, RUN/profiles/CELL where it was put into a run:

profile.json              this record
ARM/*.pt.trace.json       one trace an arm, in Chrome's format

Times are µs of one request (one step, where the load is training), FLOPs and bytes are of one
request too. A folder may come from anywhere: what is read is held against these types, and nothing
in it is run.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from baselines.errors import LeanRecError
from bench.profiles.parts import Part
from bench.records import Arm, Cell, Row, dump_json, write_atomically

FILE = "profile.json"
LARGEST = 1 << 24  # bytes of a record that is read
ENOUGH = 5  # uninterrupted requests, beside which the others are left out
_EXACT = 1e-6  # of the wall time, by which sums may miss it

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=2000)]


class Operator(Row):
    """One operator, by all its calls in a request.

    self_us: time in it, without the operators that it calls; on an accelerator, that of its
    kernels. total_us: with them. flops, read and written with the result as bytes: as
    `bench.meters.work` counts them, of what it calls too; None where they were not counted.
    """

    name: Name
    part: Part
    calls: Amount
    self_us: Amount
    total_us: Amount
    flops: Amount | None = None
    bytes: Amount | None = None


class Kernel(Row):
    """One kernel of an accelerator, by all its launches in a request."""

    name: Name
    calls: Amount
    us: Amount


class MemoryPoint(Row):
    """Bytes in live tensors, more than at the start of a request, so many µs after it."""

    us: Amount
    bytes: Annotated[float, Field(allow_inf_nan=False)]


class Seen(Row):
    """What an arm did in a request: the mean over `requests` of them; memory is that of one.

    The parts add up to wall_us, and so do the operators' self_us with what no operator took.
    """

    requests: Annotated[int, Field(ge=1)]
    wall_us: Positive
    parts: dict[Part, Amount]
    operators: tuple[Operator, ...]
    kernels: tuple[Kernel, ...] = ()
    memory: tuple[MemoryPoint, ...] = ()

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        told = math.fsum(self.parts.values())
        if abs(told - self.wall_us) > _EXACT * self.wall_us:
            raise ValueError(f"the parts add up to {told} µs, not to {self.wall_us}")
        inside = math.fsum(o.self_us for o in self.operators)
        if inside > (1 + _EXACT) * self.wall_us:
            raise ValueError(f"the operators take {inside} µs of {self.wall_us}")
        if len({o.name for o in self.operators}) < len(self.operators):
            raise ValueError("an operator is there twice")
        return self

    @property
    def outside_us(self) -> float:
        """Time in which no operator ran."""
        return max(0.0, self.wall_us - math.fsum(o.self_us for o in self.operators))

    @property
    def events(self) -> float:
        """Calls of operators in a request: what the profiler had to note."""
        return math.fsum(o.calls for o in self.operators)


class ArmProfile(Row):
    """One arm. name: its stack. trace: the file, from the record's folder on. flops and bytes: of
    a whole request, by operators seen or not. interrupted: in so many of the requests `asked` under
    the profiler the system gave the processor to others, None where it does not tell. These are
    left out of `seen` and the trace where ENOUGH others remain."""

    arm: Arm
    name: Name
    trace: Annotated[str, Field(pattern=r"^[\w.+=-]+/[\w.+=-]+$")]
    seen: Seen
    flops: Amount
    bytes: Amount
    asked: Annotated[int, Field(ge=1)]
    interrupted: Annotated[int, Field(ge=0)] | None

    @property
    def left_out(self) -> bool:
        """Whether the interrupted requests are."""
        return self.asked - (self.interrupted or 0) >= ENOUGH


class Clock(Row):
    """Both arms by the clock, unprofiled, in paired blocks of the same process.

    seconds: of a request, median over the blocks of control and treatment. gains: control's time ÷
    treatment's in each pair.
    """

    seconds: tuple[Positive, Positive]
    gains: Annotated[tuple[Positive, ...], Field(min_length=1)]


class Peaks(Row):
    """What the machine reached in the same process, on the load's threads.

    flops: a second, in a large product of float32 matrices. bandwidth: bytes a second, in a triad
    over arrays that no cache holds. operator_us: what the profiler costs per call of an operator.
    """

    flops: Positive
    bandwidth: Positive
    operator_us: Amount


class Profile(Row):
    """The record."""

    version: Literal[1] = 1
    made: str  # ISO 8601, UTC
    cell: Cell
    baseline: str  # specs
    stack: str
    scenario: str
    point: dict[str, int]  # for example {"batch": 512, "threads": 1}
    host: str  # the machine's fingerprint
    torch: str
    arms: tuple[ArmProfile, ArmProfile]  # control, treatment
    clock: Clock
    peaks: Peaks

    @model_validator(mode="after")
    def _both(self) -> Self:
        if [a.arm for a in self.arms] != ["control", "treatment"]:
            raise ValueError("the arms must be control and treatment, in this order")
        return self

    @property
    def control(self) -> Seen:
        """What the control did."""
        return self.arms[0].seen

    @property
    def treatment(self) -> Seen:
        """What the treatment did."""
        return self.arms[1].seen


def folder_in(run: Path, cell: Cell) -> Path:
    """Where a run holds the profile of `cell`."""
    return run / "profiles" / cell.id


def write_profile(folder: Path, profile: Profile) -> Path:
    """Publish the record in `folder`, in one step."""
    path = folder / FILE
    write_atomically(path, dump_json(profile.model_dump(mode="json")))
    return path


def read_profile(folder: Path) -> Profile:
    """The record in `folder`. Raises LeanRecError where it can't be read or is not a profile."""
    path = folder / FILE
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST >> 20} MiB")
        return Profile.model_validate_json(path.read_bytes())
    except (ValidationError, ValueError, OSError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise LeanRecError(
            f"The profile {path} cannot be read: {why}.",
            "It is left out; nothing else is affected.",
            "Make it anew with leanrec profile, or delete its folder.",
        ) from error
