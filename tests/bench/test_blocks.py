"""Paired blocks against known truths. Most run on a simulated clock: nothing disturbs it."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench import blocks as blocks_module
from bench import known_truths
from bench.blocks import (
    LATENCY,
    OVERHEAD_FACTOR,
    THROUGHPUT,
    ArmState,
    PairedBlocks,
    TooSmall,
    rows_of,
    warm_up,
)
from bench.device import Device, get_device
from bench.known_truths import slowed
from bench.meters import clock as clock_module
from bench.protocol import Protocol
from bench.records import BlockRow, EventRow

CPU = get_device("cpu")
BATCHES = [(torch.full((4,), i),) for i in range(8)]
PROTOCOL = Protocol(pairs=4, block_seconds=0.05, window_seconds=0.05, warmup_cap_seconds=0.5)
READ = 50  # ns that reading the simulated clock costs
MS = 1_000_000


class Clock:
    """A simulated clock, which only those who work move."""

    def __init__(self) -> None:
        self.now = 0

    def read(self) -> int:
        self.now += READ
        return self.now

    def works(self, durations: Iterator[int]) -> Callable[[Tensor], Tensor]:
        """A call that takes the next of `durations`, in ns."""

        def call(batch: Tensor) -> Tensor:
            self.now += next(durations)
            return batch

        return call

    def takes(self, duration: int) -> Callable[[Tensor], Tensor]:
        """A call that always takes `duration` ns."""
        return self.works(itertools.repeat(duration))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A simulated clock in the place of every other."""
    made = Clock()
    monkeypatch.setattr(clock_module, "perf_counter_ns", made.read)
    seconds = SimpleNamespace(
        perf_counter=lambda: made.read() / 1e9, process_time=lambda: made.now / 1e9
    )
    monkeypatch.setattr(blocks_module, "time", seconds)
    return made


def paired(
    control: Callable[..., object],
    treatment: Callable[..., object],
    mode: str = "latency",
    *,
    device: Device = CPU,
    protocol: Protocol = PROTOCOL,
    seed: int = 0,
) -> PairedBlocks:
    rng = np.random.default_rng(seed)
    return PairedBlocks(control, treatment, BATCHES, device, protocol, rng, mode)


def measured(blocks: PairedBlocks) -> tuple[list[BlockRow], list[EventRow]]:
    metric = LATENCY if blocks.mode == "latency" else THROUGHPUT
    rows = list(rows_of(blocks, "some-load", metric, {"batch": 4}, 4))
    return (
        [row for row in rows if isinstance(row, BlockRow)],
        [row for row in rows if isinstance(row, EventRow)],
    )


def value_of(rows: list[BlockRow], arm: str) -> float:
    return statistics.median(row.value for row in rows if row.arm == arm)


def test_latency_is_what_a_call_takes(clock: Clock) -> None:
    rows, events = measured(paired(clock.takes(MS), clock.takes(3 * MS)))
    assert value_of(rows, "control") == pytest.approx(1e-3, rel=1e-3)
    assert value_of(rows, "treatment") == pytest.approx(3e-3, rel=1e-3)
    assert events == []


