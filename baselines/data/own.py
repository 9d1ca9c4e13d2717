"""Bring your own data: CSV, TSV, Parquet or libsvm, columns named by parameters or a TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from polars import selectors
from pydantic import TypeAdapter, ValidationError

from baselines.base import Dataset, dataset
from baselines.data.columns import room
from baselines.data.events import Events, Histories
from baselines.data.sources import local_folder
from baselines.data.tables import codes_of, opened, readable
from baselines.data.views import EventSource
from baselines.errors import LeanRecError


@dataset("own")
@dataclass(frozen=True)
class Own(EventSource):
    """Your own table.

    path: a ``.csv``, ``.tsv`` (either also ``.gz``), ``.parquet`` or ``.libsvm`` file with a header
    (libsvm: columns label, field_0, field_1, …); a folder with train, valid and test files of one
    of these forms, which are then the published split; or a ``.toml`` file that holds these
    parameters. Relative paths start here or at LEANREC_DATA. user, item, label, time, text: column
    names, empty where there is none; ids may be words or numbers of any size. categorical, numeric:
    further columns of the click model. sequence: a column of the items that the user took before
    the row, oldest first: lists, or text with '|' between the ids, or commas where the column has
    no '|', or spaces where it has neither. `ctr` takes it in place of the user's earlier rows and
    then needs no times; retrieval and sequences ignore it.

    Times are whole numbers of any sign, whose fractions are dropped, or dates. Missing categories
    are 0, missing numbers the mean, missing histories empty, and an item of a history that no
    training row has is 0; a missing user, item, label or time is an error. Repeated rows all count
    as impressions and in sequences, and once as interactions. Users with one event only train, and
    have no sequence.
    """

    path: str = ""
    user: str = ""
    item: str = ""
    label: str = ""
    time: str = ""
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    sequence: str = ""
    text: str = ""

    def events(self) -> Events:
        """Read the table. Raises LeanRecError for columns that are missing or of the wrong kind."""
        path = _found(self.path)
        if path.suffix == ".toml":
            return _from_toml(path).events()
        with opened(path) as (table, parts):
            return table_events(
                table, path.name, self.user, self.item, self.label, self.time, self.categorical,
                self.numeric, self.sequence, self.text, parts,
            )  # fmt: skip

    def ctr(self, history: int = 0) -> Dataset:
        """Every row is an impression."""
        return super(Own, self._settled()).ctr(history)

    def retrieval(self) -> Dataset:
        """Every row that `min_rating` leaves is an interaction."""
        return super(Own, self._settled()).retrieval()

    def sequences(self, length: int) -> Dataset:
        """Every row that `min_rating` leaves, in order of time."""
        return super(Own, self._settled()).sequences(length)

    def _settled(self) -> Own:
        path = _found(self.path)
        return _from_toml(path) if path.suffix == ".toml" else self


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
    _check_columns(schema, name, named, sequence)
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


def _check_columns(schema: pl.Schema, name: str, named: Sequence[str], sequence: str) -> None:
    for column in (*named, *filter(None, (sequence,))):
        if column not in schema:
            near = difflib.get_close_matches(column, schema, n=1, cutoff=0.5)
            raise LeanRecError(
                f"{name} has no column {column!r}.",
                "Nothing was run.",
                (f"Did you mean {near[0]!r}? " if near else "") + f"It has: {', '.join(schema)}.",
            )
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


def _found(path: str) -> Path:
    if not path:
        raise LeanRecError(
            "No path is given.", "Nothing was run.", 'Write own(path="clicks.csv", …).'
        )
    own = Path(path).expanduser()
    below = (local_folder() or Path()) / own
    for place in (own, below):
        if place.exists():
            return place
    raise LeanRecError(f"{path} does not exist.", "Nothing was run.", "Correct the path.")


def _from_toml(path: Path) -> Own:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LeanRecError(
            f"{path} is no TOML: {error}.", "Nothing was run.", "Mend it."
        ) from error
    table["path"] = str(path.parent / table.get("path", ""))
    if Path(table["path"]).suffix == ".toml":
        raise LeanRecError(f"{path} names a TOML file.", "Nothing was run.", "Name the table.")
    try:
        return TypeAdapter(Own).validate_python(table, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        raise LeanRecError(
            f"{path}: {'.'.join(map(str, first['loc']))!r}: {first['msg']}.",
            "Nothing was run.",
            f"Its keys are {', '.join(field.name for field in dataclasses.fields(Own))}.",
        ) from None


def _numbers(column: pl.Series, name: str) -> np.ndarray:
    values = column.cast(pl.Float32, strict=False)
    if values.null_count() > column.null_count():
        row = int((values.is_null() & column.is_not_null()).to_numpy().argmax())
        raise LeanRecError(
            f"{name}: {column.name!r} should hold numbers; row {row} is {column[row]!r}.",
            "Nothing was run.",
            "Mend it, or name it as categorical.",
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
    places = np.arange(len(known), dtype=np.int32)
    values = ids.replace_strict(known, places, default=-1, return_dtype=pl.Int32).to_numpy()
    if len(values) and values.max() < 0:
        raise LeanRecError(
            f"{name}: no id in {column.name!r} is that of an item of any row.",
            "Every history would be unknown.",
            "Give ids as those of the items, in lists or with spaces, commas or '|' between.",
        )
    return Histories(values, np.r_[0, ends[:-1]], ends)
