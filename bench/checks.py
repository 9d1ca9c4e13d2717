"""Checks that a technique did what it was timed for. Each finding is an event of the trial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.base import Batch, scores
from bench.blocks import PairedBlocks
from bench.records import BlockRow, EventRow
from techniques.base import Change, Technique

TOLERANCE = 1e-4  # of the spread of the outputs: above summation order, below any skipped work
DRAIN_LIMIT = 0.25  # of a block's time: what may still be pending when the clock has stopped


def fingerprint(model: nn.Module) -> str:
    """A hash of every parameter and buffer of a model, names and values."""
    state = hashlib.sha256()
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
    limit = tolerance * max(spread, 1e-3 * float(a.abs().max()), 1e-12)
    return not bool(((a - b).abs() <= limit).all())


@torch.inference_mode()
def answers(call: Callable[..., Any], batches: Sequence[Batch]) -> list[Tensor]:
    """The scores that `call` gives for each batch, on the CPU in float32."""
    return [scores(call(*batch)).detach().float().cpu().clone() for batch in batches]


def verify_timed_outputs(
    blocks: PairedBlocks, scenario: str, rng: np.random.Generator
) -> Iterator[EventRow]:
    """The outputs sampled from timed calls must be those of calls that nobody times.

    Each sampled batch is asked again, after another batch, so that work skipped or an answer kept
    from the call before shows.
    """
    for arm in blocks.arms:
        for sample in arm.sampled:
            decoy = blocks.batches[int(rng.integers(len(blocks.batches)))]
            again = answers(arm.call, [decoy, sample.batch])[1][: len(sample.rows)]
            if not torch.isfinite(sample.rows).all():
                yield _failure(scenario, "non_finite", f"{arm.name} gave NaN or infinite outputs")
                break
            if differs(again, sample.rows):
                yield _failure(
                    scenario,
                    "output_mismatch",
                    f"{arm.name} answered a timed request otherwise than the same request untimed: "
                    "work was skipped, or an answer was kept that should not have been",
                )
                break


def verify_drain(blocks: PairedBlocks, scenario: str) -> Iterator[EventRow]:
    """Nothing much may be pending when the clock stops: the output must be there."""
    for arm in blocks.arms:
        if arm.drain_share > DRAIN_LIMIT:
            yield _failure(
                scenario,
                "unsynchronised",
                f"{arm.name} was still working for {arm.drain_share:.0%} of a block's time after "
                "the clock had stopped: it returns before its work is done",
            )


def verify_changes(
    stack: tuple[Technique, ...],
    control: Sequence[Tensor],
    treatment: Sequence[Tensor],
    control_bytes: int,
    treatment_bytes: int,
) -> Iterator[EventRow]:
    """What a stack changes must be what its techniques declare, among NUMERICS and SIZE."""
    declared = frozenset().union(*(t.changes for t in stack)) if stack else frozenset()
    numerics = any(differs(a, b) for a, b in zip(control, treatment, strict=True))
    observed = {Change.NUMERICS: numerics, Change.SIZE: control_bytes != treatment_bytes}
    for change, seen in observed.items():
        if seen and change not in declared:
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
    if not len(seconds) or row.samples + row.dropped * row.point["batch"] > rows_run:
        yield _failure(
            row.scenario,
            "sample_count",
            f"a block claims {row.samples} samples, and at most {rows_run} were run",
        )
        return
    value = float(np.median(seconds)) if row.metric.unit == "s" else row.samples / seconds.sum()
    if not np.isclose(row.value, value, rtol=1e-6):
        yield _failure(
            row.scenario,
            "value_mismatch",
            f"a block claims {row.metric.name} {row.value:.6g}, and its durations say {value:.6g}",
        )


def verify_unmutated(before: str, after: str) -> Iterator[EventRow]:
    """The control must be what it was before the technique was applied."""
    if before != after:
        yield _failure(
            "", "control_mutated", "applying the technique changed the control's own weights"
        )


def _failure(scenario: str, name: str, detail: str) -> EventRow:
    return EventRow(scenario=scenario, name=name, severity="failure", detail=detail)
