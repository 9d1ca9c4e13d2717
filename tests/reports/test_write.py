"""Report files: formats, hostile names, and what cannot be written."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape
from pathlib import Path

import openpyxl
import pandas as pd
import polars as pl
import pytest
from hostile_run import HOSTILE, write_hostile_run
from matplotlib.figure import Figure
from pypdf import PdfReader
from readers import html_parts, read_html, read_markdown
from synthetic_run import TRUTHS, Truth, write_run
from synthetic_serving import SERVING

from baselines.errors import LeanRecError
from bench.records import EventRow
from bench.run import Run
from reports import markdown_page, pages, pdf_page
from reports.write import FORMATS, write

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # the figures' font has no CJK


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run all of whose names, warnings and remarks are hostile, with its report."""
    run = Run.load(write_hostile_run(tmp_path_factory.mktemp("hostile")))
    out = tmp_path_factory.mktemp("out")
    write(run, list(FORMATS), out)
    return out


def test_html_of_hostile_names_holds_no_foreign_tag(hostile: Path) -> None:
    tags, attributes = html_parts((hostile / "report.html").read_text())
    assert not {"script", "iframe", "object", "link"} & set(tags)
    assert not [name for name, _ in attributes if name.startswith("on")]
    sources = [value for name, value in attributes if name in ("src", "href")]
    assert sources
    assert all(value.startswith("data:image/svg+xml;base64,") for value in sources)


def test_hostile_names_read_back_as_themselves(hostile: Path) -> None:
    for name, read in (("html", read_html), ("md", read_markdown)):
        matrix = next(
            t for t in read((hostile / f"report.{name}").read_text()) if t.heading == "Verdicts"
        )
        assert [row["Stack"] for row in matrix.rows if row["Stack"] != "lora"] == HOSTILE


def test_markdown_of_hostile_names_holds_no_html(hostile: Path) -> None:
    text = (hostile / "report.md").read_text()
    assert not set(re.findall(r"<[^>]*>", text)) - {"<br>"}
    assert all(
        unescape(image).startswith("figures/") for image in re.findall(r"!\[.*?\]\((.*?)\)", text)
    )


def test_figures_of_hostile_names_hold_no_script(hostile: Path) -> None:
    figures = list((hostile / "figures").glob("*.svg"))
    assert figures
    assert not any("<script" in figure.read_text() for figure in figures)


def test_csv_runs_no_formula(tmp_path: Path) -> None:
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"]
    truths = {name: Truth() for name in names}
    write(Run.load(write_run(tmp_path, truths, ["dcnv2"], processes=2)), ["csv"], tmp_path)
    with (tmp_path / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["stack"] for row in rows} == {f"'{name}" for name in names}
    assert any(float(row["effect"]) < 0 for row in rows)  # numbers keep their sign and are numbers


def test_a_spreadsheet_holds_texts_as_texts(hostile: Path) -> None:
    book = openpyxl.load_workbook(hostile / "report.xlsx")
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert "=HYPERLINK(1)" in {cell.value for cell in cells}
    assert not [cell for cell in cells if cell.data_type == "f" or cell.hyperlink]


def test_latex_of_hostile_names_holds_no_foreign_command(hostile: Path) -> None:
    text = (hostile / "report.tex").read_text()
    assert r"\$\textbackslash{}frac\{1\$ \$\{x\}" in text
    ours = {
        "textbackslash",
        "textquotedbl",
        "textless",
        "textgreater",
        "textbar",
        "textasciitilde",
        "textmu",
        "textasciicircum",
        "begin",
        "end",
        "caption",
        "label",
        "toprule",
        "midrule",
        "bottomrule",
        "textwidth",
        "times",
        "pm",
        "geq",
        "leq",
        "div",
        "to",
        "delta",
        "lambda",
    }
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= ours
    for row in re.findall(r"^(.*) \\\\$", text, re.MULTILINE):
        assert not re.search(r"(?<!\\)[%#~^_]", row), row
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_parquet_has_the_same_columns_where_nothing_was_measured(
    small_run: Path, tmp_path: Path
) -> None:
    empty = write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=0, finished=False)
    write(Run.load(small_run), ["parquet"], tmp_path / "full")
    write(Run.load(empty), ["parquet"], tmp_path / "none")
    full, none = (pl.read_parquet_schema(tmp_path / x / "report.parquet") for x in ("full", "none"))
    assert full == none


