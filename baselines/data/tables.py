"""Text and Parquet tables → numpy columns, by polars: batch by batch, no row touched by Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from baselines.data.sources import local_folder
from baselines.errors import LeanRecError

BATCH = 1 << 20  # rows held as text
PRESENCE = 8  # a table of seen ids may be so many times as long as the column


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
    path: Path,
    schema: Mapping[str, pl.DataType | type[pl.DataType]],
    separator: str = ",",
    header: bool = True,
) -> dict[str, np.ndarray]:
    """The columns of `schema` of a CSV file without quotes, each of its dtype.

    Raises LeanRecError where a column is missing or holds something else.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in schema}
    scan = pl.scan_csv(
        path, separator=separator, has_header=header, quote_char=None,
        schema=None if header else dict(schema),
        schema_overrides=dict(schema) if header else None,
    ).select(list(schema))  # fmt: skip
    try:
        for batch in scan.collect_batches(chunk_size=BATCH):
            if any(batch.null_count().row(0)):
                raise LeanRecError(
                    f"{path} has empty values.", "Nothing was run.", "Get it from the publisher."
                )
            for name, parts in columns.items():
                parts.append(batch[name].to_numpy())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LeanRecError(
            f"{path} is not of the publisher's layout: {str(error).splitlines()[0]}",
            "Nothing was run.",
            f"It should hold the columns {', '.join(schema)}, separated by {separator!r}.",
        ) from error
    if not columns[next(iter(columns))]:
        raise LeanRecError(f"{path} has no rows.", "Nothing was run.", "Get it anew.")
    return {name: np.concatenate(columns.pop(name)) for name in schema}


def coded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes int64 [n] of whole numbers of any size, in rising order, and the value of each."""
    low, high = int(values.min()), int(values.max())
    if high - low > PRESENCE * len(values):
        known, codes = np.unique(values, return_inverse=True)
        return codes.astype(np.int64), known
    seen = np.zeros(high - low + 1, dtype=bool)
    seen[values - low] = True
    known = np.flatnonzero(seen)
    if len(known) == len(seen):
        return values.astype(np.int64) - low, known + low
    return (np.cumsum(seen) - 1)[values - low], known + low


def codes_of(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Codes int64 [n] of a column of any kind, −1 where missing, and the value of each, sorted."""
    if column.dtype.is_float():
        column = column.fill_nan(None)
    known = column.drop_nulls().unique().sort()
    if column.dtype.is_integer() and not column.null_count() and len(column):
        return coded(column.to_numpy())[0], known
    places = column.rank("dense").cast(pl.Int64) - 1
    return places.fill_null(-1).to_numpy(), known
