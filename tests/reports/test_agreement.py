"""The formats of a report agree: each number shown is the number recorded, to its last digit."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import openpyxl
import polars as pl
import pytest
from pypdf import PdfReader
from readers import ReadTable, read_html, read_markdown

from bench.run import Run
from reports import latex_page
from reports.write import FORMATS, write

UNITS = {
    "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9,
    "B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "samples/s": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def out(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    write(Run.load(small_run), list(FORMATS), folder)
    return folder


@pytest.fixture(scope="module")
def effects(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "report.json").read_text())["effects"]
    return found


def assert_shown(shown: str, value: float) -> None:
    """`shown` is `value`, rounded to the digits shown."""
    number, _, unit = shown.rstrip("×").partition(" ")
    number = number.replace(",", "").replace("−", "-")
    exact = Decimal(value) / Decimal(UNITS.get(unit, 1.0))
    step = Decimal(number).as_tuple().exponent
    assert isinstance(step, int)
    rounded = exact.quantize(Decimal(1).scaleb(step), ROUND_HALF_EVEN)
    assert Decimal(number) == rounded, f"{shown} is not {value}"


@pytest.mark.parametrize(("name", "read"), [("html", read_html), ("md", read_markdown)])
def test_every_effect_shown_is_the_effect_recorded(
    out: Path,
    effects: list[dict[str, Any]],
    name: str,
    read: Callable[[str], list[ReadTable]],
) -> None:
    tables = {t.heading: t.rows for t in read((out / f"report.{name}").read_text())}
    checked = 0
    for e in effects:
        if e["segment"]:
            continue
        stack = "control (A/A)" if e["stack"] == "control" else e["stack"]
        (row,) = (
            row
            for row in tables[f"{e['baseline']}, {e['scenario']}, {e['device']}"]
            if (row["Stack"], row["Metric"], row["Point"]) == (stack, e["metric"], e["point"])
        )
        assert_shown(row["Control"], e["control"])
        assert_shown(row["Treatment"], e["treatment"])
        value, _, bounds = row["Effect [interval]"].partition(" [")
        low, high = bounds.rstrip("]").split(", ")
        for shown, key in ((value, "effect"), (low, "low"), (high, "high")):
            assert_shown(shown, e[key])
        checked += 1
    assert checked == 16


@pytest.mark.parametrize(("name", "read"), [("html", read_html), ("md", read_markdown)])
def test_every_segment_shown_is_the_segment_recorded(
    out: Path,
    effects: list[dict[str, Any]],
    name: str,
    read: Callable[[str], list[ReadTable]],
) -> None:
    tables = {t.heading: t.rows for t in read((out / f"report.{name}").read_text())}
    segments = [e for e in effects if e["segment"] and e["stack"] != "control"]
    assert len(segments) == 12
    for e in segments:
        grouping, number = e["segment"].split("=")
        rows = tables[f"{e['baseline']} on {e['device']}: {e['metric']} by {grouping}"]
        (row,) = (row for row in rows if row["Stack"] == e["stack"])
        assert_shown(row[number].split(" ")[-1], e["effect"])


def test_csv_and_json_hold_the_same_numbers(out: Path, effects: list[dict[str, Any]]) -> None:
    with (out / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(effects)
    for row, e in zip(rows, effects, strict=True):
        for key in ("control", "treatment", "effect", "low", "high", "level", "margin"):
            assert float(row[key]) == e[key]
        for key in ("baseline", "stack", "scenario", "device", "metric", "unit", "verdict"):
            assert row[key] == e[key]


NUMBERS = ("control", "treatment", "effect", "low", "high", "level", "margin", "seed_spread")
TEXTS = ("baseline", "stack", "scenario", "device", "metric", "unit", "point", "segment", "verdict")


def test_a_spreadsheet_and_parquet_hold_the_same_numbers(
    out: Path, effects: list[dict[str, Any]]
) -> None:
    names, *lines = openpyxl.load_workbook(out / "report.xlsx")["Numbers"].values
    sheet = [dict(zip(names, line, strict=True)) for line in lines]
    parquet = pl.read_parquet(out / "report.parquet").to_dicts()
    for rows in (sheet, parquet):
        assert len(rows) == len(effects)
        for row, e in zip(rows, effects, strict=True):
            assert [row[key] for key in NUMBERS] == pytest.approx([e[key] for key in NUMBERS])
            assert [row[key] or "" for key in TEXTS] == [e[key] for key in TEXTS]
            assert {n: row[f"margin {n}"] for n in e["margins"]} == e["margins"]
    assert [row["effect"] for row in parquet] == [e["effect"] for e in effects]


def test_pdf_and_latex_show_what_html_shows(out: Path) -> None:
    pages = PdfReader(out / "report.pdf").pages
    pdf = "".join("".join(page.extract_text().split()) for page in pages)
    latex = (out / "report.tex").read_text()
    for table in read_html((out / "report.html").read_text()):
        for row in table.rows:
            for value in row.values():
                assert latex_page.plain(value.replace("\n", "; ")) in latex
                assert all("".join(line.split()) in pdf for line in value.split("\n"))


def test_html_and_markdown_hold_the_same_tables(out: Path) -> None:
    html = read_html((out / "report.html").read_text())
    markdown = read_markdown((out / "report.md").read_text())
    assert html == markdown
    assert len(html) > 8
