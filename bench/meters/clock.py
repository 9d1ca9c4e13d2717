"""Clocks: what one call costs its caller, its device, or a saturated window.

Three modes, never mixed in one comparison. Each loop does nothing beside the call that it need not,
and hands back the last answer, so that what was timed can be checked against what is right.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from time import perf_counter_ns
from typing import Any

import torch
from torch import Tensor

from baselines.base import Batch

Call = Callable[..., Any]
Synchronize = Callable[[], None] | None


class Tally:
    """Rows that calls were really given; what a scenario claims is held against it."""

    def __init__(self) -> None:
        self.rows = 0

    def add(self, batches: Sequence[Batch]) -> None:
        """Count the rows of batches that a loop has run."""
        self.rows += sum(len(batch[0]) for batch in batches)

    def take(self) -> int:
        """The rows since the last take."""
        rows, self.rows = self.rows, 0
        return rows


TALLY = Tally()

_NULL_CALLS = 2000


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection inside: collect first, and restore the collector afterwards.

    Inside another `quiet` it does nothing: a full collection takes longer than many blocks.
    """
    was_enabled = gc.isenabled()
    if was_enabled:
        gc.collect()
        gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def time_each(
    call: Call, batches: Sequence[Batch], synchronize: Synchronize
) -> tuple[list[int], Any]:
    """Latency mode: nanoseconds that a caller waits for ``call(*batch)``, for each batch in turn.

    Returns the durations and the last answer. Each answer is released before the next call
    starts, so that no call pays for freeing the one before it.
    """
    clock = perf_counter_ns
    durations: list[int] = []
    note = durations.append
    answer = None
    with quiet():
        if synchronize is None:
            for batch in batches:
                answer = None
                start = clock()
                answer = call(*batch)
                note(clock() - start)
        else:
            for batch in batches:
                answer = None
                synchronize()
                start = clock()
                answer = call(*batch)
                synchronize()
                note(clock() - start)
    TALLY.add(batches)
    return durations, answer


def time_window(
    call: Call, batches: Sequence[Batch], synchronize: Synchronize
) -> tuple[int, int, Any]:
    """Throughput mode: all batches back to back, from the first start to the last completion.

    All batches are known beforehand: a call that has a method `ahead` is told the next one through
    it before it is asked the current one. Returns the elapsed nanoseconds, the number of calls made
    and the last answer.
    """
    clock = perf_counter_ns
    answer = None
    ahead = getattr(call, "ahead", None)
    with quiet():
        if synchronize is not None:
            synchronize()
        start = clock()
        if ahead is None:
            for batch in batches:
                answer = call(*batch)
        else:
            for batch, following in zip_longest(batches, batches[1:]):
                if following is not None:
                    ahead(*following)
                answer = call(*batch)
        if synchronize is not None:
            synchronize()
        elapsed = clock() - start
    TALLY.add(batches)
    return elapsed, len(batches), answer


def device_events(call: Call, batches: Sequence[Batch]) -> tuple[int, int, Any]:
    """Device mode: CUDA events around all batches back to back, one synchronise at the end.

    Returns the nanoseconds between the events on the current stream, the number of calls and the
    last answer. Events are read only after the second one has completed; torch's documentation of
    ``torch.cuda.Event.elapsed_time`` gives milliseconds.
    """
    first = torch.cuda.Event(enable_timing=True)
    last = torch.cuda.Event(enable_timing=True)
    answer = None
    with quiet():
        torch.cuda.synchronize()
        first.record()
        for batch in batches:
            answer = call(*batch)
        last.record()
        last.synchronize()
    TALLY.add(batches)
    return round(first.elapsed_time(last) * 1e6), len(batches), answer


def overhead_ns(synchronize: Synchronize) -> float:
    """What the harness itself adds to a duration in latency mode: the median of a null call, in ns.

    The null call takes two arguments, as most models do. The first half warms up and is dropped.
    """
    empty = torch.empty(0)
    durations, _ = time_each(_null, [(empty, empty)] * _NULL_CALLS, synchronize)
    return statistics.median(durations[_NULL_CALLS // 2 :])


def _null(first: Tensor, second: Tensor) -> None:
    """The null workload."""
