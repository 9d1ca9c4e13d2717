"""Comparisons whose right answer is known: a model with itself, and with itself slowed down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch

from bench.blocks import LATENCY, PairedBlocks, rows_of
from bench.pipeline import Pipeline
from bench.protocol import Protocol
from bench.records import BlockRow, EventRow

BATCH = 64  # about a millisecond a call on one thread


def slowed(call: Callable[..., Any], percent: int) -> Callable[..., Any]:
    """`call`, made to take `percent` % longer by waiting at its end."""

    def wait(*batch: Any) -> Any:
        start = perf_counter_ns()
        answer = call(*batch)
        end = start + (perf_counter_ns() - start) * (100 + percent) // 100
        while perf_counter_ns() < end:
            pass
        return answer

    return wait if percent else call


def known_truths(
    pipeline: Pipeline,
    comparisons: Sequence[tuple[int, int]],
    protocol: Protocol,
    rng: np.random.Generator,
) -> Iterator[BlockRow | EventRow]:
    """Paired latency blocks for each (number, percent), in random order.

    The model is untrained: what it says does not matter here. Each comparison has its own freshly
    made arms, so that the layout of memory is drawn anew for it.
    """
    data, task = pipeline.data, pipeline.baseline.task
    drawn = task.requests(data, BATCH, protocol.distinct_batches, pipeline.seed)
    batches = [pipeline.device.move(batch) for batch in drawn]
    with torch.inference_mode():
        for i in rng.permutation(len(comparisons)):
            number, percent = comparisons[i]
            made = [
                task.predictor(pipeline.fresh_model(pipeline.device.torch_device).eval(), data)
                for _ in range(2)
            ]
            arms = [made[k] for k in rng.permutation(2)]
            blocks = PairedBlocks(
                arms[0], slowed(arms[1], percent), batches, pipeline.device, protocol, rng,
                "latency",
            )  # fmt: skip
            point = {"batch": BATCH, "comparison": number, "injected_percent": percent}
            yield from rows_of(blocks, "single-stream", LATENCY, point, BATCH)
