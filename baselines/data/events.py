"""Events: what every source reads, before filters and split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from baselines.errors import LeanRecError


@dataclass(frozen=True)
class Histories:
    """The items that came before each of n rows, by item code, oldest first.

    values: int32 or int64 [m], −1 for an item that no event has. starts, ends: int64 [n]; row k has
    values[starts[k]:ends[k]].
    """

    values: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def last(self, rows: np.ndarray, length: int, table: np.ndarray, pad: int) -> np.ndarray:
        """The last `length` items of each of `rows`, as `table` numbers them, left-padded.

        int64 [len(rows), length]. The last place of `table` is that of −1.
        """
        at = self.ends[rows, None] - np.arange(length, 0, -1)
        real = at >= self.starts[rows, None]
        ids = np.full(at.shape, pad)
        ids[real] = table[self.values[at[real]]]
        return ids


@dataclass(frozen=True)
class Events:
    """n events, column-wise, in the publisher's order.

    users, items: int32 or int64 [n], codes from 0 without gaps. ratings: float32 [n], a rating or
    a label. times: int64 [n], seconds since 1970, or any whole number that rises with time.
    categories: name → int32 or int64 [n], codes from 0, −1 where missing. of_items: the same by
    item code, for what a row has from its item alone. numbers: name → float32 [n]. segments: name →
    int64 [n], what test rows are also judged by. histories: what the data themselves say came
    before each row. texts: what is said of each item, by item code. roles: which of users and items
    the data names; the other is 0 throughout. parts: int8 [n], the publisher's own split (0 train,
    1 valid, 2 test). source: the data set and what was done to it so far, in words.
    """

    name: str
    source: str
    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray | None = None
    times: np.ndarray | None = None
    categories: Mapping[str, np.ndarray] = field(default_factory=dict)
    of_items: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    segments: Mapping[str, np.ndarray] = field(default_factory=dict)
    histories: Histories | None = None
    texts: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("user", "item")
    parts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)


def earlier(events: Events) -> Histories:
    """Before each row: the items of its user's events of an earlier time.

    Raises LeanRecError where the data do not name users and items, or have no times.
    """
    if events.roles != ("user", "item"):
        raise LeanRecError(
            f"{events.name} does not name both users and items.",
            "No user has a history.",
            "Leave the history out, or name both columns.",
        )
    if events.times is None:
        raise LeanRecError(
            f"{events.name} has no times.", "No user has a history.", "Name the column of times."
        )
    order = np.lexsort((events.times, events.users))
    users, times = events.users[order], events.times[order]
    place = np.arange(len(order))
    new_user = np.r_[True, users[1:] != users[:-1]]
    new_time = new_user | np.r_[True, times[1:] != times[:-1]]
    starts, ends = np.empty_like(place), np.empty_like(place)
    starts[order] = np.maximum.accumulate(np.where(new_user, place, 0))
    ends[order] = np.maximum.accumulate(np.where(new_time, place, 0))
    return Histories(events.items[order], starts, ends)
