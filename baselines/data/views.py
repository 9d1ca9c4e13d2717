"""Events → data sets: filters, split, and what a click or retrieval model is given."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch

from baselines.base import Dataset, DataSource, Split
from baselines.data.columns import blocks, coded, counted, room
from baselines.data.events import Events, earlier
from baselines.data.filters import chosen, first_of_pairs, frequent, rows_of, said
from baselines.data.segments import with_segments
from baselines.data.splits import TEST, TRAIN, VALID, event_parts, pair_splits, parse_split
from baselines.errors import LeanRecError

PARTS = ("train", "valid", "test")
RANKING = (
    "full ranking over all items, train and valid items of the user removed, ties against the "
    "item; mean over users with a relevant item"
)


@dataclass(frozen=True)
class EventSource(DataSource):
    """A data set that is read as `Events`.

    split: as `parse_split` reads it; empty means random 8:1:1 for clicks, 75:25 within each item
    for retrieval (a twentieth of train is valid), leave-one-out for sequences. threshold: ratings
    of at least that are clicks. min_rating: lower ratings are no interactions in retrieval and
    sequences. min_user, min_item: users and items with fewer events are dropped, again and again
    until none is left (k-core).
    """

    split: str = ""
    threshold: float | None = None
    min_rating: float | None = None
    min_user: int = 0
    min_item: int = 0
    seed: int = 0

    @abstractmethod
    def events(self) -> Events:
        """Read the files. Raises LeanRecError where they are absent or cannot be used."""

    def ctr(self, history: int = 0) -> Dataset:
        """Every event is an impression, clicked where its rating reaches `threshold`."""
        events = self.events()
        events = self._core(events, np.ones(len(events), dtype=bool))
        return ctr_dataset(events, self.split or "random", self.threshold, history, self.seed)

    def retrieval(self) -> Dataset:
        """Every event that `min_rating` leaves is an interaction."""
        return retrieval_dataset(
            self._positives(distinct=True), self.split or "stratified", self.seed
        )

    def sequences(self, length: int) -> Dataset:
        """Every event that `min_rating` leaves, in order of time."""
        from baselines.data.sequences import sequence_dataset

        events = self._positives(distinct=False)
        kind, shares = parse_split(self.split or "leave-one-out")
        if kind == "leave-one-out":
            return sequence_dataset(events, length)
        if kind == "temporal":
            return sequence_dataset(events, length, "temporal", shares)
        raise LeanRecError(
            f"Sequences cannot be split {self.split!r}.",
            "A history would come from after its target.",
            "Use split='leave-one-out' or split='temporal'.",
        )

    def _positives(self, *, distinct: bool) -> Events:
        events = replace(self.events(), histories=None)
        if events.roles != ("user", "item"):
            raise LeanRecError(
                f"{events.name} names {' and '.join(events.roles) or 'neither users nor items'}.",
                "It bears clicks only.",
                "Use data with a user and an item column.",
            )
        if self.min_rating is None:
            keep = np.ones(len(events), dtype=bool)
        elif events.ratings is None:
            raise LeanRecError(
                f"{events.name} has no ratings.", "min_rating says nothing.", "Leave it out."
            )
        else:
            keep = events.ratings >= self.min_rating
        if distinct:
            keep = first_of_pairs(events, keep)
        events = self._core(events, keep)
        if self.min_rating is not None:
            events = said(events, f"Ratings below {self.min_rating:g} dropped. ")
        return events

    def _core(self, events: Events, among: np.ndarray) -> Events:
        least = self.min_user, self.min_item
        if max(least) <= 1:
            return chosen(events, among)
        events = chosen(events, frequent(events, *least, among))
        words = f"Users of ≥ {self.min_user} and items of ≥ {self.min_item} events (k-core). "
        return said(events, words)


def ctr_dataset(
    events: Events,
    split: str = "random",
    threshold: float | None = None,
    history: int = 0,
    seed: int = 0,
) -> Dataset:
    """Impressions with a label of 0 or 1: `DataSource.ctr` of `events`.

    Label: a rating of at least `threshold`, or the rating itself, which then must be 0 or 1. In
    each column of ids 0 is a value that no training row has, or a missing one. Numbers are
    standardised by the training rows; missing and infinite ones are 0, the mean. A random split
    keeps impressions equal in label, categories and numbers together, so that no test row is a copy
    of a training row. History: the last items of the row's own history, where the data have them,
    else of the user's events before the row's time, clicked or not; numbered as the item column is.
    Test rows of a temporal split are in the order of time.

    Raises LeanRecError for labels that are missing or not 0 or 1, a history that the data
    do not bear, and where a part lacks rows of either class.
    """
    labels, click = _labels(events, threshold)
    columns = {role: getattr(events, f"{role}s") for role in events.roles} | dict(events.categories)
    kind, _ = parse_split(split)
    numbers_as_bits = (column.view(np.int32) for column in events.numbers.values())
    groups = _groups([*columns.values(), labels, *numbers_as_bits]) if kind == "random" else None
    parts, words = event_parts(events, split, seed, groups)
    check_parts(parts, events.name, labels)
    times = events.times if kind == "temporal" else None
    trained = parts == TRAIN
    tables = {name: _numbering(column, trained) for name, column in columns.items()}
    if events.of_items:
        known = counted(events.items, int(events.items.max()) + 1, trained) > 0
        for name, column in events.of_items.items():
            columns[name], tables[name] = events.items, _numbering(column, known)[column]
    fields = {name: int(table.max()) + 1 for name, table in tables.items()}
    scales = [_scale(column, trained) for column in events.numbers.values()]
    before = None
    if history:
        before = events.histories or earlier(events)
        words += (
            f" The last {history} items of the row's own history."
            if events.histories
            else f" The user's last {history} items before the row."
        )

    def rows(part: int) -> Split:
        here = np.flatnonzero(parts == part)
        if times is not None and part == TEST:
            here = here[np.argsort(times[here], kind="stable")]
        ids = room((len(here), len(columns)), np.int64)
        numbers = room((len(here), len(scales)), np.float32)
        last = room((len(here), history), np.int64)
        for block in blocks(len(here)):
            some = here[block]
            for k, (name, column) in enumerate(columns.items()):
                ids[block, k] = tables[name][column[some]]
            for k, column in enumerate(events.numbers.values()):
                numbers[block, k] = _standardised(column[some], *scales[k])
            if before is not None:
                last[block] = before.last(some, history, tables["item"], fields["item"])
        filled = (ids, *((numbers,) if scales else ()), *((last,) if history else ()))
        user, item = (
            torch.from_numpy(c[here].astype(np.int64)) for c in (events.users, events.items)
        )
        inputs = tuple(map(torch.from_numpy, filled))
        declared = events.segments if part == TEST else {}
        found = {name: torch.from_numpy(column[here]) for name, column in declared.items()}
        return Split(inputs, torch.from_numpy(labels[here]), user, item, found)

    train, valid, test = map(rows, (TRAIN, VALID, TEST))
    return Dataset(
        events.name, train, valid, with_segments(test, train),
        fields=fields,
        numeric=tuple(events.numbers),
        texts=events.texts,
        protocol=f"{events.source} Click = {click}. {words}".strip(),
        ordered=times is not None,
    )  # fmt: skip


def retrieval_dataset(events: Events, split: str = "stratified", seed: int = 0) -> Dataset:
    """Positive interactions: `DataSource.retrieval` of `events`, whose pairs are distinct.

    Every item is a candidate; with cold items, those of the part judged, and items are numbered
    part by part, so that no negative drawn in training is a cold one. Users without a training row
    leave valid and test. A category that says the same in all events of a user, or of an item, is a
    feature of that user or item. Raises LeanRecError for an empty part.
    """
    parts, words = event_parts(events, split, seed)
    cold = split.startswith("cold-items")
    ranking = RANKING.replace("all items", "the part's own items") if cold else RANKING
    events = replace(events, ratings=None, times=None)  # long, and of no more use
    if cold:
        events = _part_by_part(events, parts)
    fields = {"user": int(events.users.max()) + 1, "item": int(events.items.max()) + 1}
    user_features = _features(events, events.users, fields["user"])
    item_features = _features(events, events.items, fields["item"])
    item_features |= {name: torch.from_numpy(c + 1) for name, c in events.of_items.items()}
    trained = counted(events.users, fields["user"], parts == TRAIN) > 0
    if not trained.all():
        known = trained[events.users]
        events, parts = rows_of(events, known), parts[known]
    check_parts(parts, events.name)
    pairs = [events.users, events.items]
    events = replace(events, users=np.empty(0, np.int32), items=np.empty(0, np.int32))
    train, valid, test = pair_splits(pairs, parts)
    declared = {n: torch.from_numpy(c[parts == TEST]) for n, c in events.segments.items()}
    return Dataset(
        events.name, train, valid, with_segments(replace(test, segments=declared), train),
        fields=fields,
        protocol=f"{events.source} {words}; {ranking}.".replace(".;", ";").strip(),
        texts=events.texts,
        user_features=user_features,
        item_features=item_features,
        cold=cold,
    )  # fmt: skip


def _features(events: Events, ids: np.ndarray, size: int) -> dict[str, torch.Tensor]:
    """The categories that each of `ids`, 0…size−1, determines: int64 [size], 0 where missing."""
    found = {}
    for name, column in events.categories.items():
        value = np.full(size, -1, np.int64)
        value[ids] = column
        if value.max() > value.min() and (value[ids] == column).all():
            found[name] = torch.from_numpy(value + 1)
    return found


def _part_by_part(events: Events, parts: np.ndarray) -> Events:
    """The items of train numbered first, then those of valid; each item is in one part."""
    part = np.zeros(int(events.items.max()) + 1, dtype=np.int8)
    part[events.items] = parts
    order = np.argsort(part, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    texts = tuple(events.texts[item] for item in order) if events.texts else ()
    of_items = {name: column[order] for name, column in events.of_items.items()}
    return replace(events, items=place[events.items], of_items=of_items, texts=texts)


def check_parts(parts: np.ndarray, name: str, labels: np.ndarray | None = None) -> None:
    """Raises LeanRecError where a part has no rows, or `labels` of one class only."""
    for part in (TRAIN, VALID, TEST):
        rows = parts == part
        if not rows.any():
            what = "no rows"
        elif labels is not None and labels[rows].min() == labels[rows].max():
            what = f"labels of one class only ({labels[rows][0]:g})"
        else:
            continue
        raise LeanRecError(
            f"{name}: with {len(parts)} rows, the {PARTS[part]} part has {what}.",
            "Quality could not be judged.",
            "Give more rows" + (", of both classes." if labels is not None else "."),
        )


def _labels(events: Events, threshold: float | None) -> tuple[np.ndarray, str]:
    if events.ratings is None:
        raise LeanRecError(
            f"{events.name} has no ratings or labels.",
            "Nothing says what a click is.",
            "Use it for retrieval or sequences, or name the label column.",
        )
    values = events.ratings
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise LeanRecError(
            f"{events.name}: {len(bad)} of {len(values)} labels are missing or not finite, the "
            f"first in row {bad[0]}.",
            "Nothing was run.",
            "Drop those rows or mend their labels.",
        )
    if threshold is not None:
        return (values >= threshold).astype(np.float32), f"rating ≥ {threshold:g}"
    other = np.flatnonzero((values != 0) & (values != 1))
    if len(other):
        raise LeanRecError(
            f"{events.name}: the label holds {values[other[0]]:g}, which is neither 0 nor 1.",
            "Nothing was run.",
            "Give threshold=…: labels of at least that are clicks.",
        )
    return values.astype(np.float32), "label"


def _groups(columns: list[np.ndarray]) -> np.ndarray:
    """A number for each distinct row of `columns`, of whole numbers, in their order: int64 [n]."""
    groups = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values = column.astype(np.int64)
        values -= values.min()
        codes, known = coded(groups * (values.max() + 1) + values)
        groups = codes.astype(np.int64)
        if len(known) == len(groups):
            break
    return groups


def _numbering(codes: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """A table from a code to its id: values of training rows from 1; others, and −1, are 0."""
    seen = np.zeros(int(codes.max(initial=0)) + 2, dtype=bool)  # the last place is that of −1
    for rows in blocks(len(codes)):
        seen[codes[rows][trained[rows]]] = True
    seen[-1] = False
    return np.where(seen, np.cumsum(seen), 0)


def _scale(column: np.ndarray, trained: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the training rows' finite values; a deviation of 0 is 1."""
    base = column[trained]
    base = base[np.isfinite(base)].astype(np.float64)
    return (float(base.mean()), float(base.std()) or 1.0) if len(base) else (0.0, 1.0)


def _standardised(column: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    return np.where(np.isfinite(column), (column - mean) / deviation, 0).astype(np.float32)
