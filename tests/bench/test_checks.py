"""Each check by itself: what it must accuse, and what it must leave alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_trials import LATENCY, THROUGHPUT
from torch import Tensor, nn

from bench.blocks import PairedBlocks
from bench.checks import (
    answers,
    differs,
    fingerprint,
    fresh_needed,
    verify_block,
    verify_changes,
    verify_complete,
    verify_processors,
    verify_rows,
    verify_timed_outputs,
    verify_unmutated,
)
from bench.device import get_device
from bench.protocol import Protocol
from bench.records import BlockRow
from techniques.base import Change, Technique

CPU = get_device("cpu")
PROTOCOL = Protocol(pairs=4)
Call = Callable[[Tensor], Tensor]


def requests(count: int, size: int = 4, seed: int = 0) -> list[tuple[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(size, generator=generator),) for _ in range(count)]


def honest(batch: Tensor) -> Tensor:
    """The same work for every batch."""
    end = time.perf_counter() + 1e-4
    while time.perf_counter() < end:
        pass
    return batch * 2


def sampled(treatment: Call, control: Call = honest, device=CPU) -> PairedBlocks:
    """Blocks whose arms have answered a few requests under the clock."""
    rng = np.random.default_rng(0)
    blocks = PairedBlocks(control, treatment, requests(8), device, PROTOCOL, rng, "latency")
    blocks.calls = 5
    for _ in blocks.run():
        pass
    for arm in blocks.arms:
        arm.steady_call = 1e-4
    return blocks


def found(blocks: PairedBlocks) -> set[str]:
    rng = np.random.default_rng(1)
    fresh = requests(fresh_needed(blocks), seed=9)
    events = [
        *verify_timed_outputs(blocks, fresh, "load", rng),
        *verify_rows(blocks, "load", rng),
        *verify_complete(blocks, "load"),
        *verify_processors(blocks, 1, "load"),
    ]
    assert all(e.severity == "failure" and e.scenario == "load" for e in events)
    return {event.name for event in events}


def test_an_honest_arm_is_not_accused() -> None:
    assert found(sampled(honest)) == set()


def test_a_reordered_sum_is_no_other_answer() -> None:
    assert found(sampled(lambda b: honest(b) * (1 + 1e-6 * torch.rand(len(b))))) == set()


def test_an_answer_that_changes_from_call_to_call_is_accused() -> None:
    assert "output_mismatch" in found(sampled(lambda b: honest(b) + torch.randn(len(b))))


def test_an_arm_that_skips_by_counting_is_accused_whatever_it_counts_to() -> None:
    for period in (2, 3, 4, 5):
        count = iter(range(10**6))

        def skips(batch: Tensor, count=count, period=period) -> Tensor:
            return honest(batch) if next(count) % period == 0 else torch.zeros(len(batch))

        assert "output_mismatch" in found(sampled(skips)), period


def test_one_answer_for_all_batches_of_a_size_is_accused() -> None:
    kept: dict[int, Tensor] = {}
    stale = sampled(lambda b: honest(kept.setdefault(len(b), b)))
    assert "output_mismatch" in found(stale)


def test_a_constant_answer_is_left_to_the_quality_scenario() -> None:
    assert found(sampled(lambda b: honest(torch.ones(len(b))))) == set()


def test_a_ranking_over_many_items_is_compared_row_by_row() -> None:
    """Popularity is most of the spread of such scores; the rows differ by little beside it."""
    popularity = torch.linspace(-50, 50, 40)

    def ranks(batch: Tensor) -> Tensor:
        return honest(batch)[:, None] + popularity

    first = ranks(requests(1)[0][0])
    assert found(sampled(ranks, ranks)) == set()
    stale = sampled(lambda b: first if len(b) == 4 else ranks(b), ranks)
    assert "output_mismatch" in found(stale)


def test_a_memory_of_requests_is_accused_by_its_speed() -> None:
    memo: dict[int, tuple[Tensor, Tensor]] = {}

    def recalls(batch: Tensor) -> Tensor:
        if id(batch) not in memo:
            memo[id(batch)] = batch, honest(batch)
        return memo[id(batch)][1]

    assert found(sampled(recalls)) == {"answers_kept"}


def test_a_declared_memory_of_requests_is_noted_and_its_answers_are_held_against_it() -> None:
    memo: dict[int, tuple[Tensor, Tensor]] = {}

    def recalls(batch: Tensor) -> Tensor:
        if id(batch) not in memo:
            memo[id(batch)] = batch, honest(batch)
        return memo[id(batch)][1]

    for call, names in ((recalls, {"repeats"}), (drifting(), {"repeats", "output_mismatch"})):
        blocks = sampled(call)
        fresh = requests(fresh_needed(blocks), seed=9)
        rng = np.random.default_rng(1)
        events = list(verify_timed_outputs(blocks, fresh, "load", rng, repeats=True))
        assert {event.name for event in events} == names
        (note,) = [event for event in events if event.name == "repeats"]
        assert note.severity == "note"
        assert "times as fast as a new one" in note.detail


def drifting() -> Call:
    """An arm whose memory fades into what it was not."""
    count = iter(range(10**6))
    return lambda batch: honest(batch) + next(count)


def test_a_call_that_is_quick_for_what_one_request_asks_is_not_accused() -> None:
    """As a table of hot rows before a slow store is, whether or not it has met the request."""
    for (light,) in requests(8):

        def call(batch: Tensor, light: Tensor = light) -> Tensor:
            return batch * 2 if torch.equal(batch, light) else honest(batch)

        assert found(sampled(call)) == set()


def test_a_call_that_is_faster_for_both_arms_the_second_time_is_not_accused() -> None:
    """As tables are whose rows the first visit brings into the caches."""

    def warmed() -> Call:
        met: dict[int, Tensor] = {}

        def call(batch: Tensor) -> Tensor:
            if id(batch) not in met:
                met[id(batch)] = honest(honest(batch)) / 2
            return honest(batch)

        return call

    assert found(sampled(warmed(), warmed())) == set()


def test_nan_is_accused_as_such() -> None:
    assert found(sampled(lambda b: honest(b) * torch.nan)) >= {"non_finite"}
    assert "non_finite" in found(sampled(lambda b: honest(b) + torch.inf))


class Promised(Tensor):
    """An answer that another thread still works on: whoever reads it waits."""

    future: Future[Tensor]

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") == "dim":
            return 1
        read = (a.future.result() if isinstance(a, Promised) else a for a in args)
        return function(*read, **(kwargs or {}))


def test_an_answer_that_is_still_being_worked_on_is_accused() -> None:
    with ThreadPoolExecutor(max_workers=1) as worker:

        def promises(batch: Tensor) -> Tensor:
            promise = torch.empty(len(batch)).as_subclass(Promised)
            promise.future = worker.submit(lambda: (time.sleep(0.002), batch * 2)[1])
            return promise

        assert "unsynchronised" in found(sampled(promises))


def test_an_asynchronous_device_is_waited_for_before_an_answer_is_read(async_device) -> None:
    deferred = async_device.deferred(honest)
    assert found(sampled(deferred, deferred, async_device.device)) == set()
    (answer,), _ = answers(deferred, requests(1), async_device.device)
    assert torch.equal(answer, requests(1)[0][0] * 2)


@pytest.mark.parametrize("reads", [[1.0, 1e-6, 1.0], [60e-6] * 3])
def test_reads_that_are_slow_for_other_reasons_are_no_accusation(reads: list[float]) -> None:
    blocks = sampled(honest)
    blocks.arms[0].reads[:] = [1e-6, 1e-6, 1e-6]
    blocks.arms[1].reads[:] = reads
    assert list(verify_complete(blocks, "load")) == []


@pytest.mark.parametrize(
    ("busy", "threads", "accused"), [(1.0, 1, False), (1.9, 1, True), (1.9, 2, False)]
)
def test_an_arm_that_keeps_more_processors_busy_than_given_is_accused(
    busy: float, threads: int, accused: bool
) -> None:
    blocks = sampled(honest)
    blocks.arms[1].wall, blocks.arms[1].processor = 2.0, 2.0 * busy
    events = list(verify_processors(blocks, threads, "load"))
    assert [e.name for e in events] == ["too_many_threads"] * accused


def test_a_time_below_a_tick_of_processor_time_accuses_nobody() -> None:
    blocks = sampled(honest)
    blocks.arms[1].wall, blocks.arms[1].processor = 5e-5, 1e-4
    assert not list(verify_processors(blocks, 1, "load"))


def test_processor_time_of_the_arm_is_what_its_blocks_used() -> None:
    """Sleeping uses no processor; spinning uses one, or less where others want it too."""

    def sleeps(batch: Tensor) -> Tensor:
        time.sleep(0.002)
        return batch * 2

    blocks = sampled(sleeps)
    spinning, sleeping = blocks.arms
    assert sleeping.processor < 0.5 * sleeping.wall
    assert 0 < spinning.processor < 1.5 * spinning.wall


finite = st.floats(-1e3, 1e3, width=32)
tensors = st.lists(finite, min_size=2, max_size=20).map(torch.tensor)


@given(tensors)
def test_an_output_does_not_differ_from_itself(output: Tensor) -> None:
    assert not differs(output, output.clone())


@given(tensors, st.data())
def test_one_wrong_value_is_a_difference(output: Tensor, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(output) - 1))
    spread = float(output.max() - output.min()) + float(output.abs().max()) + 1e-3
    wrong = output.clone()
    wrong[place] += 0.01 * spread
    assert differs(output, wrong)
    wrong[place] = torch.nan
    assert differs(output, wrong)


def test_outputs_of_other_shapes_differ() -> None:
    assert differs(torch.ones(3), torch.ones(3, 1))


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.BatchNorm1d(3)).eval()


def _edit_weight(m: nn.Sequential) -> None:
    m[0].weight.data[0, 0] += 1e-6


def _edit_buffer(m: nn.Sequential) -> None:
    m[2].running_mean += 1


def _swap_module(m: nn.Sequential) -> None:
    m[1] = nn.Tanh()


def _swap_weights(m: nn.Sequential) -> None:
    m[0].weight, m[0].bias = nn.Parameter(m[0].weight.flip(0)), nn.Parameter(m[0].bias.flip(0))


def _add_hook(m: nn.Sequential) -> None:
    m[0].register_forward_pre_hook(lambda module, arguments: None)


def _patch_forward(m: nn.Sequential) -> None:
    m[1].forward = lambda x: x


@pytest.mark.parametrize(
    "change", [_edit_weight, _edit_buffer, _swap_module, _swap_weights, _add_hook, _patch_forward]
)
def test_any_change_of_the_control_shows(change: Callable[[nn.Sequential], None]) -> None:
    changed = model()
    before = fingerprint(changed)
    assert before == fingerprint(model())
    assert list(verify_unmutated(before, fingerprint(changed))) == []
    change(changed)
    (event,) = verify_unmutated(before, fingerprint(changed))
    assert (event.name, event.severity, event.scenario) == ("control_mutated", "failure", "")


def test_using_the_control_does_not_change_it() -> None:
    used = model()
    before = fingerprint(used)
    used(torch.ones(2, 3))
    assert fingerprint(used) == before


def declares(*changes: Change) -> tuple[Technique, ...]:
    made = Technique()
    made.changes = frozenset(changes)  # type: ignore[misc]
    return (made,)


SAME, OTHER = [torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 2.5])]


@pytest.mark.parametrize(
    ("declared", "output", "size", "names"),
    [
        ((), SAME, 100, []),
        ((), OTHER, 100, ["undeclared_change"]),
        ((), SAME, 50, ["undeclared_change"]),
        ((Change.SIZE,), OTHER, 50, ["undeclared_change"]),
        ((Change.SIZE, Change.NUMERICS), OTHER, 50, []),
        ((Change.SIZE,), SAME, 100, ["declared_change_absent"]),
        ((), [torch.tensor([1.0, torch.nan])], 100, ["undeclared_change", "non_finite"]),
    ],
)
def test_what_changes_must_be_what_is_declared(
    declared: tuple[Change, ...], output: list[Tensor], size: int, names: list[str]
) -> None:
    events = list(verify_changes(declares(*declared), SAME, output, 100, size))
    assert [event.name for event in events] == names
    severity = {e.name: e.severity for e in events}
    assert severity.get("declared_change_absent", "note") == "note"
    assert {severity[n] for n in names if n != "declared_change_absent"} <= {"failure"}


def test_a_stack_may_change_what_any_of_its_techniques_declares() -> None:
    stack = declares(Change.SIZE) + declares(Change.NUMERICS)
    assert list(verify_changes(stack, SAME, OTHER, 100, 50)) == []


def row(latency: bool = True, **changes: object) -> BlockRow:
    return BlockRow.model_validate(
        {
            "scenario": "load",
            "metric": LATENCY if latency else THROUGHPUT,
            "point": {"batch": 4},
            "pair": 0,
            "position": 0,
            "arm": "control",
            "value": 2e-9 if latency else 12 / 6e-9,
            "samples": 12,
            "durations_ns": (1, 2, 3),
            "dropped": 2,
            "outliers": 0,
            **changes,
        }
    )


@pytest.mark.parametrize("latency", [True, False])
def test_a_block_that_adds_up_is_not_accused(latency: bool) -> None:
    assert list(verify_block(row(latency), 20)) == []


@pytest.mark.parametrize(
    ("changes", "rows_run", "name"),
    [
        ({}, 19, "sample_count"),
        ({"samples": 13}, 20, "sample_count"),
        ({"durations_ns": ()}, 20, "sample_count"),
        ({"value": 2.1e-9}, 20, "value_mismatch"),
        ({"point": {"users": 4}}, 11, "sample_count"),
    ],
)
def test_a_block_that_does_not_add_up_is_accused(
    changes: dict[str, object], rows_run: int, name: str
) -> None:
    (event,) = verify_block(row(**changes), rows_run)
    assert (event.name, event.severity, event.scenario) == (name, "failure", "load")


def test_a_rate_that_does_not_follow_from_its_time_is_accused() -> None:
    (event,) = verify_block(row(latency=False, value=13 / 6e-9), 20)
    assert event.name == "value_mismatch"
