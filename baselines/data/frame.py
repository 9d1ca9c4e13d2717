"""Data frames → data sets: the user's own data, and the rows of every other source.

Ids of any kind (words, whole numbers of any size) become codes 0, 1, 2, …; the model sees codes.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from baselines.base import Dataset, Split
from baselines.data import segments as segment
from baselines.data.splits import TEST, TRAIN, VALID, deal, random_parts, stratified_parts
from baselines.errors import LeanRecError

PARTS = ("train", "valid", "test")
CTR_SHARES = (0.8, 0.1, 0.1)
RETRIEVAL_SHARES = (0.7125, 0.0375, 0.25)  # a twentieth of the training three quarters is valid


def from_frame(
    frame: pd.DataFrame,
    *,
    label: str,
    user: str,
    item: str,
    features: Sequence[str] = (),
    segments: Sequence[str] = (),
    name: str = "frame",
    threshold: float | None = None,
    seed: int = 0,
) -> Dataset:
    """A CTR data set from a frame with one impression a row; random 8:1:1 split.

    label: a column of 0 and 1, or of numbers of which those ≥ `threshold` are clicks. user, item,
    features: columns of categories, each distinct value its own; cut continuous columns into
    groups first. segments: columns whose values divide the test rows beside popularity and
    activity. inputs: (ids int64 [n, 2 + features],); in each column 0 is a value that no training
    row has or a missing feature.

    Repeated impressions (equal in label, user, item and features) are all kept, in the same part,
    so that no test row is a copy of a training row. Raises LeanRecError for missing or doubled
    columns, labels that are missing or not numbers, missing users or items, and for a split
    without rows of both classes in each part.
    """
    columns = list(dict.fromkeys([user, item, *features]))
    _check(frame, name, [label, *columns, *segments])
    _check_roles(name, label=label, user=user, item=item)
    if label in columns:
        raise LeanRecError(
            f"{name}: the label {label!r} is among the features.",
            "A model would read the answer off its input.",
            "Leave it out of features.",
        )
    labels = _labels(frame[label], name, threshold)
    users, items = (_codes(frame[column], name, required=True) for column in (user, item))
    others = [_codes(frame[column], name, required=False) for column in columns[2:]]
    raw = np.stack([users, items, *others], axis=1)
    groups = pd.DataFrame(raw).assign(label=labels).groupby([*range(raw.shape[1]), "label"])
    parts = random_parts(groups.ngroup().to_numpy(), CTR_SHARES, seed)
    _check_parts(parts, name, labels)
    train = parts == TRAIN
    encoded = [_encode(raw[:, k], train) for k in range(raw.shape[1])]
    inputs = (torch.from_numpy(np.stack([codes for codes, _ in encoded], axis=1)),)
    grouping, legend = _segments(frame, segments, users, items, parts)
    rows = Split(
        inputs,
        torch.from_numpy(labels).float(),
        torch.from_numpy(users),
        torch.from_numpy(items),
        grouping,
    )
    click = f"{label} ≥ {threshold:g}" if threshold is not None else label
    return Dataset(
        name, *deal(rows, parts),
        fields=dict(zip(columns, (size for _, size in encoded), strict=True)),
        protocol=f"Click = {click}; no filter; random split 8:1:1, seed {seed}, "
        f"repeated impressions together.{legend}",
    )  # fmt: skip


def interactions_from_frame(
    frame: pd.DataFrame,
    *,
    user: str,
    item: str,
    segments: Sequence[str] = (),
    name: str = "frame",
    seed: int = 0,
) -> Dataset:
    """A retrieval data set from a frame with one positive interaction a row.

    inputs: (users int64 [n], items int64 [n]), both from 0; `fields` calls them "user" and
    "item", and every item is a candidate. The split is random within each item, 75:25, and a
    twentieth of the training rows is valid; every item has a training row. A (user, item) pair
    that occurs again counts once, the first time. Users without a training row leave valid and
    test.

    Raises LeanRecError for missing or doubled columns, missing users or items, and an empty part.
    """
    _check(frame, name, [user, item, *segments])
    _check_roles(name, user=user, item=item)
    frame = frame.drop_duplicates([user, item], ignore_index=True)
    users, items = (_codes(frame[column], name, required=True) for column in (user, item))
    parts = stratified_parts(items, RETRIEVAL_SHARES, seed)
    known = np.isin(users, users[parts == TRAIN])
    frame, users, items, parts = frame[known], users[known], items[known], parts[known]
    _check_parts(parts, name)
    grouping, legend = _segments(frame, segments, users, items, parts)
    inputs = (torch.from_numpy(users), torch.from_numpy(items))
    rows = Split(inputs, torch.ones(len(users)), *inputs, grouping)
    return Dataset(
        name, *deal(rows, parts),
        fields={"user": int(users.max()) + 1, "item": int(items.max()) + 1},
        protocol="Split 75:25 stratified by item, a twentieth of train for validation, "
        f"seed {seed}; full ranking over all items, train and valid items of the user removed, "
        f"ties against the item; mean over users with a relevant item.{legend}",
    )  # fmt: skip


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file (UTF-8, with or without a byte-order mark) as a frame.

    Raises LeanRecError where it is missing, not UTF-8, or not a table.
    """
    try:
        return pd.read_csv(path, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # a parser's and a decoder's errors are ValueErrors
        raise LeanRecError(
            f"{path} cannot be read as a CSV table: {error}.",
            "Nothing was run.",
            "Give a UTF-8 file with comma-separated columns and a header line.",
        ) from error


def _check(frame: pd.DataFrame, name: str, wanted: list[str]) -> None:
    present = [str(column) for column in frame.columns]
    for column in wanted:
        if column not in frame.columns:
            near = difflib.get_close_matches(str(column), present, n=1, cutoff=0.5)
            raise LeanRecError(
                f"{name} has no column {column!r}.",
                "Nothing was run.",
                (f"Did you mean {near[0]!r}? " if near else "") + f"It has: {', '.join(present)}.",
            )
        if (frame.columns == column).sum() > 1:
            raise LeanRecError(
                f"{name} has several columns called {column!r}.",
                "Nothing was run.",
                "Rename them apart.",
            )
    if frame.empty:
        raise LeanRecError(f"{name} has no rows.", "Nothing was run.", "Give rows to learn from.")


def _check_roles(name: str, **roles: str) -> None:
    for (role, column), (other, taken) in itertools.combinations(roles.items(), 2):
        if column == taken:
            raise LeanRecError(
                f"{name}: column {column!r} is given as both {role} and {other}.",
                "Nothing was run.",
                "Name a column for each.",
            )


def _labels(column: pd.Series, name: str, threshold: float | None) -> np.ndarray:
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise LeanRecError(
            f"{name}: {len(bad)} of {len(values)} labels in {column.name!r} are missing or not "
            f"finite numbers, the first in row {bad[0]}: {column.iloc[bad[0]]!r}.",
            "Nothing was run.",
            "Drop those rows or mend their labels.",
        )
    if threshold is not None:
        return (values >= threshold).astype(np.float64)
    other = np.flatnonzero((values != 0) & (values != 1))
    if len(other):
        raise LeanRecError(
            f"{name}: the label {column.name!r} holds {values[other[0]]:g}, which is neither 0 "
            "nor 1.",
            "Nothing was run.",
            "Give threshold=…: labels of at least that are clicks.",
        )
    return values


def _codes(column: pd.Series, name: str, *, required: bool) -> np.ndarray:
    """The codes of a column's values, int64 [n], in order of appearance; −1 for a missing one."""
    try:
        codes, _ = pd.factorize(column)
    except TypeError as error:
        raise LeanRecError(
            f"{name}: column {column.name!r} holds values that are no categories: {error}.",
            "Nothing was run.",
            "Give words or numbers.",
        ) from error
    if required and (codes < 0).any():
        raise LeanRecError(
            f"{name}: {(codes < 0).sum()} rows have no {column.name!r}, the first is row "
            f"{(codes < 0).argmax()}.",
            "Nothing was run.",
            "Drop those rows.",
        )
    return codes.astype(np.int64)


def _encode(codes: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the values that train rows have from 1; all others, and missing ones, are 0."""
    known = np.unique(codes[train & (codes >= 0)])
    table = np.zeros(codes.max(initial=0) + 2, dtype=np.int64)  # the last place is that of −1
    table[known] = np.arange(1, len(known) + 1)
    return table[codes], len(known) + 1


def _check_parts(parts: np.ndarray, name: str, labels: np.ndarray | None = None) -> None:
    for part in (TRAIN, VALID, TEST):
        rows = parts == part
        if not rows.any():
            what = "no rows"
        elif labels is not None and len(np.unique(labels[rows])) < 2:
            what = f"labels of one class only ({labels[rows][0]:g})"
        else:
            continue
        raise LeanRecError(
            f"{name}: with {len(parts)} rows, the {PARTS[part]} part has {what}.",
            "Quality could not be judged.",
            "Give more rows" + (", of both classes." if labels is not None else "."),
        )


def _segments(
    frame: pd.DataFrame,
    columns: Sequence[str],
    users: np.ndarray,
    items: np.ndarray,
    parts: np.ndarray,
) -> tuple[dict[str, Tensor], str]:
    """Segments of the test rows, and a sentence on what their numbers stand for."""
    train, test = parts == TRAIN, parts == TEST
    found = {
        "popularity": segment.popularity(items[train], items[test]),
        "activity": segment.activity(users[train], users[test]),
    }
    legends = []
    for column in columns:
        numbers, meaning = segment.declared(frame[column])
        found[column] = numbers[test]
        if meaning:
            legends.append(f"{column} " + ", ".join(f"{k} = {v}" for k, v in meaning.items()))
    return found, f" Segments: {'; '.join(legends)}." if legends else ""
