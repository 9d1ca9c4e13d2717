"""How requests are drawn from a split."""

from __future__ import annotations

import torch

from baselines.base import Batch
from baselines.errors import LeanRecError


def draw_requests(columns: Batch, batch_size: int, count: int, seed: int) -> list[Batch]:
    """`count` requests of `batch_size` rows of `columns` (n rows each), in random order.

    No row comes twice before all have come once, so requests differ from each other while the
    rows, and with them the skew of the ids, stay those of the split. Raises LeanRecError where
    there are no rows.
    """
    rows = len(columns[0])
    if rows == 0:
        raise LeanRecError(
            "The test split is empty.",
            "No request can be drawn from it.",
            "Use more data, or a split that leaves rows for the test.",
        )
    generator = torch.Generator().manual_seed(seed)
    needed = batch_size * count
    order = torch.cat(
        [torch.randperm(rows, generator=generator) for _ in range(-(-needed // rows))]
    )
    return [
        tuple(column[picked] for column in columns) for picked in order[:needed].split(batch_size)
    ]