def test_json_is_strict_where_an_effect_has_no_number(tmp_path: Path) -> None:
    bad = EventRow(scenario="offline", name="leak", severity="failure", detail="it grows")
    run = Run.load(write_run(tmp_path, {"bad": Truth(events=(bad,))}, ["dcnv2"], processes=2))
    write(run, ["json"], tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    failed = [e for e in content["effects"] if e["verdict"] == "failed"]
    assert failed
    assert all(e["effect"] is None for e in failed)


def test_the_warnings_come_before_the_answer(hostile: Path) -> None:
    titles = re.findall(r"^## (.*)$", (hostile / "report.md").read_text(), re.MULTILINE)
    assert titles[:2] == ["Warnings", "The answer"]


def test_a_corrupt_record_is_a_warning_of_the_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"bf16": TRUTHS["bf16"]}, ["dcnv2"])
    record = sorted((folder / "records").glob("*.jsonl"))[0]
    record.write_text(record.read_text()[:500])
    (path,) = write(Run.load(folder), ["md"], tmp_path / "out")
    assert "is corrupt at line" in path.read_text()


def test_an_empty_run_has_a_report_that_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=0, finished=False)
    for path in write(Run.load(folder), list(FORMATS), tmp_path / "out"):
        assert path.stat().st_size > 0
    assert "there is no answer" in (tmp_path / "out" / "report.md").read_text()


def test_markdown_names_the_figures_beside_it(run: Run) -> None:
    report = pages.Report("t", (pages.Section("s", (pages.Picture(Figure, "what | it"),)),))
    text, pictures = markdown_page.page(report, "figures")
    assert list(pictures) == ["figure-1.svg"]
    assert "<svg" in pictures["figure-1.svg"]
    assert r"![what \| it](figures/figure-1.svg)" in text


def test_markdown_is_never_longer_than_a_comment() -> None:
    frame = pd.DataFrame({"Name": ["a_b"] * 10_000})
    sections = (
        pages.Section("First", (pages.Text("Said."), pages.Items((("", "fits"),)))),
        pages.Section("Large", (pages.Text("Opening."), pages.Table(frame), pages.Text("End."))),
        pages.Section("Drawn", (pages.Table(frame), pages.Picture(Figure, "not drawn"))),
        pages.Section("Last", (pages.Picture(Figure, "drawn"),)),
    )
    text, pictures = markdown_page.page(pages.Report("t", sections), "figures")
    assert len(text) <= markdown_page.LONGEST
    assert re.findall("^## (.*)$", text, re.MULTILINE) == ["First", "Large", "Drawn", "Last"]
    assert text.count("Left out here") == 2
    for shown in ("- fits", "Opening.", "![drawn](figures/figure-1.svg)"):
        assert shown in text
    for hidden in ("End.", "not drawn"):
        assert hidden not in text
    assert list(pictures) == ["figure-1.svg"]


def test_formats_are_written_once_in_the_order_asked(small_run: Path, tmp_path: Path) -> None:
    paths = write(Run.load(small_run), ["json", " CSV ", "json"], tmp_path)
    assert [path.name for path in paths] == ["report.json", "report.csv"]


@pytest.mark.parametrize("formats", [["md", "docx"], [], [" "]])
def test_an_unknown_format_names_the_known(
    small_run: Path, tmp_path: Path, formats: list[str]
) -> None:
    with pytest.raises(LeanRecError, match="md, html, pdf, tex, csv, xlsx, parquet, json"):
        write(Run.load(small_run), formats, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_a_clear_error(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LeanRecError, match="cannot be written"):
        write(Run.load(small_run), ["json"], tmp_path / "file")


def test_the_word_significant_is_never_printed(hostile: Path) -> None:
    assert "significant" not in (hostile / "report.md").read_text().lower()


def test_a_pdf_shows_every_part_of_every_figure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the library cannot draw, it leaves out with a warning."""
    folder = write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=3, more=SERVING)
    write(Run.load(folder), ["pdf"], tmp_path)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_a_heading_of_a_pdf_stands_over_its_picture(tmp_path: Path) -> None:
    tall = pages.Picture(lambda: Figure(figsize=(4, 40)), "as tall as ten pages")
    blocks = (pages.Text("Said."), pages.Heading("Drawn"), tall, pages.Text("End."))
    content = pdf_page.page(pages.Report("t", (pages.Section("First", blocks),)))
    texts = [p.extract_text() for p in PdfReader(io.BytesIO(content)).pages]
    assert ["Drawn" in text for text in texts[:2]] == [False, True]