def test_throughput_is_samples_over_the_time_they_took(clock: Clock) -> None:
    rows, _ = measured(paired(clock.takes(MS), clock.takes(MS // 2), "throughput"))
    assert value_of(rows, "control") == pytest.approx(4 / 1e-3, rel=1e-3)
    assert value_of(rows, "treatment") == pytest.approx(4 / 0.5e-3, rel=1e-3)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_block_says_what_it_ran(clock: Clock, mode: str) -> None:
    blocks = paired(clock.takes(MS), clock.takes(2 * MS), mode)
    rows, _ = measured(blocks)
    assert blocks.calls == 25  # 50 ms of the slower arm's 2 ms
    assert len(rows) == 2 * PROTOCOL.pairs
    for row in rows:
        assert row.samples == blocks.calls * 4
        assert len(row.durations_ns) == (blocks.calls if mode == "latency" else 1)
        assert row.dropped == 2


@pytest.mark.parametrize(("call_ms", "calls"), [(10, PROTOCOL.min_iterations), (25, 8), (1000, 5)])
def test_a_block_holds_the_calls_the_protocol_asks_or_lasts_long(
    clock: Clock, call_ms: int, calls: int
) -> None:
    blocks = paired(clock.takes(MS), clock.takes(call_ms * MS))
    blocks.prepare()
    assert blocks.calls == calls


def test_the_first_tenth_of_a_block_is_not_counted(clock: Clock) -> None:
    """A block begins slowly: a hundred calls, of which the first ten take twenty times as long."""
    log: list[int] = []
    blocks = paired(clock.takes(MS), clock.takes(MS))
    blocks.calls = 100
    assert blocks.dropped == 10

    def cold_start(batch: Tensor) -> Tensor:
        log.append(1)
        clock.now += 20 * MS if (len(log) - 1) % 110 < 10 else MS
        return batch

    blocks.arms[1].call = cold_start
    for _, _, arm, block in blocks.run():
        assert len(block.durations) == 100
        assert max(block.durations) < 2 * MS, arm.name
    assert len(log) == 110 * PROTOCOL.pairs


@settings(max_examples=40)
@given(
    calls=st.integers(5, 60),
    pairs=st.integers(1, 4).map(lambda n: 2 * n),
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(["latency", "throughput"]),
)
def test_both_arms_of_a_pair_get_the_same_batches_in_another_order(
    calls: int, pairs: int, seed: int, mode: str
) -> None:
    seen: list[int] = []

    def call(batch: Tensor) -> Tensor:
        seen.append(int(batch[0]))
        return batch

    blocks = paired(call, call, mode, protocol=Protocol(pairs=pairs), seed=seed)
    blocks.calls = calls
    order: dict[int, list[str]] = {}
    given_to: dict[int, list[list[int]]] = {}
    for pair, position, arm, _ in blocks.run():
        order.setdefault(pair, []).append(arm.name)
        given_to.setdefault(pair, []).append(seen[blocks.dropped :])
        assert position == len(order[pair]) - 1
        assert len(seen) == calls + blocks.dropped
        seen.clear()
    assert list(order) == list(range(pairs))
    assert sorted(map(sorted, order.values())) == [["control", "treatment"]] * pairs
    assert sum(names[0] == "control" for names in order.values()) == pairs // 2
    for first, second in given_to.values():
        assert Counter(first) == Counter(second)
        assert max(Counter(first).values()) - min(Counter(first).values()) <= 1
        assert first != second


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_requests_are_renewed_for_each_pair_where_asked(mode: str) -> None:
    seen: dict[str, list[Tensor]] = {"control": [], "treatment": []}
    calls = {name: (lambda b, name=name: seen[name].append(b) or b) for name in seen}
    rng, numbers = np.random.default_rng(0), itertools.count(1000)
    blocks = PairedBlocks(
        *calls.values(), BATCHES, CPU, PROTOCOL, rng, mode,
        lambda count: [(torch.full((4,), next(numbers)),) for _ in range(count)],
    )  # fmt: skip
    blocks.calls = 30
    for _ in blocks.run():
        pass
    each = blocks.dropped + blocks.calls
    met = {name: [int(b[0]) for b in batches] for name, batches in seen.items()}
    for numbers_met in met.values():  # none of them twice, in any block, and none that warmed
        assert sorted(numbers_met) == list(range(1000, 1000 + PROTOCOL.pairs * each))
    for pair in range(PROTOCOL.pairs):
        bodies = [n[pair * each + blocks.dropped : (pair + 1) * each] for n in met.values()]
        assert sorted(bodies[0]) == sorted(bodies[1])
        assert bodies[0] != bodies[1]


def test_the_order_of_arms_varies_with_the_seed() -> None:
    orders = set()
    for seed in range(20):
        blocks = paired(lambda b: b, lambda b: b, protocol=Protocol(pairs=2), seed=seed)
        blocks.calls = 5
        orders.add(tuple(arm.name for _, _, arm, _ in blocks.run()))
    assert len(orders) == 2


def test_the_collector_is_off_in_a_block_and_on_between_blocks() -> None:
    states: list[bool] = []

    def call(batch: Tensor) -> Tensor:
        states.append(gc.isenabled())
        return batch

    blocks = paired(call, call)
    blocks.calls = 5
    for _ in blocks.run():
        assert gc.isenabled()
    assert set(states) == {False}


def test_warm_up_lasts_until_the_call_is_steady(clock: Clock) -> None:
    slow_first = itertools.chain([200 * MS], itertools.repeat(10 * MS, 30), itertools.repeat(MS))
    arm = ArmState("treatment", clock.works(slow_first))
    warm_up(arm, BATCHES * 5, CPU, cap=10.0)
    assert arm.first_call == pytest.approx(0.2, rel=1e-3)
    assert arm.steady
    assert arm.steady_call == pytest.approx(1e-3, rel=1e-3)


def test_warm_up_visits_every_batch(clock: Clock) -> None:
    seen: set[int] = set()

    def call(batch: Tensor) -> Tensor:
        seen.add(int(batch[0]))
        clock.now += 5 * MS  # so slow that two windows are fewer calls than there are batches
        return batch

    many = [(torch.full((4,), i),) for i in range(64)]
    warm_up(ArmState("control", call), many, CPU, cap=10.0)
    assert seen == set(range(64))


def test_one_that_never_settles_is_said_to_have_been_cut_off(clock: Clock) -> None:
    growing = (int(MS * 1.01**n) for n in itertools.count())
    blocks = paired(clock.takes(MS), clock.works(growing))
    before = clock.now
    for arm in blocks.arms:
        warm_up(arm, BATCHES, CPU, cap=0.5)
    assert [arm.steady for arm in blocks.arms] == [True, False]
    assert clock.now - before < 5e9


def test_one_that_alternates_between_windows_is_not_steady(clock: Clock) -> None:
    def durations() -> Iterator[int]:
        yield from itertools.repeat(MS, 4)
        for n in itertools.count():  # windows of fifty calls
            yield from itertools.repeat(MS if n % 2 else 2 * MS, 50)

    arm = ArmState("control", clock.works(durations()))
    warm_up(arm, BATCHES, CPU, cap=1.0)
    assert not arm.steady


def test_a_comparison_that_was_not_steady_carries_a_warning(clock: Clock) -> None:
    growing = (int(MS * 1.01**n) for n in itertools.count())
    protocol = Protocol(pairs=2, block_seconds=0.001, warmup_cap_seconds=0.2)
    rows, events = measured(paired(clock.takes(MS), clock.works(growing), protocol=protocol))
    assert [(e.name, e.severity) for e in events] == [("not_steady", "warning")]
    assert events[0].detail.startswith("treatment ")
    assert len(rows) == 4


@pytest.mark.parametrize("slower", [1, 1000])
def test_a_call_is_refused_under_a_hundred_times_what_timing_it_costs(
    clock: Clock, slower: int
) -> None:
    enough = OVERHEAD_FACTOR * READ
    paired(clock.takes(enough), clock.takes(slower * enough)).prepare()
    with pytest.raises(TooSmall, match=r"control takes .* use a larger batch"):
        paired(clock.takes(enough - 2 * READ), clock.takes(slower * enough)).prepare()


def test_a_null_call_is_refused_on_the_real_clock() -> None:
    with pytest.raises(TooSmall):
        paired(lambda b: b, lambda b: b).prepare()


def test_outliers_are_counted_and_kept(clock: Clock) -> None:
    bumpy = itertools.cycle([*itertools.repeat(MS, 20), 50 * MS, *itertools.repeat(MS, 21)])
    rows, _ = measured(paired(clock.takes(MS), clock.works(bumpy)))
    for row in rows:
        kept = sum(duration >= 50 * MS for duration in row.durations_ns)
        assert row.outliers == kept
        assert bool(kept) == (row.arm == "treatment")
        assert row.value == pytest.approx(1e-3, rel=1e-3)


def test_a_sleep_of_known_length_is_measured_on_the_real_clock() -> None:
    slept: list[float] = []  # a loaded host makes a sleep longer

    def sleep(batch: Tensor) -> Tensor:
        start = time.perf_counter()
        time.sleep(0.004)
        slept.append(time.perf_counter() - start)
        return batch

    protocol = Protocol(pairs=2, min_iterations=5, block_seconds=0.02, window_seconds=0.02,
                        warmup_cap_seconds=0.1)  # fmt: skip
    for mode in ("latency", "throughput"):
        rows, _ = measured(paired(sleep, sleep, mode, protocol=protocol))
        waits = [row.value if mode == "latency" else 4 / row.value for row in rows]
        assert min(waits) >= 0.004
        assert min(waits) < 2 * max(slept)


def test_an_injected_slow_down_is_of_the_right_size(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_truths, "perf_counter_ns", clock.read)
    work = clock.takes(MS)
    assert slowed(work, 0) is work
    rows, _ = measured(paired(work, slowed(work, 50)))
    assert value_of(rows, "treatment") / value_of(rows, "control") == pytest.approx(1.5, rel=1e-3)


def test_work_on_an_asynchronous_device_is_charged_to_the_call(async_device) -> None:
    def work(batch: Tensor) -> Tensor:
        time.sleep(0.003)
        return batch.float()

    protocol = Protocol(pairs=2, min_iterations=5, block_seconds=0.01, window_seconds=0.01,
                        warmup_cap_seconds=0.05)  # fmt: skip
    for mode in ("latency", "throughput"):
        deferred = async_device.deferred(work)
        blocks = paired(deferred, deferred, mode, device=async_device.device, protocol=protocol)
        rows, _ = measured(blocks)
        waits = [row.value if mode == "latency" else 4 / row.value for row in rows]
        assert min(waits) >= 0.003
        for arm in blocks.arms:
            assert all(s.rows.tolist() == s.batch[0].tolist() for s in arm.sampled)
