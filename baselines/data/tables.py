"""Text and Parquet tables → numpy columns, by polars: no row touched by Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from baselines.data.columns import coded
from baselines.data.sources import local_folder
from baselines.errors import LeanRecError


def locate(name: str, path: str, files: Sequence[str], publisher: str) -> list[Path]:
    """The `files` in the folder `path`, or in the folder `name` below ``LEANREC_DATA``.

    Raises LeanRecError where they are not all there, naming the layout and the publisher.
    """
    root = Path(path).expanduser() if path else (local_folder() or Path()) / name
    found = [root / file for file in files]
    missing = [file.name for file in found if not file.is_file()]
    if missing:
        where = f"{root} has no {', '.join(missing)}" if root.is_dir() else f"no folder {root}"
        raise LeanRecError(
            f"{name} is not here: {where}.",
            "Nothing was run.",
            f"Set LEANREC_DATA to the folder above {name}/{files[0]}, or give path=…; the "
            f"publisher has it at {publisher}.",
        )
    return found


def read_csv(
    path: Path, schema: Mapping[str, pl.DataType | type[pl.DataType]]
) -> dict[str, np.ndarray]:
    """The columns of `schema` of a CSV file with a header and without quotes, each of its dtype.

    Raises LeanRecError where a column is missing or holds something else.
    """
    scan = pl.scan_csv(path, quote_char=None, schema_overrides=dict(schema)).select(list(schema))
    # A value takes two characters at least. Pages that nothing is written to take no memory.
    most = path.stat().st_size // (2 * len(schema)) + 1
    columns = {n: np.empty(most, pl.Series(dtype=t).to_numpy().dtype) for n, t in schema.items()}
    length = 0
    try:
        for batch in scan.collect_batches():
            if any(batch.null_count().row(0)):
                raise LeanRecError(
                    f"{path} has empty values.", "Nothing was run.", "Get it from the publisher."
                )
            for name, column in columns.items():
                column[length : length + len(batch)] = batch[name].to_numpy()
            length += len(batch)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LeanRecError(
            f"{path} is not of the publisher's layout: {str(error).splitlines()[0]}",
            "Nothing was run.",
            f"It should hold the columns {', '.join(schema)}, separated by commas.",
        ) from error
    if not length:
        raise LeanRecError(f"{path} has no rows.", "Nothing was run.", "Get it anew.")
    return {name: column[:length] for name, column in columns.items()}


def codes_of(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Codes int32 [n] of a column of any kind, −1 where missing, and the value of each, sorted."""
    if column.dtype.is_float():
        column = column.fill_nan(None)
    known = column.drop_nulls().unique().sort()
    if column.dtype.is_integer() and not column.null_count() and len(column):
        return coded(column.to_numpy())[0], known
    places = column.rank("dense").cast(pl.Int32) - 1
    return places.fill_null(-1).to_numpy(), known
