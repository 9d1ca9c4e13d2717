"""Which events stay: k-core, distinct pairs, chosen rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from baselines.data.events import Events
from baselines.errors import LeanRecError


def core(events: Events, min_user: int, min_item: int) -> tuple[Events, str]:
    """The largest set of events in which each user and item has so many, and that in words."""
    if min_user <= 1 and min_item <= 1:
        return events, ""
    keep = np.ones(len(events), dtype=bool)
    while True:
        enough = keep.copy()
        for ids, least in ((events.users, min_user), (events.items, min_item)):
            enough &= np.bincount(ids, keep)[ids] >= least
        if (enough == keep).all():
            break
        keep = enough
    words = f"Users of ≥ {min_user} and items of ≥ {min_item} events (k-core). "
    return chosen(events, keep), words


def once(events: Events) -> Events:
    """The first event of each (user, item) pair."""
    pair = events.users * (int(events.items.max(initial=0)) + 1) + events.items
    if len(pair) < 2 or (pair[1:] > pair[:-1]).all():
        return events
    first = np.zeros(len(pair), dtype=bool)
    first[np.unique(pair, return_index=True)[1]] = True
    return events if first.all() else chosen(events, first)


def chosen(events: Events, keep: np.ndarray) -> Events:
    """The events where `keep` (bool [n]) holds; users and items numbered anew without gaps.

    Raises LeanRecError where none is left.
    """
    if not keep.any():
        raise LeanRecError(
            f"{events.name}: no event passes the filters.", "Nothing was run.", "Weaken them."
        )
    rows = rows_of(events, keep)
    users, items = (np.flatnonzero(np.bincount(ids)) for ids in (rows.users, rows.items))
    place = np.zeros(int(rows.items.max()) + 1, dtype=np.int64)
    place[items] = np.arange(len(items))
    texts = tuple(events.texts[item] for item in items.tolist()) if events.texts else ()
    return replace(
        rows, users=np.searchsorted(users, rows.users), items=place[rows.items], texts=texts
    )


def rows_of(events: Events, keep: np.ndarray) -> Events:
    """The events where `keep` (bool [n]) holds; users and items keep their numbers."""

    def of(column: np.ndarray | None) -> np.ndarray | None:
        return None if column is None else column[keep]

    def each(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: column[keep] for name, column in columns.items()}

    return replace(
        events, users=events.users[keep], items=events.items[keep], ratings=of(events.ratings),
        times=of(events.times), parts=of(events.parts), categories=each(events.categories),
        numbers=each(events.numbers), segments=each(events.segments),
    )  # fmt: skip
