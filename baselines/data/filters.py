"""Which events stay: k-core, distinct pairs, chosen rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from baselines.data.columns import coded, counted
from baselines.data.events import Events
from baselines.errors import LeanRecError


def core(events: Events, min_user: int, min_item: int) -> Events:
    """The largest set of events in which each user and item has so many."""
    if min_user <= 1 and min_item <= 1:
        return events
    keep = np.ones(len(events), dtype=bool)
    while True:
        enough = keep.copy()
        for ids, least in ((events.users, min_user), (events.items, min_item)):
            enough &= counted(ids, int(ids.max(initial=-1)) + 1, keep)[ids] >= least
        if (enough == keep).all():
            break
        keep = enough
    words = f"Users of ≥ {min_user} and items of ≥ {min_item} events (k-core). "
    return said(chosen(events, keep), words)


def said(events: Events, words: str) -> Events:
    """The events, with `words` on what was done to them."""
    return replace(events, source=words + events.source)


def once(events: Events) -> Events:
    """The first event of each (user, item) pair."""
    users, items = events.users, events.items
    if ((users[1:] > users[:-1]) | (users[1:] == users[:-1]) & (items[1:] > items[:-1])).all():
        return events
    pair = users * (np.int64(items.max(initial=0)) + 1) + items
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
    users, _ = coded(rows.users)
    items, known = coded(rows.items)
    texts = tuple(events.texts[item] for item in known.tolist()) if events.texts else ()
    of_items = {name: column[known] for name, column in events.of_items.items()}
    histories = rows.histories
    if histories is not None:
        place = np.full(int(known[-1]) + 2, -1, np.int32)  # the last place is that of −1
        place[known] = np.arange(len(known))
        values = place[np.minimum(histories.values, len(place) - 1)]
        histories = replace(histories, values=values)
    return replace(
        rows, users=users, items=items, of_items=of_items, histories=histories, texts=texts
    )


def rows_of(events: Events, keep: np.ndarray) -> Events:
    """The events where `keep` (bool [n]) holds; users and items keep their numbers."""

    def of(column: np.ndarray | None) -> np.ndarray | None:
        return None if column is None else column[keep]

    def each(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: column[keep] for name, column in columns.items()}

    histories = events.histories
    if histories is not None:
        histories = replace(histories, starts=histories.starts[keep], ends=histories.ends[keep])
    return replace(
        events, users=events.users[keep], items=events.items[keep], ratings=of(events.ratings),
        times=of(events.times), parts=of(events.parts), categories=each(events.categories),
        numbers=each(events.numbers), segments=each(events.segments),
        histories=histories,
    )  # fmt: skip
