"""Events: what every source reads, before filters and split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Events:
    """n events, column-wise, in the publisher's order.

    users, items: int32 or int64 [n], codes from 0 without gaps. ratings: float32 [n], a rating or
    a label. times: int64 [n], seconds since 1970, or any whole number that rises with time.
    categories: name → int32 or int64 [n], codes from 0, −1 where missing. of_items: the same by
    item code, for what a row has from its item alone. numbers: name → float32 [n]. segments: name →
    int64 [n], what test rows are also judged by. texts: what is said of each item, by item code.
    roles: which of users and items the data names; the other is 0 throughout. parts: int8 [n], the
    publisher's own split (0 train, 1 valid, 2 test). source: the data set and what was done to it
    so far, in words.
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
    texts: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("user", "item")
    parts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)
