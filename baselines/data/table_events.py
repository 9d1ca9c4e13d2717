"""A table whose columns are named → events: one column at a time, each of its kind or refused."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress

import numpy as np
import polars as pl
from polars import selectors

from baselines.data.columns import room
from baselines.data.events import Events, Histories
from baselines.data.tables import codes_of, readable
from baselines.errors import LeanRecError


def table_events(
    table: pl.LazyFrame,
    name: str,
    user: str = "",
    item: str = "",
    label: str = "",
    time: str = "",
    categorical: Sequence[str] = (),
    numeric: Sequence[str] = (),
    sequence: str = "",
    text: str = "",
    parts: np.ndarray | None = None,
) -> Events:
    """The events of a table whose columns are named; empty where there is none.

    One column is held at a time. Raises LeanRecError for columns that are missing or of the wrong
    kind, missing users or items, and histories without items.
    """
    features = [column for column in (user, item, *categorical, *numeric) if column]
    named = [*features, *filter(None, (label, time, text))]
    with readable(name):
        schema = table.collect_schema()
        rows = table.select(pl.len()).collect().item()
    check_columns(schema, name, [*named, *filter(None, (sequence,))])
    _check_kinds(schema, name, named, sequence)
    check_roles(name, user=user, item=item, label=label)
    if label and label in (*features, sequence):
        raise LeanRecError(
            f"{name}: the label {label!r} is among the features.",
            "A model would read the answer off its input.",
            "Leave it out of the features.",
        )
    if sequence and not item:
        raise LeanRecError(
            f"{name}: the sequences {sequence!r} hold items, and no column of items is named.",
            "Nothing says which item is which.",
            "Name the column of items.",
        )
    for role, column in (("user", user), ("item", item)):
        if column and role in categorical and role != column:
            raise LeanRecError(
                f"{name}: a category is called {role!r}, as the field of {column!r} will be.",
                "One would take the place of the other.",
                f"Rename it, or name it as the column of {role}s.",
            )
    if not rows:
        raise LeanRecError(f"{name} has no rows.", "Nothing was run.", "Give rows to learn from.")

    def read(column: str) -> pl.Series:
        with readable(name):
            return table.select(selectors.by_name(column)).collect().to_series()

    def ids(column: str) -> tuple[np.ndarray, pl.Series]:
        if not column:
            return np.zeros(rows, np.int32), pl.Series(dtype=pl.Null)
        codes, known = codes_of(read(column))
        missing = codes < 0
        if missing.any():
            raise LeanRecError(
                f"{name}: {missing.sum()} rows have no {column!r}, the first is row "
                f"{missing.argmax()}.",
                "Nothing was run.",
                "Drop those rows.",
            )
        return codes, known

    users, _ = ids(user)
    items, known = ids(item)
    texts: tuple[str, ...] = ()
    if text and item:
        first = np.unique(items, return_index=True)[1]
        texts = tuple(read(text).cast(pl.String).fill_null("").gather(first).to_list())
    categories = room((len(categorical), rows), np.int32)
    for k, column in enumerate(categorical):
        categories[k] = codes_of(read(column))[0]
    numbers = room((len(numeric), rows), np.float32)
    for k, column in enumerate(numeric):
        numbers[k] = _numbers(read(column), name)
    return Events(
        name, f"{name}.", users, items,
        _numbers(read(label), name) if label else None,
        _times(read(time), name) if time else None,
        categories=dict(zip(categorical, categories, strict=True)),
        numbers=dict(zip(numeric, numbers, strict=True)),
        histories=_histories(read(sequence), known, name) if sequence else None,
        texts=texts,
        parts=parts,
        roles=tuple(role for role, column in (("user", user), ("item", item)) if column),
    )  # fmt: skip


def check_columns(present: Iterable[str], name: str, wanted: Sequence[str]) -> None:
    """Raises LeanRecError where one of the columns `wanted` is not `present`."""
    present = list(present)
    for column in wanted:
        if column not in present:
            near = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
            raise LeanRecError(
                f"{name} has no column {column!r}.",
                "Nothing was run.",
                (f"Did you mean {near[0]!r}? " if near else "") + f"It has: {', '.join(present)}.",
            )


def check_roles(name: str, **roles: str) -> None:
    """Raises LeanRecError where one column is given for two roles; "" is none."""
    named = [(role, column) for role, column in roles.items() if column]
    for (role, column), (other, taken) in itertools.combinations(named, 2):
        if column == taken:
            raise LeanRecError(
                f"{name}: column {column!r} is given as both {role} and {other}.",
                "Nothing was run.",
                "Name a column for each.",
            )


def _check_kinds(schema: pl.Schema, name: str, named: Sequence[str], sequence: str) -> None:
    kinds = [(column, schema[column]) for column in named]
    if sequence:
        kinds.append((sequence, getattr(schema[sequence], "inner", schema[sequence])))
    for column, kind in kinds:
        if kind.is_nested():
            raise LeanRecError(
                f"{name}: {column!r} holds {schema[column]}.",
                "Nothing was run.",
                "Give one word or number a row; a sequence may be a list of them.",
            )


def _numbers(column: pl.Series, name: str) -> np.ndarray:
    values = column.cast(pl.Float32, strict=False)
    if values.null_count() > column.null_count():
        row = int((values.is_null() & column.is_not_null()).to_numpy().argmax())
        raise LeanRecError(
            f"{name}: {column.name!r} should hold numbers; row {row} is {column[row]!r}.",
            "Nothing was run.",
            "Mend that row; words belong in a category.",
        )
    return values.fill_null(float("nan")).to_numpy()


def _times(column: pl.Series, name: str) -> np.ndarray:
    values = column
    if column.dtype == pl.String:
        with suppress(pl.exceptions.ComputeError):  # no dates: whole numbers as words
            values = column.str.to_datetime(strict=False)
    if isinstance(values.dtype, (pl.Date, pl.Datetime)):
        values = values.cast(pl.Datetime("us")).to_physical()
    times = values.cast(pl.Int64, strict=False)
    if times.null_count():
        row = int(times.is_null().to_numpy().argmax())
        raise LeanRecError(
            f"{name}: {column.name!r} should hold times; row {row} is {column[row]!r}.",
            "Nothing was run.",
            "Give whole numbers below 2⁶³, or dates as 2024-01-31.",
        )
    return times.to_numpy()


def _histories(column: pl.Series, known: pl.Series, name: str) -> Histories:
    """The histories in a column of lists or text, by the place of each item among the `known`."""
    if isinstance(column.dtype, pl.Array):
        lists = column.arr.to_list()
    elif isinstance(column.dtype, pl.List):
        lists = column
    else:
        words = column.cast(pl.String)
        mark = next((m for m in "|," if words.str.contains(m, literal=True).any()), " ")
        word = pl.element().str.strip_chars()
        lists = words.str.split(mark).list.eval(word.replace("", None))
    lists = lists.list.drop_nulls()
    ends = lists.list.len().fill_null(0).cast(pl.Int64).cum_sum().to_numpy()
    found = lists.explode().drop_nulls()
    ids = found.cast(known.dtype, strict=False)
    if ids.null_count():
        first = int(ids.is_null().to_numpy().argmax())
        raise LeanRecError(
            f"{name}: {column.name!r} should hold items; row "
            f"{np.searchsorted(ends, first, 'right')} has {found[first]!r}.",
            "Nothing was run.",
            "Give ids as those of the items, in lists or with spaces, commas or '|' between.",
        )
    if found.dtype == pl.String and known.dtype.is_integer():
        ids, known = found, known.cast(pl.String)  # 012 is not 12
    places = np.arange(len(known), dtype=np.int32)
    values = ids.replace_strict(known, places, default=-1, return_dtype=pl.Int32).to_numpy()
    if len(values) and values.max() < 0:
        raise LeanRecError(
            f"{name}: no id in {column.name!r} is that of an item of any row.",
            "Every history would be unknown.",
            "Give ids as those of the items, in lists or with spaces, commas or '|' between.",
        )
    return Histories(values, np.r_[0, ends[:-1]], ends)
