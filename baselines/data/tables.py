"""Text and Parquet tables → numpy columns, by polars: no row touched by Python."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from baselines.data.columns import coded, in_turn
from baselines.data.sources import local_folder
from baselines.errors import LeanRecError

FORMS = (".csv", ".tsv", ".parquet", ".libsvm")
NAMES = ("train", "valid", "test")
WHOLE = r"^(0|-?[1-9][0-9]*)$"  # a word that says nothing but a whole number
PIECE = 1 << 22  # bytes of text parsed at once, which is all of it that lies in memory
LIMIT = 1 << 28  # bytes; longer text becomes a temporary Parquet file, whose columns come singly


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

    def parsed(piece: bytes) -> pl.DataFrame:
        scan = pl.scan_csv(piece, quote_char=None, schema_overrides=dict(schema))
        return scan.select(list(schema)).collect()

    # A value takes two characters at least. Pages that nothing is written to take no memory.
    most = path.stat().st_size // (2 * len(schema)) + 1
    columns = {n: np.empty(most, pl.Series(dtype=t).to_numpy().dtype) for n, t in schema.items()}
    length = 0
    try:
        for batch in in_turn(parsed, _pieces(path)):
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


def _pieces(path: Path) -> Iterator[bytes]:
    """The whole lines of a file in pieces of about `PIECE`, each below the header."""
    with path.open("rb") as file:
        header = next((line for line in file if line.strip(b"\r\n")), b"")
        text = None
        while text is None or len(text) == PIECE:
            text = file.read(PIECE)
            yield b"".join((header, text, file.readline()))


def codes_of(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Codes int32 [n] of a column of any kind, −1 where missing, and the value of each, sorted.

    Words that are all whole numbers of 64 bits, without zeros in front, count as those.
    """
    if column.dtype.is_float():
        column = column.fill_nan(None)
    known = column.drop_nulls().unique().sort()
    if column.dtype == pl.String and known.str.contains(WHOLE).all():
        numbers = known.cast(pl.Int64, strict=False)
        if not numbers.null_count():
            column, known = column.cast(pl.Int64), numbers.sort()
    if column.dtype.is_integer() and len(column):
        whole = column.cast(pl.Int64, strict=False)
        if not whole.null_count():
            return coded(whole.to_numpy())[0], known
    places = column.rank("dense").cast(pl.Int32) - 1
    return places.fill_null(-1).to_numpy(), known


@contextmanager
def opened(
    path: Path, words: Sequence[str] = ()
) -> Iterator[tuple[pl.LazyFrame, np.ndarray | None]]:
    """A table, or the train, valid and test tables of a folder and the part of each row, int8 [n].

    CSV, TSV, Parquet or libsvm; text also as ``.gz``. A byte-order mark and CRLF are no part of the
    values. words: columns of CSV and TSV to be read as they stand there; others that hold numbers
    only are numbers. Raises LeanRecError where a file is missing or not such a table.
    """
    with tempfile.TemporaryDirectory() as folder:
        if not path.is_dir():
            yield _scan(path, words, Path(folder, "table")), None
            return
        scans = [_scan(file, words, Path(folder, file.stem)) for file in _files(path)]
        with readable(path):
            sizes = [scan.select(pl.len()).collect().item() for scan in scans]
            joined = pl.concat(scans, how="vertical_relaxed")
            joined.collect_schema()
        yield joined, np.repeat(np.arange(3, dtype=np.int8), sizes)


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Whatever polars cannot read in `path`, a file or a data set's name, is a LeanRecError."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise LeanRecError(
            f"{path} cannot be read as a table: {str(error).splitlines()[0]}",
            "Nothing was run.",
            "Give a UTF-8 table with a header line, as many values in each line, and values of "
            "one kind in each column.",
        ) from error


def _files(folder: Path) -> list[Path]:
    for form in (form + zipped for form in FORMS for zipped in ("", ".gz")):
        files = [folder / f"{name}{form}" for name in NAMES]
        if all(file.is_file() for file in files):
            return files
    raise LeanRecError(
        f"{folder} has no train, valid and test files.",
        "Nothing was run.",
        f"Name them {', '.join(NAMES)}, all with one ending of {', '.join(FORMS)}.",
    )


def _scan(path: Path, words: Sequence[str], copy: Path) -> pl.LazyFrame:
    kind = next((suffix for suffix in path.suffixes[::-1] if suffix in FORMS), "")
    if not kind:
        raise LeanRecError(
            f"{path} is of no known form.", "Nothing was run.", f"Use one of {', '.join(FORMS)}."
        )
    with readable(path):
        if kind == ".parquet":
            scan = pl.scan_parquet(path)
            scan.collect_schema()
            return scan
        if kind == ".libsvm":
            scan = _libsvm(path)
        else:
            scan = _text(path, words, "\t" if kind == ".tsv" else ",")
        if path.stat().st_size <= LIMIT:
            return scan.collect().lazy()
        scan.sink_parquet(copy)
        return pl.scan_parquet(copy)


def _text(path: Path, words: Sequence[str], separator: str) -> pl.LazyFrame:
    kinds = dict.fromkeys(words, pl.String)
    scan = pl.scan_csv(
        path, separator=separator, infer_schema_length=10_000, schema_overrides=kinds
    )
    return scan.rename(lambda name: name.lstrip("\ufeff"))


def _libsvm(path: Path) -> pl.LazyFrame:
    scan = pl.scan_csv(path, separator=" ", has_header=False, infer_schema=False)
    width = len(scan.collect_schema())
    names = ["label", *(f"field_{k}" for k in range(width - 1))]
    index = pl.col(names[1:]).str.split(":").list.first().cast(pl.Int64)
    named = scan.rename(dict(zip(scan.collect_schema(), names, strict=True)))
    return named.with_columns(index, pl.col("label").cast(pl.Float32))
