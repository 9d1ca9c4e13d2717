"""How rows are dealt to the train, valid and test parts. A part is the number 0, 1 or 2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from baselines.base import Split

TRAIN, VALID, TEST = 0, 1, 2


def random_parts(groups: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """Deal whole groups at random: int8 [n], a part for each row.

    groups: int64 [n], 0…g−1; rows of one group go to one part. shares sum to 1 and hold over
    groups, to the nearest one.
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    place = np.empty(count, dtype=np.int64)
    place[np.random.default_rng(seed).permutation(count)] = np.arange(count)
    return _part_of(place, np.full(count, count), shares)[groups]


def stratified_parts(strata: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """Deal the rows of each stratum at random in the same shares: int8 [n], a part for each row.

    strata: int64 [n], 0…g−1. The cumulative shares of each stratum are rounded to whole rows,
    half to even, as `python_stratified_split` of the Recommenders library rounds them; with a
    first share above one half, every stratum has a row in part 0.
    """
    shuffled = np.random.default_rng(seed).permutation(len(strata))
    order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    sizes = np.bincount(strata)
    place = np.empty(len(strata), dtype=np.int64)
    place[order] = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return _part_of(place, sizes[strata], shares)


def deal(rows: Split, parts: np.ndarray) -> tuple[Split, Split, Split]:
    """The rows of each part in their order; the segments, which are of test rows, go with those."""

    def split(part: int) -> Split:
        chosen = torch.from_numpy(np.flatnonzero(parts == part))
        return Split(
            tuple(column[chosen] for column in rows.inputs),
            rows.labels[chosen],
            rows.users[chosen],
            rows.items[chosen],
            rows.segments if part == TEST else {},
        )

    return split(TRAIN), split(VALID), split(TEST)


def _part_of(place: np.ndarray, size: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    parts = np.zeros(len(place), dtype=np.int8)
    for share in np.cumsum(shares)[:-1]:
        parts += place >= np.rint(np.round(share * size, 9))
    return parts
