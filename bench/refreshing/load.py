"""The stream as a load: requests that arrive in its order, and swaps between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baselines.base import Batch
from bench.blocks import ArmState
from bench.device import Device
from bench.refreshing.trainer import RefreshTrainer
from bench.serving.answering import Answering
from bench.serving.queue import Nanoseconds, Policy, Served, WallClock, serve


@dataclass(frozen=True)
class Swap:
    """One exchange, times in ns from the start of the load.

    begun: when the trainer began to write. ended: when the first batch that the new weights
    answered was done. pause: how long the server's thread saw to it. nbytes: what was carried.
    """

    begun: int
    ended: int
    pause: int
    nbytes: int


@dataclass(frozen=True)
class Shown:
    """What became of a load. newest: rows that the weights which answered each request had learned
    from, int64 [n]; −1 where it was shed."""

    served: Served
    swaps: Sequence[Swap]
    newest: Nanoseconds

    @property
    def staleness(self) -> Nanoseconds:
        """Of each request answered, the events that came before it and are not in its weights."""
        answered = np.flatnonzero(self.served.answered)
        return answered - self.newest[answered]

    def around(self, swaps: Sequence[Swap]) -> npt.NDArray[np.bool_]:
        """Which requests answered were in the server at some moment of a swap."""
        arrived, done = (
            t[self.served.answered] for t in (self.served.arrived, self.served.done)
        )  # fmt: skip
        met = np.zeros(len(done), dtype=bool)
        for swap in swaps:
            met |= (arrived <= swap.ended) & (done >= swap.begun)
        return met


class _Started(WallClock):
    """A clock that keeps when it was first asked: the start of a load."""

    def __init__(self) -> None:
        super().__init__()
        self.start = 0

    def now(self) -> int:
        """As WallClock."""
        moment = super().now()
        self.start = self.start or moment
        return moment


def serve_stream(
    call: Callable[..., object],
    requests: Sequence[Batch],
    arrivals: Nanoseconds,
    policy: Policy,
    device: Device,
    trainer: RefreshTrainer | None = None,
    period: int = 0,
) -> Shown:
    """Serve `requests` (of one row each) in their order; the k-th arrives at arrivals[k].

    A request's label counts as known once it was answered. With a trainer, it is asked for new
    weights when `period` labels more are known and it is idle.
    """
    clock = _Started()
    answering = Answering(ArmState("control", call), requests, np.arange(len(requests)), device)
    newest = np.full(len(requests), -1, dtype=np.int64)
    swaps: list[Swap] = []
    held, asked = 0, 0

    def answer(members: list[int]) -> None:
        nonlocal held, asked
        before = time.perf_counter_ns()
        written = trainer.take() if trainer is not None else None
        pause = time.perf_counter_ns() - before
        if written is not None:
            held = written.newest
        answering(members)
        newest[members] = held
        if written is not None:
            ended = time.perf_counter_ns() - clock.start
            swaps.append(Swap(written.begun - clock.start, ended, pause, written.nbytes))
        known = (members[-1] + 1) // period * period if period else 0
        if trainer is not None and not trainer.busy and known > asked:
            trainer.ask(known)
            asked = known

    served = serve(arrivals, answer, policy, clock)
    return Shown(served, swaps, newest[: len(served.arrived)])
