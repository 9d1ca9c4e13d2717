"""What `leanrec show` prints."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_run import Truth, write_run

from bench.run import Run
from reports.terminal import show, show_json

REQUIRED = {
    "baseline", "stack", "scenario", "device", "metric", "unit", "direction", "control",
    "treatment", "effect", "low", "high", "verdict", "n_processes", "n_blocks",
}  # fmt: skip


def printed(run: Run, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(run, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_show_prints_the_answer_the_matrix_the_effects_and_the_skipped(run: Run) -> None:
    text = printed(run)
    for part in ("dcnv2 × int8-linear", "3.10× faster (batch 4096)", "[3.0", "not for ctr"):
        assert part in text


def test_names_are_not_mark_up(tmp_path: Path) -> None:
    truths = {"[red]x[/red]": Truth(), "[/]": Truth()}
    text = printed(Run.load(write_run(tmp_path, truths, ["dcnv2"], processes=2)))
    assert "[red]x[/red]" in text
    assert "dcnv2 × [/]" in text


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_loses_no_number(run: Run, width: int) -> None:
    assert printed(run, width).replace("\n", "").count("…") == 0


def test_an_empty_run_is_shown(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=0, finished=False))
    assert "in progress" in printed(run)
    assert show_json(run) == []


def test_show_json_has_one_strict_object_for_each_effect(run: Run) -> None:
    found = json.loads(json.dumps(show_json(run), allow_nan=False))
    assert len(found) == len(run.effects)
    assert all(set(row) >= REQUIRED for row in found)
