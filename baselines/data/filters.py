"""Which events stay: k-core, distinct pairs, chosen rows.

Filters are masks over the same columns, so that events are copied once, after the last of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from baselines.data.columns import coded, counted, over_blocks
from baselines.data.events import Events
from baselines.errors import LeanRecError


def frequent(events: Events, min_user: int, min_item: int, among: np.ndarray) -> np.ndarray:
    """bool [n]: the largest set of the events `among` (bool [n]) in which each user and item has so
    many."""
    keep = among
    while True:
        enough = keep.copy()
        for ids, least in ((events.users, min_user), (events.items, min_item)):
            if least > 1:
                enough &= counted(ids, int(ids.max(initial=-1)) + 1, keep)[ids] >= least
        if (enough == keep).all():
            return keep
        keep = enough


def first_of_pairs(events: Events, among: np.ndarray) -> np.ndarray:
    """bool [n]: the first of each (user, item) pair in the events `among` (bool [n])."""
    users, items = events.users, events.items

    def rising(rows: slice) -> bool:
        here = slice(max(rows.start - 1, 0), rows.stop)
        user, item = users[here], items[here]
        same_user = user[1:] == user[:-1]
        return bool(((user[1:] > user[:-1]) | same_user & (item[1:] > item[:-1])).all())

    if all(over_blocks(rising, len(events))):
        return among
    rows = np.flatnonzero(among)
    pair = users[rows] * (np.int64(items.max(initial=0)) + 1) + items[rows]
    first = np.zeros(len(events), dtype=bool)
    first[rows[np.unique(pair, return_index=True)[1]]] = True
    return first


def said(events: Events, words: str) -> Events:
    """The events, with `words` on what was done to them."""
    return replace(events, source=words + events.source)


def chosen(events: Events, keep: np.ndarray) -> Events:
    """The events where `keep` (bool [n]) holds; users and items numbered anew without gaps. Where
    all stay, they are the same.

    Raises LeanRecError where none is left.
    """
    if not keep.any():
        raise LeanRecError(
            f"{events.name}: no event passes the filters.", "Nothing was run.", "Weaken them."
        )
    if keep.all():
        return events
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
