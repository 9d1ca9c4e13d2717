"""How rows are dealt to the train, valid and test parts. A part is the number 0, 1 or 2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from baselines.base import Split
from baselines.data.columns import counted, over_blocks, picked
from baselines.data.events import Events
from baselines.errors import LeanRecError

TRAIN, VALID, TEST = 0, 1, 2
DEFAULT_SHARES = {
    "random": (0.8, 0.1, 0.1),
    "temporal": (0.8, 0.1, 0.1),
    "cold-items": (0.8, 0.1, 0.1),
    "stratified": (0.7125, 0.0375, 0.25),  # a twentieth of the training three quarters is valid
    "leave-one-out": (),
    "published": (),
}


def parse_split(split: str) -> tuple[str, tuple[float, ...]]:
    """The kind and the shares of a split written as a kind, shares, or both.

    "random 7:2:1" or "7:2:1"; "stratified" (random within each item); "temporal" (global, by
    time); "cold-items" (whole items at random); "leave-one-out"; "published". Raises LeanRecError
    for anything else.
    """
    kind, _, ratio = split.partition(" ")
    if ":" in kind:
        kind, ratio = "random", split
    shares = DEFAULT_SHARES.get(kind)
    if shares and ratio:
        try:
            numbers = [float(number) for number in ratio.split(":")]
        except ValueError:
            numbers = []
        sound = len(numbers) == 3 and min(numbers) > 0
        shares = tuple(number / sum(numbers) for number in numbers) if sound else None
    elif ratio:
        shares = None
    if shares is None:
        raise LeanRecError(
            f"{split!r} is no split.",
            "Nothing was run.",
            f"Write one of {', '.join(DEFAULT_SHARES)}; shares may follow, as in 'random 7:2:1'.",
        )
    return kind, shares


def event_parts(
    events: Events, split: str, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, str]:
    """The part of each event, int8 [n], and the split in words.

    groups: rows of one group stay together in a random split. Under "leave-one-out" a user's last
    event is test and the one before it valid, the later in the file among those of one time; users
    of fewer than three events only train. Under "temporal" events of one time are never parted.
    Raises LeanRecError where the data has no times or no published parts.
    """
    kind, shares = parse_split(split)
    ratio = ":".join(f"{10 * share:g}" for share in shares)
    if kind == "random":
        rows = np.arange(len(events)) if groups is None else groups
        return random_parts(rows, shares, seed), f"Random split {ratio}, seed {seed}" + (
            ", repeated impressions together." if groups is not None else "."
        )
    if kind == "stratified":
        parts = stratified_parts(events.items, shares, seed)
        if shares == DEFAULT_SHARES[kind]:
            return parts, (
                f"Split 75:25 stratified by item, a twentieth of train for validation, seed {seed}."
            )
        return parts, f"Split {ratio} stratified by item, seed {seed}."
    if kind == "cold-items":
        parts = random_parts(events.items, shares, seed)
        return parts, f"Whole items split {ratio} at random, seed {seed}."
    if kind == "published":
        if events.parts is None:
            raise LeanRecError(
                f"{events.name} comes without train, valid and test files.",
                "There is no published split.",
                f"Choose another: {', '.join(DEFAULT_SHARES)}.",
            )
        return events.parts, "The publisher's own train, valid and test parts."
    if kind == "leave-one-out":
        return _leave_one_out(events), (
            "Leave-one-out: each user's last event is test, the one before it valid; users of "
            "fewer than 3 events train only."
        )
    if events.times is None:
        raise LeanRecError(
            f"{events.name} has no times.",
            "It cannot be split by time.",
            "Name the column of times, or choose another split.",
        )
    places = np.maximum(np.rint(np.cumsum(shares)[:2] * len(events)).astype(np.int64) - 1, 0)
    cuts = np.partition(events.times, places)[places]
    parts = (events.times > cuts[0]).astype(np.int8) + (events.times > cuts[1])
    return parts.astype(np.int8), f"Global split by time {ratio}."


def _leave_one_out(events: Events) -> np.ndarray:
    sizes = counted(events.users, int(events.users.max(initial=-1)) + 1)
    parts = np.zeros(len(events), dtype=np.int8)
    for part in (TEST, VALID):
        last = _last(events, parts, len(sizes))
        parts[last[(sizes >= 3) & (last >= 0)]] = part
    return parts


def _last(events: Events, parts: np.ndarray, users: int) -> np.ndarray:
    """The row of each user's last event that is still in part 0, int64 [users]; −1 without one."""
    earliest = np.iinfo(np.int64).min
    latest = np.full(users, earliest)
    last = np.full(users, -1)

    def times(rows: slice) -> np.ndarray:
        time = np.arange(rows.start, rows.stop) if events.times is None else events.times[rows]
        return np.where(parts[rows] == TRAIN, time, earliest)

    def latest_of_runs(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """The users of consecutive rows of one user, and the latest time in each such run."""
        user = events.users[rows]
        starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
        return user[starts], np.maximum.reduceat(times(rows), starts)

    def late(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        found = (times(rows) == latest[events.users[rows]]) & (parts[rows] == TRAIN)
        return events.users[rows][found], np.flatnonzero(found) + rows.start

    for user, time in over_blocks(latest_of_runs, len(events)):
        np.maximum.at(latest, user, time)
    for user, row in over_blocks(late, len(events)):
        last[user] = row  # of a user's several rows numpy keeps the last
    return last


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


def pair_splits(pairs: list[np.ndarray], parts: np.ndarray) -> tuple[Split, Split, Split]:
    """The pairs (users[k], items[k]) of each part in their order, all positive, as int64.

    pairs: users and items; the list is emptied, so that the users can go before the items are
    copied.
    """

    def by_part(ids: np.ndarray) -> list[torch.Tensor]:
        return [torch.from_numpy(picked(ids, parts == part)) for part in (TRAIN, VALID, TEST)]

    users = by_part(pairs.pop(0))
    items = by_part(pairs.pop())
    train, valid, test = (
        Split((user, item), torch.ones(()).expand(len(user)), user, item)
        for user, item in zip(users, items, strict=True)
    )
    return train, valid, test


def _part_of(place: np.ndarray, size: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    parts = np.zeros(len(place), dtype=np.int8)
    for share in np.cumsum(shares)[:-1]:
        parts += place >= np.rint(np.round(share * size, 9))
    return parts
