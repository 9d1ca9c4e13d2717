"""Data frames → data sets: a user's own data.

Ids of any kind (words, whole numbers of any size) become codes 0, 1, 2, …; the model sees codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import polars as pl

from baselines.base import Dataset
from baselines.data import segments as segment
from baselines.data.events import Events
from baselines.data.filters import chosen, first_of_pairs
from baselines.data.table_events import check_columns, check_roles, table_events
from baselines.data.views import ctr_dataset, retrieval_dataset
from baselines.errors import LeanRecError


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
    events, legend = _events(frame, name, user, item, label, columns[2:], segments)
    data = ctr_dataset(events, threshold=threshold, seed=seed)
    fields = dict(zip(columns, data.fields.values(), strict=True))
    protocol = f"{data.protocol} Click by {label!r}.{legend}"
    return dataclasses.replace(data, fields=fields, protocol=protocol)


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
    events, legend = _events(frame, name, user, item, "", [], segments)
    distinct = first_of_pairs(events, np.ones(len(events), dtype=bool))
    data = retrieval_dataset(chosen(events, distinct), seed=seed)
    return dataclasses.replace(data, protocol=data.protocol + legend)


def _events(
    frame: pd.DataFrame, name: str, user: str, item: str, label: str,
    features: Sequence[str], segments: Sequence[str],
) -> tuple[Events, str]:  # fmt: skip
    """The frame's rows as events, and a sentence on what the numbers of its segments stand for."""
    wanted = [column for column in (user, item, label, *features, *segments) if column]
    check_columns(map(str, frame.columns), name, wanted)
    check_roles(name, user=user, item=item, label=label)
    for column in wanted:
        if (frame.columns == column).sum() > 1:
            raise LeanRecError(
                f"{name} has several columns called {column!r}.",
                "Nothing was run.",
                "Rename them apart.",
            )
    categories = {column: _codes(frame[column], name) for column in (user, item, *features)}
    labels = {label: _values(frame[label])} if label else {}
    events = table_events(
        pl.DataFrame({**categories, **labels}).lazy(), name, user, item, label, categorical=features
    )
    declared = {column: segment.declared(frame[column]) for column in segments}
    legends = [
        f"{column} " + ", ".join(f"{k} = {v}" for k, v in meaning.items())
        for column, (_, meaning) in declared.items()
        if meaning
    ]
    events = dataclasses.replace(
        events,
        source="",
        segments={column: numbers.numpy() for column, (numbers, _) in declared.items()},
    )
    return events, f" Segments: {'; '.join(legends)}." if legends else ""


def _codes(column: pd.Series, name: str) -> pl.Series:
    """A number for each distinct value, whatever its kind; null for a missing one."""
    try:
        codes, _ = pd.factorize(column)
    except TypeError as error:
        raise LeanRecError(
            f"{name}: column {column.name!r} holds values that are no categories: {error}.",
            "Nothing was run.",
            "Give words or numbers.",
        ) from error
    return pl.Series(codes).replace(-1, None)


def _values(column: pd.Series) -> pl.Series:
    """The values as they are; those of mixed kinds as polars reads a list of them."""
    return pl.Series(column.to_list() if column.dtype == object else column, strict=False)
