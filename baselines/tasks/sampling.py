"""How requests and negatives are drawn from a split."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.base import Batch
from baselines.errors import LeanRecError

REDRAWS = 4


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


def untaken(
    users: Tensor, taken: Tensor, items: int, rows: Tensor, generator: torch.Generator
) -> Tensor:
    """For each of `rows` an item, 0…items−1, that its user has not taken: int64, as `rows`.

    users, taken: int64 [n], who took what. Uniform over the user's other items; one that the user
    has taken is drawn again, at most REDRAWS times, so that a user who took all has one too.
    """
    pairs = (users * items + taken).sort().values
    first = users[rows] * items
    drawn = torch.randint(items, (len(rows),), generator=generator)
    open_rows = torch.arange(len(rows))
    for _ in range(REDRAWS):
        key = first[open_rows] + drawn[open_rows]
        place = torch.searchsorted(pairs, key).clamp(max=len(pairs) - 1)
        open_rows = open_rows[pairs[place] == key]
        drawn[open_rows] = torch.randint(items, (len(open_rows),), generator=generator)
    return drawn
