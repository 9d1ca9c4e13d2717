"""Paired, counterbalanced blocks of two arms in one process: the unit that a verdict rests on.

The protocol is METHODOLOGY.md's: arms warm until steady; a fixed number of iterations a block;
as many AB as BA pairs; within a pair both arms see the same batches, half a block apart; the first
tenth of a block is dropped; sampled outputs of the timed calls are kept for verification. Where an
arm gains from requests that it has met before, each pair has requests of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from baselines.base import Batch, scores
from bench.device import Device
from bench.meters.children import Children
from bench.meters.clock import overhead_ns, quiet, time_each, time_window
from bench.protocol import Protocol
from bench.records import Arm, BlockRow, EventRow, Metric, point_text

LATENCY = Metric(
    name="latency", unit="s", direction="lower", scale="ratio", estimator="median of a block"
)
THROUGHPUT = Metric(
    name="throughput",
    unit="samples/s",
    direction="higher",
    scale="ratio",
    estimator="samples ÷ elapsed of a saturated block",
    over_ranks="sum",
)
OVERHEAD_FACTOR = 100  # a call must take at least so many times what timing it costs
LONG_BLOCK = 0.2  # seconds after which a block need not hold min_iterations
FLOOR = 0.5  # seconds of warm-up that are enough where calls are long
TREND_CALLS = 20  # a window of fewer is too small to show a trend within it
STEADY = 0.05  # successive warm-up windows agree within this ratio
SAMPLED_ROWS = 16


@dataclass
class Sampled:
    """Rows of an output of a timed call, with the batch that it answered."""

    batch: Batch
    rows: Tensor

    @property
    def head(self) -> Batch:
        """The rows of the batch that `rows` answer."""
        return tuple(column[: len(self.rows)] for column in self.batch)


@dataclass
class ArmState:
    """One arm under load: what is called, and what measuring it has shown so far.

    Times in seconds. steady_call: median of the last warm-up window. reads: what it took to read
    each sampled answer of a block. wall, processor: of all blocks, the latter with that of
    processes that this one has started.
    """

    name: Arm
    call: Callable[..., Any]
    sampled: list[Sampled] = field(default_factory=list)
    first_call: float = 0.0
    steady_call: float = 0.0
    steady: bool = True
    reads: list[float] = field(default_factory=list)
    wall: float = 0.0
    processor: float = 0.0

    def keep(self, batch: Batch, output: Any) -> None:
        """Sample the first rows of an answer."""
        answer = scores(output)
        rows = answer[:SAMPLED_ROWS] if answer.dim() else answer
        self.sampled.append(Sampled(batch, rows.detach().float().cpu().clone()))


class TooSmall(Exception):  # noqa: N818 - a result, not an error
    """The call is too short to be told from the cost of timing it."""


def warm_up(arm: ArmState, batches: Sequence[Batch], device: Device, cap: float) -> None:
    """Call until two successive windows agree within 5 % and show no trend, or `cap` seconds pass.

    Every batch is called at least once before that, or FLOOR seconds pass. The first call is timed
    apart: it carries compilation, packing and cache fill.
    """
    start = time.perf_counter()
    durations, _ = time_each(arm.call, batches[:1], device.synchronize)
    arm.first_call = durations[0] / 1e9
    probe, _ = time_each(arm.call, batches[:3], device.synchronize)
    size = int(np.clip(0.05e9 / max(np.median(probe), 1), 5, 2000))
    previous, called = math.inf, 0
    while True:
        window = [batches[i % len(batches)] for i in range(called, called + size)]
        called += size
        durations, last = time_each(arm.call, window, device.synchronize)
        halves = np.median(durations[: size // 2]), np.median(durations[size // 2 :])
        now = float(np.median(durations))
        spent = time.perf_counter() - start - arm.first_call
        trend = size >= TREND_CALLS and not _agree(*halves)
        if (called >= len(batches) or spent > FLOOR) and _agree(now, previous) and not trend:
            arm.steady = True
            break
        arm.steady = False
        previous = now
        if spent > cap:
            break
    arm.steady_call = now / 1e9
    arm.keep(window[-1], last)


def _agree(a: float, b: float) -> bool:
    return bool(abs(a - b) <= STEADY * min(a, b))


@dataclass(frozen=True)
class Block:
    """What one block of one arm showed, times in nanoseconds."""

    durations: list[int]  # per call in latency mode, one window otherwise
    calls: int
    elapsed: int


class PairedBlocks:
    """Measures two arms over the same batches. mode "latency" or "throughput".

    renew: draws so many requests for a pair, where those that were met before must not come again;
    `batches` then only warm the arms.
    """

    def __init__(
        self,
        control: Callable[..., Any],
        treatment: Callable[..., Any],
        batches: Sequence[Batch],
        device: Device,
        protocol: Protocol,
        rng: np.random.Generator,
        mode: str,
        renew: Callable[[int], list[Batch]] | None = None,
    ) -> None:
        self.renew = renew
        self.arms = (ArmState("control", control), ArmState("treatment", treatment))
        self.batches = list(batches)
        self.device, self.protocol, self.rng, self.mode = device, protocol, rng, mode

    def prepare(self) -> None:
        """Warm both arms, in random order. Raises TooSmall where timing would drown the call."""
        for i in self.rng.permutation(2):
            with quiet():
                warm_up(self.arms[i], self.batches, self.device, self.protocol.warmup_cap_seconds)
        fastest = min(self.arms, key=lambda arm: arm.steady_call)
        overhead = overhead_ns(self.device.synchronize)
        if fastest.steady_call * 1e9 < OVERHEAD_FACTOR * overhead:
            raise TooSmall(
                f"a call of {fastest.name} takes {fastest.steady_call * 1e9:.0f} ns, less than "
                f"{OVERHEAD_FACTOR} × the {overhead:.0f} ns that timing it costs; "
                "use a larger batch"
            )
        seconds = (
            self.protocol.block_seconds if self.mode == "latency" else self.protocol.window_seconds
        )
        slowest = max(arm.steady_call for arm in self.arms)
        least = min(self.protocol.min_iterations, math.ceil(LONG_BLOCK / slowest))
        self.calls = max(least, math.ceil(seconds / slowest), 5)

    def run(self) -> Iterator[tuple[int, int, ArmState, Block]]:
        """(pair, position, arm, block) for every block, in the order measured."""
        pairs = self.protocol.pairs
        orders = self.rng.permutation([0, 1] * (pairs // 2))
        self.children = Children()  # those that the arms need were started by the warm-up
        for pair, first in enumerate(orders):
            head, body = self._requests()
            for position in (0, 1):
                turn = len(body) - position * (self.calls // 2)
                arm = self.arms[first ^ position]
                with quiet():
                    block = self._block(arm, head, body[turn:] + body[:turn])
                yield pair, position, arm, block

    def _requests(self) -> tuple[list[Batch], list[Batch]]:
        """The uncounted requests of each block of a pair, and the counted ones."""
        if self.renew is not None:
            drawn = self.renew(self.dropped + self.calls)
            return drawn[: self.dropped], drawn[self.dropped :]
        head = [self.batches[i % len(self.batches)] for i in range(self.dropped)]
        return head, [self.batches[i] for i in self._picks()]

    def _picks(self) -> np.ndarray:
        rounds = math.ceil(self.calls / len(self.batches))
        drawn = [self.rng.permutation(len(self.batches)) for _ in range(rounds)]
        return np.concatenate(drawn)[: self.calls]

    def _block(self, arm: ArmState, head: list[Batch], batches: list[Batch]) -> Block:
        time_each(arm.call, head, self.device.synchronize)
        cut = int(self.rng.integers(1, len(batches)))
        durations: list[int] = []
        elapsed = 0
        for part in (batches[:cut], batches[cut:]):
            children = self.children.seconds()
            wall, processor = time.perf_counter(), time.process_time()  # the wall is the wider
            if self.mode == "latency":
                times, last = time_each(arm.call, part, self.device.synchronize)
                durations += times
                elapsed += sum(times)
            else:
                window, _, last = time_window(arm.call, part, self.device.synchronize)
                elapsed += window
            stopped = time.perf_counter()
            arm.keep(part[-1], last)
            processor = time.process_time() - processor
            read = time.perf_counter()
            arm.reads.append(read - stopped)
            arm.wall += read - wall
            arm.processor += processor + self.children.seconds() - children
        return Block(durations or [elapsed], len(batches), elapsed)

    @property
    def dropped(self) -> int:
        """Calls at the head of a block that are not counted."""
        return max(2, self.calls // 10)


def rows_of(
    blocks: PairedBlocks, scenario: str, metric: Metric, point: dict[str, int], batch_size: int
) -> Iterator[BlockRow | EventRow]:
    """Measure `blocks` and yield a row per block; a warning where an arm was not steady."""
    blocks.prepare()
    for arm in blocks.arms:
        if not arm.steady:
            detail = (
                f"{arm.name} at {point_text(point)} had not settled when its warm-up was cut off"
            )
            yield EventRow(scenario=scenario, name="not_steady", severity="warning", detail=detail)
    for pair, position, arm, block in blocks.run():
        samples = block.calls * batch_size
        if metric.name == LATENCY.name:
            value = float(np.median(block.durations)) / 1e9
        else:
            value = samples / (block.elapsed / 1e9)
        yield BlockRow(
            scenario=scenario,
            metric=metric,
            point=point,
            pair=pair,
            position=1 if position else 0,
            arm=arm.name,
            value=value,
            samples=samples,
            durations_ns=tuple(block.durations),
            dropped=blocks.dropped,
            outliers=outliers(block.durations),
        )


def outliers(durations: list[int]) -> int:
    """Durations above the upper quartile by more than three interquartile ranges (Tukey)."""
    low, high = np.percentile(durations, [25, 75])
    return int(np.sum(np.asarray(durations) > high + 3 * (high - low)))
