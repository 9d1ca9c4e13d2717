"""Events → what each user took in order, and what came next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from baselines.base import Dataset, Split
from baselines.data import segments as segment
from baselines.data.events import Events
from baselines.data.splits import TEST, TRAIN, VALID
from baselines.errors import LeanRecError

SHARES = (0.8, 0.1, 0.1)
LEAST = 3  # events that a user needs to be judged under leave-one-out


def sequence_dataset(
    events: Events,
    length: int,
    split: Literal["leave-one-out", "temporal"] = "leave-one-out",
    shares: Sequence[float] = SHARES,
    repeats: bool = False,
) -> Dataset:
    """Next-item rows, as `DataSource.sequences` says, of the events of each user in order of time.

    Events of a user at one time, or without times, keep the publisher's order. "leave-one-out":
    a user's last event is the test row and the one before it the valid row; users of fewer than
    three events are only trained on. "temporal": events up to the time by which `shares[0]` of all
    events have come are trained on, then come the valid and the test part; events of one time are
    never parted, and a user's first event, which nothing foretells, is no row. A valid or test
    history is all that the user did before, earlier rows of that part included.

    Train windows are cut from the user's last train event backwards and share one item, so that
    every train event but a user's first is a target once. repeats: as in Dataset.

    Raises LeanRecError for a length below 1, a temporal split of events without times, and where
    a part has no rows.
    """
    if length < 1:
        raise LeanRecError(
            f"A history of {length} items holds nothing.", "Nothing was split.", "Give at least 1."
        )
    keys = (events.users,) if events.times is None else (events.times, events.users)
    order = np.lexsort(keys)
    users, items = (ids[order].astype(np.int64) for ids in (events.users, events.items))
    sizes = np.bincount(users)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)[: len(users)] if len(users) else users
    place = np.arange(len(users)) - starts
    if split == "temporal":
        parts, words = _temporal(events, order, shares)
    else:
        left = sizes[users] - 1 - place
        judged = sizes[users] >= LEAST
        parts = np.where(judged & (left == 0), TEST, np.where(judged & (left == 1), VALID, TRAIN))
        words = (
            "Leave-one-out: each user's last event is the test row, the one before it the valid "
            f"row; users of fewer than {LEAST} events train only."
        )
    catalogue = int(items.max()) + 1 if len(items) else 0
    trained = np.bincount(users, parts == TRAIN, len(sizes)).astype(np.int64)[users]
    ends = (trained - 1 - place) % length == 0

    def rows(part: int) -> tuple[Split, np.ndarray]:
        wanted = (parts == part) & (place > 0)
        at = np.flatnonzero(wanted & ends if part == TRAIN else wanted)
        columns = at[:, None] - np.arange(length, 0, -1)
        real = columns >= starts[at, None]
        history = np.where(real, items[np.where(real, columns, 0)], catalogue)
        inputs = (torch.from_numpy(history),)
        user, item = torch.from_numpy(users[at]), torch.from_numpy(items[at])
        return Split(inputs, torch.ones(len(at)), user, item), at

    (train, _), (valid, _), (test, at) = map(rows, (TRAIN, VALID, TEST))
    for name, made in (("train", train), ("valid", valid), ("test", test)):
        if not len(made):
            raise LeanRecError(
                f"{events.name}: the {name} part has no user with an earlier event.",
                "Nothing can be learned or judged.",
                "Use more events, weaker filters or another split.",
            )
    is_trained = parts == TRAIN
    found = {
        "popularity": segment.popularity(items[is_trained], test.items.numpy()),
        "activity": segment.activity(users[is_trained], test.users.numpy()),
        **{name: torch.from_numpy(c[order][at]) for name, c in events.segments.items()},
    }
    listed = "history not removed" if repeats else "the user's earlier items removed"
    return Dataset(
        events.name, train, valid,
        Split(test.inputs, test.labels, test.users, test.items, found),
        fields={"item": catalogue},
        protocol=f"{events.source} {words} Histories of the last {length} items; full ranking, "
        f"{listed}, ties against the item.",
        texts=events.texts,
        repeats=repeats,
    )  # fmt: skip


def _temporal(events: Events, order: np.ndarray, shares: Sequence[float]) -> tuple[np.ndarray, str]:
    """The part of each event in `order`, and the split in words."""
    if events.times is None:
        raise LeanRecError(
            f"{events.name} has no times.",
            "It cannot be split by time.",
            "Name the column of times, or split leave-one-out.",
        )
    rising = np.sort(events.times)
    places = np.rint(np.cumsum(shares)[:2] * len(rising)).astype(np.int64)
    cuts = rising[np.clip(places - 1, 0, None)] if len(rising) else np.empty(0, np.int64)
    parts = np.searchsorted(cuts, events.times[order], side="left")
    ratio = ":".join(f"{10 * share:g}" for share in shares)
    return parts, f"Global split by time {ratio}."
