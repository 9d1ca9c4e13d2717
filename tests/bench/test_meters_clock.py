from __future__ import annotations

import gc
import time

import pytest
import torch
from torch import Tensor

from bench.device import Device, get_device
from bench.meters.clock import device_events, overhead_ns, quiet, time_each, time_window

MS = 1_000_000
SLEEP = 5 * MS


def batches(n: int) -> list[tuple[Tensor, ...]]:
    return [(torch.full((2,), i),) for i in range(n)]


def sleep(batch: Tensor) -> Tensor:
    time.sleep(SLEEP / 1e9)
    return batch + 1


def test_latency_measures_a_sleep_of_known_length_each_time() -> None:
    durations, answer = time_each(sleep, batches(7), None)
    assert len(durations) == 7
    assert min(durations) >= SLEEP
    assert min(durations) < 4 * SLEEP  # the others may be as long as a loaded host makes them
    assert answer.tolist() == [7, 7]


def test_throughput_measures_the_whole_window() -> None:
    elapsed, calls, answer = time_window(sleep, batches(7), None)
    assert calls == 7
    assert 7 * SLEEP <= elapsed < 700 * SLEEP
    assert answer.tolist() == [7, 7]


def test_every_batch_is_called_once_in_order_with_all_its_tensors() -> None:
    seen: list[tuple[int, int]] = []
    pairs = [(torch.tensor([i]), torch.tensor([-i])) for i in range(5)]
    time_each(lambda a, b: seen.append((int(a), int(b))), pairs, None)
    time_window(lambda a, b: seen.append((int(a), int(b))), pairs, None)
    assert seen == [(i, -i) for i in range(5)] * 2


def test_who_looks_ahead_is_told_the_next_batch_in_a_window_and_in_no_other_mode() -> None:
    said: list[str] = []

    class Looks:
        def ahead(self, batch: torch.Tensor) -> None:
            said.append(f"next {int(batch[0])}")

        def __call__(self, batch: torch.Tensor) -> None:
            said.append(f"now {int(batch[0])}")

    many = [(torch.tensor([i]),) for i in range(3)]
    time_window(Looks(), many, None)
    assert said == ["next 1", "now 0", "next 2", "now 1", "now 2"]
    said.clear()
    time_each(Looks(), many, None)
    time_window(Looks(), [], None)
    assert said == ["now 0", "now 1", "now 2"]


def test_latency_waits_for_an_asynchronous_device(async_device) -> None:
    call = async_device.deferred(sleep)
    durations, answer = time_each(call, batches(5), async_device.device.synchronize)
    assert min(durations) >= SLEEP
    assert answer.tolist() == [5, 5]


def test_work_queued_before_is_not_charged_to_the_first_call(async_device) -> None:
    async_device.launch(lambda: time.sleep(0.3))
    durations, _ = time_each(
        async_device.deferred(lambda b: b), batches(1), async_device.device.synchronize
    )
    assert durations[0] < 300 * MS


def test_throughput_ends_with_the_last_completion(async_device) -> None:
    call = async_device.deferred(sleep)
    elapsed, _, answer = time_window(call, batches(5), async_device.device.synchronize)
    assert elapsed >= 5 * SLEEP
    assert answer.tolist() == [5, 5]


def test_an_answer_is_released_before_the_next_call() -> None:
    alive: list[int] = []

    class Answer:
        count = 0

        def __init__(self) -> None:
            Answer.count += 1

        def __del__(self) -> None:
            Answer.count -= 1

    def call(batch: Tensor) -> Answer:
        alive.append(Answer.count)
        return Answer()

    time_each(call, batches(4), None)
    assert alive == [0, 0, 0, 0]


def test_the_collector_is_off_inside_and_restored_after_an_error() -> None:
    states: list[bool] = []

    def fail(batch: Tensor) -> None:
        states.append(gc.isenabled())
        raise RuntimeError("a model that fails")

    with pytest.raises(RuntimeError):
        time_each(fail, batches(1), None)
    assert states == [False]
    assert gc.isenabled()


def test_quiet_leaves_a_collector_off_that_was_off() -> None:
    gc.disable()
    try:
        with quiet():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_null_workload_costs_something_and_synchronising_costs_more() -> None:
    alone = overhead_ns(None)
    assert 0 < alone < MS
    assert overhead_ns(lambda: time.sleep(1e-5)) > alone


class FakeEvent:
    """A CUDA event whose time is the number of calls made so far, in milliseconds."""

    calls = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at, self.done = -1, False

    def record(self) -> None:
        self.at = FakeEvent.calls

    def synchronize(self) -> None:
        self.done = True

    def elapsed_time(self, other: FakeEvent) -> float:
        assert other.done, "read before it completed"
        return float(other.at - self.at)


def test_device_mode_reads_completed_events_around_all_calls(
    fake_cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)

    def call(batch: Tensor) -> Tensor:
        FakeEvent.calls += 1
        return batch

    elapsed, calls, answer = device_events(call, batches(6))
    assert (elapsed, calls) == (6 * MS, 6)
    assert answer.tolist() == [5, 5]


@pytest.mark.cuda
def test_real_device_time_is_within_the_callers_time() -> None:
    device = get_device("cuda")
    matrices = [device.move((torch.randn(2048, 2048),)) for _ in range(8)]
    time_window(lambda m: m @ m, matrices, device.synchronize)
    on_device, _, _ = device_events(lambda m: m @ m, matrices)
    waited, _, _ = time_window(lambda m: m @ m, matrices, device.synchronize)
    assert 0 < on_device < 1.5 * waited
