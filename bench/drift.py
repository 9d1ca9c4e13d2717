"""Requests whose popular ids are others: what a cache meets when taste moves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from baselines.base import Batch, Dataset


class Drift:
    """Gives ids of requests the places of others, so that popularity moves and its shape stays.

    Of the ids of a column of the test split, the r-th most popular becomes the one half of them
    further on, and the last half the first. A column is a field of an int input [n, F] with as
    many columns as the data has fields; any other int input counts as one, and what is no id of
    any field, such as padding, stays. Other inputs stay.
    """

    def __init__(self, data: Dataset) -> None:
        self.most = max(data.fields.values())
        fields = len(data.fields)
        self.maps = [_maps(column, fields, self.most) for column in data.test.inputs]

    def __call__(self, request: Batch, share: float, rng: np.random.Generator) -> Batch:
        """`request` (on the CPU) with the ids of a share of its rows moved; a new one."""
        chosen = torch.from_numpy(rng.random(len(request[0])) < share)
        return tuple(
            self._moved(column, maps, chosen)
            for column, maps in zip(request, self.maps, strict=False)
        )

    def _moved(self, column: Tensor, maps: list[Tensor], chosen: Tensor) -> Tensor:
        if not maps:
            return column
        moved, rows = column.clone(), column[chosen]
        parts = rows.unbind(1) if len(maps) > 1 else [rows]
        found = [ids.where((ids < 0) | (ids >= self.most), m[ids.clamp(0, len(m) - 1)])
                 for ids, m in zip(parts, maps, strict=True)]  # fmt: skip
        moved[chosen] = torch.stack(found, dim=1) if len(maps) > 1 else found[0]
        return moved


def _maps(column: Tensor, fields: int, most: int) -> list[Tensor]:
    """id → id for each column of an input; none for an input that holds no ids."""
    if column.is_floating_point():
        return []
    apart = column.dim() == 2 and column.shape[1] == fields > 1
    return [_map(part, most) for part in (column.unbind(1) if apart else [column])]


def _map(ids: Tensor, most: int) -> Tensor:
    known = ids[(ids >= 0) & (ids < most)].flatten()
    values, counts = known.unique(return_counts=True)
    ranked = values[counts.argsort(descending=True, stable=True)]
    becomes = torch.arange(most)
    becomes[ranked] = ranked.roll(-(len(ranked) // 2))
    return becomes
