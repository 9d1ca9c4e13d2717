"""Checks that a technique did what it was timed for. Each finding is an event of the trial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from baselines.base import Batch, scores
from bench.blocks import ArmState, PairedBlocks
from bench.device import Device
from bench.records import BlockRow, EventRow
from techniques.base import Change, Technique

TOLERANCE = 1e-4  # of the spread of the outputs: above summation order, below any skipped work
PENDING_LIMIT = 0.25  # of a call: what may still be pending when the clock has stopped
COLD_READ = 1e-4  # seconds more that reading may take where an arm never runs the code that reads
REPEAT_LIMIT = 2.0  # how much faster, beside the control, a request met before may be answered
PROCESSOR_LIMIT = 1.25  # processors an arm may keep busy for each thread of the load
TICK = 0.01  # s, in which the system counts the processor time of other processes
ASKED_AGAIN = 6  # samples of each arm at a load: one in two skipped would show in all but 1 in 64
DECOYS = 2  # requests, at most, between two samples that are asked again
PROBE_ROWS = 64
ROW_LIMIT = 0.5  # of the spread over rows: above what rounding and dynamic scales do to a row


def fingerprint(model: nn.Module) -> str:
    """A hash of what a model computes: its modules, their hooks, every parameter and buffer."""
    state = hashlib.sha256()
    for name, module in model.named_modules():
        hooks = len(module._forward_hooks), len(module._forward_pre_hooks)
        kind = f"{name} {type(module).__qualname__} {hooks} {'forward' in vars(module)}"
        state.update(kind.encode())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def differs(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether two outputs differ by more than `tolerance` of the spread of `a`, anywhere."""
    if a.shape != b.shape:
        return True
    a, b = a.double(), b.double()
    spread = float(a.max() - a.min()) if a.numel() > 1 else 0.0
    limit = tolerance * max(spread, 1e-2 * float(a.abs().max()), 1e-12)
    return not bool(((a - b).abs() <= limit).all())


def answers(
    call: Callable[..., Any], batches: Sequence[Batch], device: Device
) -> tuple[list[Tensor], float]:
    """The scores that `call` gives for each batch, on the CPU in float32.

    And the seconds that the first call took beyond the last: compilation, packing, cache fill.
    """
    asked = [_ask(call, batch, device) for batch in batches]
    return [answer for answer, _ in asked], max(0, asked[0][1] - asked[-1][1]) / 1e9


@torch.inference_mode()
def _ask(call: Callable[..., Any], batch: Batch, device: Device) -> tuple[Tensor, int]:
    """The scores for a batch, on the CPU in float32, and the nanoseconds until they were there.

    Not by the clocks of the blocks: nothing here tells a call that it is watched.
    """
    start = perf_counter_ns()
    answer = call(*batch)
    if device.synchronize is not None:
        device.synchronize()
    spent = perf_counter_ns() - start
    return scores(answer).detach().float().cpu().clone(), spent


def fresh_needed(blocks: PairedBlocks) -> int:
    """How many requests `verify_timed_outputs` asks that no arm has met before."""
    return DECOYS * min(ASKED_AGAIN, max(len(arm.sampled) for arm in blocks.arms))


def verify_timed_outputs(
    blocks: PairedBlocks,
    fresh: Sequence[Batch],
    scenario: str,
    rng: np.random.Generator,
    repeats: bool = False,
) -> Iterator[EventRow]:
    """The outputs sampled from timed calls must be those of calls that nobody times.

    Each sampled batch is asked again after one or two of the `fresh` ones (their number is drawn,
    to fall out of step with an arm that skips by counting), so that work skipped or an answer kept
    from the call before shows. An arm that looks up its earlier answers is right every time, but
    faster only for a batch met before: the fresh ones show that. repeats: the treatment declares
    that it does so, which is noted, and then its load must not repeat requests.
    """
    gains = []
    for arm in blocks.arms:
        unmet = iter(fresh)
        first, again, wrong = [], [], False
        for pick in rng.permutation(len(arm.sampled))[:ASKED_AGAIN]:
            sample = arm.sampled[pick]
            for _ in range(int(rng.integers(1, DECOYS + 1))):
                first.append(_ask(arm.call, next(unmet), blocks.device)[1])
            answer, spent = _ask(arm.call, sample.batch, blocks.device)
            again.append(spent)
            wrong = wrong or differs(answer[: len(sample.rows)], sample.rows)
        if not all(sample.rows.isfinite().all() for sample in arm.sampled):
            yield _failure(scenario, "non_finite", f"{arm.name} gave NaN or infinite outputs")
        elif wrong:
            yield _failure(
                scenario,
                "output_mismatch",
                f"{arm.name} answered a timed request otherwise than the same request untimed: "
                "work was skipped, or an answer was kept that should not have been",
            )
        # What else runs on the host only adds. That the quickest of few requests was met before may
        # be for what it asks, but not that half of them were quicker than all new ones.
        gains.append(min(first) / median(again))
    control, treatment = gains
    if repeats:
        yield EventRow(
            scenario=scenario,
            name="repeats",
            severity="note",
            detail=f"treatment answered a request met before {treatment:.1f} times as fast as a "
            f"new one, control {control:.1f} times: its speed depends on how often requests repeat "
            "and on the skew of their ids; this load draws the rows of the test split, each before "
            "any comes again",
        )
    elif len(again) > 1 and treatment > REPEAT_LIMIT * max(control, 1.0):
        yield _failure(
            scenario,
            "answers_kept",
            f"treatment answers a request that it has met before {treatment:.1f} times as fast as "
            f"a new one, control {control:.1f} times: its speed is that of a cache, and this load "
            "repeats its requests",
        )


