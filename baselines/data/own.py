"""Bring your own data: CSV, TSV, Parquet or libsvm, columns named by parameters or a TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from baselines.base import Dataset, dataset
from baselines.data.events import Events
from baselines.data.sources import local_folder
from baselines.data.table_events import table_events
from baselines.data.tables import opened
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
    names, empty where there is none. categorical, numeric: further columns of the click model.
    sequence: a column of the items that the user took before the row, oldest first: lists, or text
    with '|' between the ids, or commas where the column has no '|', or spaces where it has neither.
    `ctr` takes it in place of the user's earlier rows and then needs no times; retrieval and
    sequences ignore it.

    Ids and categories may be words or numbers of any size; in CSV and TSV they are what stands
    there, so that 12, 012 and 12.0 are three. Times are whole numbers of any sign, whose fractions
    are dropped, or dates. Missing categories are 0, missing numbers the mean, missing histories
    empty, and an item of a history that no training row has is 0; a missing user, item, label or
    time is an error. Repeated rows all count as impressions and in sequences, and once as
    interactions. Users with one event only train, and have no sequence.
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
        words = [self.user, self.item, *self.categorical, self.sequence, self.text]
        with opened(path, [name for name in words if name]) as (table, parts):
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
