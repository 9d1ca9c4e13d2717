"""Bring your own data: CSV, TSV, Parquet or libsvm, columns named by parameters or a TOML file."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import TypeAdapter, ValidationError

from baselines.base import Dataset, dataset
from baselines.data.events import Events
from baselines.data.sources import local_folder
from baselines.data.tables import codes_of
from baselines.data.views import EventSource
from baselines.errors import LeanRecError

FORMS = (".csv", ".tsv", ".parquet", ".libsvm")
NAMES = ("train", "valid", "test")


@dataset("own")
@dataclass(frozen=True)
class Own(EventSource):
    """Your own table.

    path: a ``.csv``, ``.tsv`` (either also ``.gz``), ``.parquet`` or ``.libsvm`` file with a header
    (libsvm: columns label, field_0, field_1, …); a folder with train, valid and test files of one
    of these forms, which are then the published split; or a ``.toml`` file that holds these
    parameters. Relative paths start here or at LEANREC_DATA. user, item, label, time, text: column
    names, empty where there is none; ids may be words or whole numbers of any size. categorical,
    numeric: further columns of the click model. Times are whole numbers of any sign, or dates.
    Repeated rows all count as impressions, and once as interactions.
    """

    path: str = ""
    user: str = ""
    item: str = ""
    label: str = ""
    time: str = ""
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    text: str = ""

    def events(self) -> Events:
        """Read the table. Raises LeanRecError for columns that are missing or of the wrong kind."""
        path = _found(self.path)
        if path.suffix == ".toml":
            return _from_toml(path).events()
        frame, parts = read_parts(path)
        return frame_events(
            frame, path.name, self.user, self.item, self.label, self.time, self.categorical,
            self.numeric, self.text, parts,
        )  # fmt: skip

    def ctr(self, history: int = 0) -> Dataset:
        """Every row is an impression."""
        return super(Own, self._settled()).ctr(history)

    def retrieval(self) -> Dataset:
        """Every row that `min_rating` leaves is an interaction."""
        return super(Own, self._settled()).retrieval()

    def sequence(self, length: int) -> Dataset:
        """Every row that `min_rating` leaves, in order of time."""
        return super(Own, self._settled()).sequence(length)

    def _settled(self) -> Own:
        path = _found(self.path)
        return _from_toml(path) if path.suffix == ".toml" else self


def frame_events(
    frame: pl.DataFrame,
    name: str,
    user: str = "",
    item: str = "",
    label: str = "",
    time: str = "",
    categorical: Sequence[str] = (),
    numeric: Sequence[str] = (),
    text: str = "",
    parts: np.ndarray | None = None,
) -> Events:
    """The events of a table whose columns are named; empty where there is none.

    Raises LeanRecError for columns that are missing, missing users or items, and columns that
    should be numbers and are not.
    """
    wanted = [c for c in (user, item, label, time, *categorical, *numeric, text) if c]
    for column in wanted:
        if column not in frame.columns:
            near = difflib.get_close_matches(column, frame.columns, n=1, cutoff=0.5)
            raise LeanRecError(
                f"{name} has no column {column!r}.",
                "Nothing was run.",
                (f"Did you mean {near[0]!r}? " if near else "")
                + f"It has: {', '.join(frame.columns)}.",
            )
    if label and label in (user, item, *categorical, *numeric):
        raise LeanRecError(
            f"{name}: the label {label!r} is among the features.",
            "A model would read the answer off its input.",
            "Leave it out of the features.",
        )
    if not len(frame):
        raise LeanRecError(f"{name} has no rows.", "Nothing was run.", "Give rows to learn from.")
    ids = {}
    for role, column in (("user", user), ("item", item)):
        ids[role] = codes_of(frame[column])[0] if column else np.zeros(len(frame), np.int64)
        missing = ids[role] < 0
        if missing.any():
            raise LeanRecError(
                f"{name}: {missing.sum()} rows have no {column!r}, the first is row "
                f"{missing.argmax()}.",
                "Nothing was run.",
                "Drop those rows.",
            )
    texts: tuple[str, ...] = ()
    if text and item:
        first = np.unique(ids["item"], return_index=True)[1]
        texts = tuple(frame[text].cast(pl.String).fill_null("").gather(first).to_list())
    return Events(
        name, f"{name}.", ids["user"], ids["item"],
        _numbers(frame[label], name) if label else None,
        _times(frame[time], name) if time else None,
        categories={column: codes_of(frame[column])[0] for column in categorical},
        numbers={column: _numbers(frame[column], name) for column in numeric},
        texts=texts,
        parts=parts,
        roles=tuple(role for role, column in (("user", user), ("item", item)) if column),
    )  # fmt: skip


def read_parts(path: Path) -> tuple[pl.DataFrame, np.ndarray | None]:
    """A table, or the train, valid and test tables of a folder and the part of each row."""
    if not path.is_dir():
        return read_table(path), None
    for form in FORMS:
        files = [path / f"{name}{form}" for name in NAMES]
        if all(file.is_file() for file in files):
            frames = [read_table(file) for file in files]
            parts = np.repeat(np.arange(3, dtype=np.int8), [len(frame) for frame in frames])
            return pl.concat(frames, how="vertical_relaxed"), parts
    raise LeanRecError(
        f"{path} has no train, valid and test files.",
        "Nothing was run.",
        f"Name them {', '.join(NAMES)}, all with one ending of {', '.join(FORMS)}.",
    )


def read_table(path: Path) -> pl.DataFrame:
    """A CSV, TSV, Parquet or libsvm file, with or without ``.gz``, as a frame of columns.

    A byte-order mark and CRLF are no part of the values. Raises LeanRecError where it is missing
    or not such a table.
    """
    kind = next((s for s in path.suffixes[::-1] if s in FORMS), "")
    try:
        if kind == ".parquet":
            return pl.read_parquet(path)
        if kind in (".csv", ".tsv"):
            separator = "\t" if kind == ".tsv" else ","
            frame = pl.read_csv(path, separator=separator, infer_schema_length=10_000)
            return frame.rename({name: name.lstrip("\ufeff") for name in frame.columns})
        if kind == ".libsvm":
            frame = pl.read_csv(path, separator=" ", has_header=False, infer_schema=False)
            names = ["label", *(f"field_{k}" for k in range(frame.width - 1))]
            frame.columns = names
            index = pl.col(names[1:]).str.split(":").list.first().cast(pl.Int64)
            return frame.with_columns(index, pl.col("label").cast(pl.Float32))
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise LeanRecError(
            f"{path} cannot be read as a table: {str(error).splitlines()[0]}",
            "Nothing was run.",
            "Give a UTF-8 table with a header line and as many values in each line.",
        ) from error
    raise LeanRecError(
        f"{path} is of no known form.", "Nothing was run.", f"Use one of {', '.join(FORMS)}."
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
    if column.dtype == pl.String:
        with contextlib.suppress(pl.exceptions.ComputeError):  # no dates: whole numbers as words
            column = column.str.to_datetime(strict=False)
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).to_physical()
    times = column.cast(pl.Int64, strict=False)
    if times.null_count():
        row = int(times.is_null().to_numpy().argmax())
        raise LeanRecError(
            f"{name}: {column.name!r} should hold times; row {row} is {column[row]!r}.",
            "Nothing was run.",
            "Give whole numbers below 2⁶³, or dates as 2024-01-31.",
        )
    return times.to_numpy()