def verify_rows(
    blocks: PairedBlocks, scenario: str, rng: np.random.Generator
) -> Iterator[EventRow]:
    """A row must be answered alike in whatever batch it comes, but for rounding.

    So an arm cannot be right in the batches of the quality scenario alone: rows of the samples are
    asked again, mixed, in a batch of the size of a probe.
    """
    for arm in blocks.arms:
        timed = torch.cat([sample.rows for sample in arm.sampled])
        pick = torch.from_numpy(np.resize(rng.permutation(len(timed)), PROBE_ROWS))
        columns = zip(*(sample.head for sample in arm.sampled), strict=True)
        answer, _ = _ask(
            arm.call, tuple(torch.cat(parts)[pick.to(parts[0].device)] for parts in columns),
            blocks.device,
        )  # fmt: skip
        timed = timed[pick]
        spread = max(float(answer.std(0).mean()), float(timed.std(0).mean()))
        if answer.shape != timed.shape or (answer - timed).abs().mean() > ROW_LIMIT * spread:
            yield _failure(
                scenario,
                "output_mismatch",
                f"{arm.name} answered rows of timed requests otherwise than in another batch: "
                "the work done depends on the size of a batch, or an answer was kept",
            )


def verify_complete(blocks: PairedBlocks, scenario: str) -> Iterator[EventRow]:
    """The output must be there when the clock stops: reading it may take what the control's does,
    and little more. What else runs on the host only adds, so the shortest read of an arm counts."""
    control, treatment = (min(arm.reads, default=0.0) for arm in blocks.arms)
    pending = treatment - 2 * control
    if pending > max(PENDING_LIMIT * blocks.arms[1].steady_call, COLD_READ):
        yield _failure(
            scenario,
            "unsynchronised",
            f"an output of treatment took {treatment:.2g} s or more to read after the clock had "
            f"stopped, one of control {control:.2g} s: it returns before its work is done",
        )


class Watched(Protocol):
    """What has timed two arms on a device."""

    arms: tuple[ArmState, ArmState]
    device: Device


def verify_processors(blocks: Watched, threads: int, scenario: str) -> Iterator[EventRow]:
    """On a CPU, both arms must do with the threads of the load, pools of their own included."""
    if blocks.device.synchronize is not None:
        return
    for arm in blocks.arms:
        busy = arm.processor / arm.wall if arm.wall > TICK else 0.0
        if busy > PROCESSOR_LIMIT * threads:
            yield _failure(
                scenario,
                "too_many_threads",
                f"{arm.name} kept {busy:.1f} processors busy, and the load gives it {threads}",
            )


def verify_changes(
    stack: tuple[Technique, ...],
    control: Sequence[Tensor],
    treatment: Sequence[Tensor],
    control_bytes: int,
    treatment_bytes: int,
) -> Iterator[EventRow]:
    """What a stack changes must be what its techniques declare, among NUMERICS and SIZE.

    Other training gives other numbers, which nobody has to declare.
    """
    declared = frozenset().union(*(t.changes for t in stack)) if stack else frozenset()
    retrained = any({"prepare", "build", "train"} & set(t.stages) for t in stack)
    numerics = any(differs(a, b) for a, b in zip(control, treatment, strict=True))
    observed = {Change.NUMERICS: numerics, Change.SIZE: control_bytes != treatment_bytes}
    for change, seen in observed.items():
        if seen and change not in declared and not (retrained and change is Change.NUMERICS):
            yield _failure(
                "", "undeclared_change", f"the stack changes {change} and does not declare it"
            )
        if change in declared and not seen:
            yield EventRow(
                scenario="",
                name="declared_change_absent",
                severity="note",
                detail=f"the stack declares a change of {change}, and none was seen here",
            )
    if not all(torch.isfinite(t).all() for t in treatment):
        yield _failure("", "non_finite", "the treatment gave NaN or infinite outputs")


def verify_block(row: BlockRow, rows_run: int) -> Iterator[EventRow]:
    """What a scenario says of a block must follow from its durations and the rows that ran.

    rows_run: rows that the clocks saw since the block before.
    """
    seconds = np.asarray(row.durations_ns) / 1e9
    if not len(seconds) or row.samples + row.dropped * row.point.get("batch", 0) > rows_run:
        yield _failure(
            row.scenario,
            "sample_count",
            f"a block claims {row.samples} samples, and at most {rows_run} were run",
        )
        return
    value = float(np.median(seconds)) if row.metric.unit == "s" else row.samples / seconds.sum()
    if not np.isclose(row.value, value, rtol=1e-6, atol=0):
        yield _failure(
            row.scenario,
            "value_mismatch",
            f"a block claims {row.metric.name} {row.value:.6g}, and its durations say {value:.6g}",
        )


def verify_unmutated(before: str, after: str) -> Iterator[EventRow]:
    """The control must be what it was before the technique was applied."""
    if before != after:
        yield _failure(
            "", "control_mutated", "the technique changed the control's own modules or weights"
        )


def _failure(scenario: str, name: str, detail: str) -> EventRow:
    return EventRow(scenario=scenario, name=name, severity="failure", detail=detail)
