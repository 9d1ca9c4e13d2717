"""A run's effects as numbers for other programs: CSV, a spreadsheet, Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

import pandas as pd
import polars as pl
import xlsxwriter

from bench.effects import Effect
from bench.run import Run
from bench.verdicts import QUALITY_MARGINS
from reports import tables
from reports.pages import Report, Table

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SHEET_NAME = 31  # characters that Excel allows
_FORBIDDEN = str.maketrans(dict.fromkeys("[]:*?/\\'", " "))


def as_csv(run: Run) -> str:
    """One line an effect."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(Effect.model_fields), lineterminator="\n")
    writer.writeheader()
    for row in tables.records(run):
        writer.writerow({key: _csv_cell(value) for key, value in row.items()})
    return file.getvalue()


def frame_csv(frame: pd.DataFrame) -> str:
    """A frame of text as CSV."""
    cells = frame.rename(columns=str).map(_csv_cell)
    text: str = cells.to_csv(index=False)
    return text


def as_parquet(run: Run) -> bytes:
    """One row an effect; null where there is no number. A column for each named margin."""
    rows = _flat(tables.records(run))
    columns = {name: pl.Series([row[name] for row in rows], dtype=_kind(name)) for name in _names()}
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file)
    return file.getvalue()


def as_xlsx(run: Run, report: Report) -> bytes:
    """A sheet of effects as numbers, then one for each section of the report that has tables.

    Texts are written as texts: none is taken for a formula or a link.
    """
    file = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(file, options) as book:
        bold = book.add_format({"bold": True})
        rows = _flat(tables.records(run))
        sheet = book.add_worksheet("Numbers")
        _fill(sheet, 0, _names(), ([row[name] for name in _names()] for row in rows), bold)
        sheet.freeze_panes(1, 2)
        for section in report.sections:
            found = [block.frame for block in section.blocks if isinstance(block, Table)]
            if found:
                title = section.title.translate(_FORBIDDEN)[:_SHEET_NAME]
                _section(book.add_worksheet(title), found, bold)
    return file.getvalue()


def _section(sheet: Any, frames: list[pd.DataFrame], bold: Any) -> None:
    line = 0
    for frame in frames:
        values = frame.astype(str).itertuples(index=False, name=None)
        line = 1 + _fill(sheet, line, [str(c) for c in frame.columns], values, bold)


def _fill(
    sheet: Any, line: int, names: list[str], rows: Iterable[Iterable[Any]], bold: Any
) -> int:  # fmt: skip
    """Write a table from `line` on; the line below it."""
    sheet.write_row(line, 0, names, bold)
    for row in rows:
        line += 1
        for column, value in enumerate(row):
            if isinstance(value, str):
                sheet.write_string(line, column, value)
            elif value is not None:
                sheet.write(line, column, value)
    return line + 1


def _names() -> list[str]:
    """The columns: an effect's fields, with one for each named margin."""
    fields = [name for name in Effect.model_fields if name != "margins"]
    return [*fields, *(f"margin {name}" for name in QUALITY_MARGINS)]


def _flat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key != "margins"}
        | {f"margin {name}": row["margins"].get(name) for name in QUALITY_MARGINS}
        for row in rows
    ]


def _kind(name: str) -> type[pl.DataType]:
    annotation = Effect.model_fields[name].annotation if name in Effect.model_fields else str
    known: dict[Any, type[pl.DataType]] = {
        float: pl.Float64,
        float | None: pl.Float64,
        int: pl.Int64,
        bool: pl.Boolean,
    }
    return known.get(annotation, pl.String)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, dict):
        value = "; ".join(f"{name}={verdict}" for name, verdict in value.items())
    # A spreadsheet would run such a text as a formula; the apostrophe makes it text.
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
