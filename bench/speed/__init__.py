"""The speed table: each kind of work beside the bare arithmetic of the same work, in one run.

Each module of this package gives rows by ``rows(quick: bool = False) -> list[SpeedRow]``; `quick`
asks for seconds instead of minutes, on sizes that show only that the row works.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from scipy import special

from baselines.errors import LeanRecError

LEVEL = 0.95


@dataclass(frozen=True)
class Race:
    """Two callables timed in turn. ours, bare: median seconds of a call; a peer may stand for the
    bare one. ratio: of the times, ours over bare, as the geometric mean over pairs; low, high: its
    95 % interval, Student's t over the pairs' log ratios (n − 1 degrees of freedom)."""

    ours: float
    bare: float
    ratio: float
    low: float
    high: float


def race(ours: Callable[[], object], bare: Callable[[], object], pairs: int = 6) -> Race:
    """Time two callables in `pairs` pairs, A B then B A and so on, after one call of each.

    A callable does a fixed amount of work, long enough that the clock (perf_counter) does not
    matter, and returns when the work is done (on a device, after it is synchronised).
    Raises LeanRecError for fewer than 2 pairs, which bear no interval.
    """
    if pairs < 2:
        raise LeanRecError(
            f"{pairs} pair bears no interval.", "Nothing was timed.", "Ask for at least 2."
        )
    ours()
    bare()
    times: list[tuple[float, float]] = []
    for pair in range(pairs):
        if pair % 2:
            b = _seconds(bare)
            a = _seconds(ours)
        else:
            a = _seconds(ours)
            b = _seconds(bare)
        times.append((a, b))
    return compared(times)


def compared(times: Sequence[tuple[float, float]]) -> Race:
    """Pairs of seconds, ours and bare, each pair of one time."""
    logs = [math.log(a / b) for a, b in times]
    mean = statistics.fmean(logs)
    half = float(special.stdtrit(len(logs) - 1, 0.5 + LEVEL / 2)) * statistics.stdev(logs)
    half /= math.sqrt(len(logs))
    return Race(
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
        math.exp(mean),
        math.exp(mean - half),
        math.exp(mean + half),
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Goal:
    """What a row is to reach: a limit on the ratio to the bare work, on our own number, or on the
    ratio to the peer."""

    sense: Literal["at least", "at most"]
    limit: float
    of: Literal["ratio", "ours", "peer"] = "ratio"


@dataclass(frozen=True)
class Peer:
    """Another library at the same work, timed by turns with ours. value: in the row's measure;
    ratio: ours over it, with its 95 % `interval`. None where the library is not installed."""

    name: str
    value: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class SpeedRow:
    """One row. measure: the unit of `ours` and `bare`, such as samples/s, s or MB.

    bare: the same work in the fewest lines of PyTorch (NumPy, pandas, …), None where there is no
    such thing. ratio: ours over bare, in the measure, with its 95 % `interval`. note: sizes,
    threads and what `bare` is, in words.
    """

    work: str
    measure: str
    ours: float
    bare: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    goal: Goal | None = None
    peer: Peer | None = None
    note: str = ""

    @property
    def verdict(self) -> Literal["holds", "fails", "unclear", ""]:
        """Whether the goal holds. "unclear" where the ratio's interval lies on both sides of it,
        "" where there is no goal or nothing to hold against it."""
        goal = self.goal
        if goal is None:
            return ""
        if goal.of == "ours":
            values: Sequence[float] = (self.ours,)
        else:
            held = self if goal.of == "ratio" else self.peer
            if held is None or held.ratio is None:
                return ""
            values = held.interval or (held.ratio,)
        kept = [v >= goal.limit if goal.sense == "at least" else v <= goal.limit for v in values]
        return "holds" if all(kept) else "unclear" if any(kept) else "fails"


def rate_row(
    work: str, measure: str, amount: float, raced: Race, goal: Goal | None = None,
    peer: Peer | None = None, note: str = "",
) -> SpeedRow:  # fmt: skip
    """A row of rates (higher is better): `amount` of work in each call of the race."""
    return SpeedRow(
        work, measure, amount / raced.ours, amount / raced.bare,
        1 / raced.ratio, (1 / raced.high, 1 / raced.low), goal, peer, note,
    )  # fmt: skip


def time_row(
    work: str, raced: Race, goal: Goal | None = None, peer: Peer | None = None, note: str = ""
) -> SpeedRow:
    """A row of seconds a call (lower is better)."""
    return SpeedRow(
        work, "s", raced.ours, raced.bare, raced.ratio, (raced.low, raced.high), goal, peer, note
    )


def per_unit(raced: Race, ours: float, bare: float) -> Race:
    """The race in seconds a unit of work, where a call of ours did `ours` of them and one of the
    other `bare`."""
    scale = bare / ours
    return Race(
        raced.ours / ours, raced.bare / bare,
        raced.ratio * scale, raced.low * scale, raced.high * scale,
    )  # fmt: skip


def rate_peer(name: str, amount: float, raced: Race) -> Peer:
    """A peer's rate, where it was the other in a race of `amount` of work a call."""
    return Peer(name, amount / raced.bare, 1 / raced.ratio, (1 / raced.high, 1 / raced.low))


def time_peer(name: str, raced: Race) -> Peer:
    """A peer's seconds a call, where it was the other in the race."""
    return Peer(name, raced.bare, raced.ratio, (raced.low, raced.high))


def works() -> list[str]:
    """The names of the works that can be timed."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def speed_rows(
    names: Sequence[str] = (), quick: bool = False, tell: Callable[[str], None] = lambda name: None
) -> list[SpeedRow]:
    """The rows of the named works, of all where none is named. Quick ones are held against no goal:
    their sizes are not those that the goals are set for. `tell` hears of each work as it begins.

    Raises LeanRecError for an unknown name, before anything is timed.
    """
    for name in names:
        if name not in works():
            raise LeanRecError(
                f"There is no work {name!r} to time.", "", f"Known: {', '.join(works())}."
            )
    made: list[SpeedRow] = []
    for name in names or works():
        tell(name)
        made += importlib.import_module(f"{__name__}.{name}").rows(quick=quick)
    return [dataclasses.replace(row, goal=None) for row in made] if quick else made
