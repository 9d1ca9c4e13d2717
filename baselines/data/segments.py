"""Segments of test rows: by item popularity, by user activity, by declared columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from baselines.base import Split
from baselines.data.columns import counted

DECILES, TERCILES = 10, 3
SPARSE = 8  # an id space so many times the rows is not counted through


def with_segments(test: Split, train: Split) -> Split:
    """`test`, its rows also judged by the popularity and the activity that `train` bears out."""
    found = {
        "popularity": popularity(train.items.numpy(), test.items.numpy()),
        "activity": activity(train.users.numpy(), test.users.numpy()),
    }
    return replace(test, segments=found | dict(test.segments))


def popularity(train_items: np.ndarray, items: np.ndarray) -> Tensor:
    """The popularity decile of each item in `items`: int64 [n], 0 the rarest.

    Each decile holds about a tenth of the training rows, so that the rare end, where an item has
    a row or two, still has rows enough to be judged. Items never trained on are in decile 0.
    """
    return _quantile(train_items, items, DECILES, by_rows=True)


def activity(train_users: np.ndarray, users: np.ndarray) -> Tensor:
    """The activity tercile of each user in `users`: int64 [n], 0 the least active.

    Each tercile holds about a third of the users that have training rows.
    """
    return _quantile(train_users, users, TERCILES, by_rows=False)


def declared(column: pd.Series) -> tuple[Tensor, dict[int, object]]:
    """A column's values as segment numbers, int64 [n], and what each number stands for.

    Whole numbers stand for themselves; other values are numbered in sorted order, missing is −1.
    """
    if pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any():
        return torch.from_numpy(column.to_numpy(np.int64, copy=True)), {}
    codes, values = pd.factorize(column.astype("string"), sort=True)
    return torch.from_numpy(codes.astype(np.int64)), dict(enumerate(values))


def _quantile(train_ids: np.ndarray, ids: np.ndarray, bins: int, *, by_rows: bool) -> Tensor:
    """The quantile of each id by its number of training rows; equal counts share a quantile.

    Never makes an array as long as the id space where that is much longer than the rows.
    """
    if train_ids.max(initial=0) < SPARSE * len(train_ids):  # counting is faster than sorting
        all_counts = counted(train_ids, int(train_ids.max(initial=-1)) + 1)
        known = np.flatnonzero(all_counts)
        counts = all_counts[known]
    else:
        known, counts = np.unique(train_ids, return_counts=True)
    count_values, of_count, ids_with = np.unique(counts, return_inverse=True, return_counts=True)
    mass = ids_with * (count_values if by_rows else 1)
    middle = (np.cumsum(mass) - mass / 2) / max(mass.sum(), 1)
    quantile = np.floor(bins * middle).astype(np.int64)[of_count]
    place = np.minimum(np.searchsorted(known, ids), max(len(known) - 1, 0))
    if len(known) == 0:
        return torch.zeros(len(ids), dtype=torch.int64)
    return torch.from_numpy(np.where(known[place] == ids, quantile[place], 0))
