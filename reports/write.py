"""A run as report files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from baselines.errors import LeanRecError
from bench.effects import Effect
from bench.records import dump_json, write_atomically
from bench.run import Run
from reports import html_page, markdown_page, tables
from reports.answer import answers
from reports.pages import Report, report

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
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
        for path, text in FORMATS[name](run, made).items():
            write_atomically(out / path, text)
        paths.append(out / f"report.{name}")
    return paths


def _html(_: Run, made: Callable[[], Report]) -> dict[str, str]:
    return {"report.html": html_page.page(made())}


def _markdown(_: Run, made: Callable[[], Report]) -> dict[str, str]:
    text, pictures = markdown_page.page(made(), _FIGURES)
    return {f"{_FIGURES}/{name}": svg for name, svg in pictures.items()} | {"report.md": text}


def _csv(run: Run, _: Callable[[], Report]) -> dict[str, str]:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(Effect.model_fields), lineterminator="\n")
    writer.writeheader()
    for row in tables.records(run):
        writer.writerow({key: _csv_cell(value) for key, value in row.items()})
    return {"report.csv": file.getvalue()}


def _csv_cell(value: Any) -> Any:
    if isinstance(value, dict):
        value = "; ".join(f"{name}={verdict}" for name, verdict in value.items())
    # A spreadsheet would run such a text as a formula; the apostrophe makes it text.
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _json(run: Run, _: Callable[[], Report]) -> dict[str, str]:
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


FORMATS: dict[str, Callable[[Run, Callable[[], Report]], dict[str, str]]] = {
    "md": _markdown,
    "html": _html,
    "csv": _csv,
    "json": _json,
}
