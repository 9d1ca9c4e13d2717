"""A run as report files."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from baselines.errors import LeanRecError
from bench.records import dump_json, write_atomically
from bench.run import Run
from reports import html_page, latex_page, markdown_page, numbers, pdf_page, tables
from reports.answer import answers
from reports.contents import report
from reports.pages import Report

Files = dict[str, str | bytes]  # path in the folder → content
_FIGURES = "figures"


def write(run: Run, formats: list[str], out: Path) -> list[Path]:
    """Write ``report.<format>`` in folder `out` for each format, and the figures of Markdown.

    Returns the paths of the reports. Raises LeanRecError for a format that is not known, before
    anything is written, and where `out` cannot be written.
    """
    wanted = list(dict.fromkeys(f.strip().lower() for f in formats if f.strip()))
    unknown = [f for f in wanted if f not in FORMATS]
    if unknown or not wanted:
        raise LeanRecError(
            f"Unknown report format {', '.join(map(repr, unknown)) or '(none given)'}.",
            "Nothing was written.",
            f"Known: {', '.join(FORMATS)}.",
        )
    paths = []
    made = cache(lambda: report(run))  # a report's figures are drawn once for all formats
    for name in wanted:
        for path, content in FORMATS[name](run, made).items():
            write_atomically(out / path, content)
        paths.append(out / f"report.{name}")
    return paths


def _html(_: Run, made: Callable[[], Report]) -> Files:
    return {"report.html": html_page.page(made())}


def _markdown(_: Run, made: Callable[[], Report]) -> Files:
    text, pictures = markdown_page.page(made(), _FIGURES)
    return {**{f"{_FIGURES}/{name}": svg for name, svg in pictures.items()}, "report.md": text}


def _csv(run: Run, _: Callable[[], Report]) -> Files:
    return {"report.csv": numbers.as_csv(run)}


def _parquet(run: Run, _: Callable[[], Report]) -> Files:
    return {"report.parquet": numbers.as_parquet(run)}


def _xlsx(run: Run, made: Callable[[], Report]) -> Files:
    return {"report.xlsx": numbers.as_xlsx(run, made())}


def _pdf(_: Run, made: Callable[[], Report]) -> Files:
    return {"report.pdf": pdf_page.page(made())}


def _latex(_: Run, made: Callable[[], Report]) -> Files:
    return {"report.tex": latex_page.page(made())}


def _json(run: Run, _: Callable[[], Report]) -> Files:
    content = {
        "suite": run.plan.suite,
        "warnings": run.warnings,
        "answers": [
            {"baseline": a.baseline, "stack": a.stack, "device": a.device, "outcome": a.outcome,
             "sentence": a.sentence} for a in answers(run)
        ],
        "effects": tables.records(run),
        "skipped": [p.model_dump() for p in run.plan.cells if p.skip],
        "protocol": run.plan.protocol.model_dump(mode="json"),
        "environment": run.environment,
    }  # fmt: skip
    return {"report.json": dump_json(content)}


FORMATS: dict[str, Callable[[Run, Callable[[], Report]], Files]] = {
    "md": _markdown,
    "html": _html,
    "pdf": _pdf,
    "tex": _latex,
    "csv": _csv,
    "xlsx": _xlsx,
    "parquet": _parquet,
    "json": _json,
}
