"""What was answered under load must be what a direct call answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from bench.checks import ASKED_AGAIN, PROBE_ROWS, ROW_LIMIT, answers, differs
from bench.records import EventRow
from bench.serving.answering import join
from bench.serving.arms import ServedArms


def verify_served(
    served: ServedArms, scenario: str, rng: np.random.Generator
) -> Iterator[EventRow]:
    """Batches kept from the load are asked again, untimed, after others; and their rows alone.

    A batch must be answered as it was, but for summation order; a row alone as in its batch, but
    for rounding and for scales that are taken over a batch.
    """
    for arm in served.arms:

        def fault(name: str, detail: str, who: str = arm.name) -> EventRow:
            detail = f"{who} {detail}"
            return EventRow(scenario=scenario, name=name, severity="failure", detail=detail)

        if not all(sample.rows.isfinite().all() for sample in arm.sampled):
            yield fault("non_finite", "gave NaN or infinite outputs")
            continue
        wrong = False
        for place in rng.permutation(len(arm.sampled))[:ASKED_AGAIN]:
            sample = arm.sampled[place]
            drawn = rng.choice(len(served.requests), int(rng.integers(1, PROBE_ROWS)))
            decoy = join([served.requests[k] for k in drawn])
            (_, again), _ = answers(arm.call, [decoy, sample.batch], served.device)
            wrong = wrong or differs(again[: len(sample.rows)], sample.rows)
        if wrong:
            yield fault(
                "output_mismatch",
                "answered a request under load otherwise than the same batch asked again: "
                "work was skipped, or an answer was kept that should not have been",
            )
            continue
        rows = torch.cat([sample.rows for sample in arm.sampled])
        heads = [
            tuple(column[r : r + 1] for column in sample.head)
            for sample in arm.sampled
            for r in range(len(sample.rows))
        ]
        chosen = rng.permutation(len(rows))[:PROBE_ROWS].tolist()
        alone = torch.cat(answers(arm.call, [heads[k] for k in chosen], served.device)[0])
        batched = rows[chosen]
        spread = max(float(alone.std(0).mean()), float(batched.std(0).mean()))
        if alone.shape != batched.shape or (alone - batched).abs().mean() > ROW_LIMIT * spread:
            yield fault(
                "output_mismatch",
                "answered requests in the batches of the queue otherwise than alone: batching "
                "changes its answers beyond rounding",
            )
