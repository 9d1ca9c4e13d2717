"""What `leanrec show` prints."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_run import Truth, write_run

from bench.compare import compare
from bench.run import Run
from reports.overview import GLANCE
from reports.terminal import changes_json, show, show_changes, show_differences, show_json

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
    for part in ("dcnv2 × int8-linear", "▲ 3.10×", "[3.0", "not for ctr"):
        assert part in text


def test_names_are_not_mark_up(tmp_path: Path) -> None:
    truths = {"[red]x[/red]": Truth(), "[/]": Truth()}
    text = printed(Run.load(write_run(tmp_path, truths, ["dcnv2"], processes=2)))
    assert "[red]x[/red]" in text
    assert "dcnv2 × [/]" in text


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_loses_no_number(run: Run, width: int) -> None:
    assert printed(run, width).replace("\n", "").count("…") == GLANCE.count("…")


def test_an_empty_run_is_shown(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=0, finished=False))
    assert "in progress" in printed(run)
    assert show_json(run) == []


def test_show_json_has_one_strict_object_for_each_effect(run: Run) -> None:
    found = json.loads(json.dumps(show_json(run), allow_nan=False))
    assert len(found) == len(run.effects)
    assert all(set(row) >= REQUIRED for row in found)


def test_a_comparison_prints_both_effects_and_the_change(tmp_path: Path) -> None:
    truths = ({"bf16": Truth({4096: 3.0})}, {"bf16": Truth({4096: 2.0})})
    a, b = (
        Run.load(write_run(tmp_path / str(i), truth, ["dcnv2"])) for i, truth in enumerate(truths)
    )
    changes = compare(a, b)
    console = Console(file=io.StringIO(), width=200)
    show_changes(changes, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    (line,) = (line for line in text.splitlines() if "throughput" in line)
    for part in ("batch=4096", "3.00×", "2.00×", "0.67× [0.6", "worse"):
        assert part in line
    found = json.loads(json.dumps(changes_json(changes), allow_nan=False))
    assert len(found) == len(changes)


def test_runs_of_different_hosts_are_said_to_be(tmp_path: Path) -> None:
    a, b = (
        Run.load(
            write_run(tmp_path / host, {"bf16": Truth()}, ["dcnv2"], environment={"host": host})
        )
        for host in ("one", "two")
    )
    console = Console(file=io.StringIO(), width=200)
    show_changes(compare(a, b), console)
    assert "different hosts" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_was_different_is_printed(tmp_path: Path) -> None:
    truths = {"bf16": Truth()}
    a, b = (
        Run.load(write_run(tmp_path / torch, truths, ["dcnv2"], processes=2, environment=facts))
        for torch in ("2.12", "2.13")
        for facts in ({"host": "same", "software": {"torch": torch}},)
    )
    console = Console(file=io.StringIO(), width=200)
    show_differences(a, b, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(part in text for part in ("torch", "2.12", "2.13"))
    assert "same" not in text
    alike = Console(file=io.StringIO())
    show_differences(a, a, alike)
    assert not alike.file.getvalue()  # type: ignore[attr-defined]


def test_nothing_to_compare_is_said() -> None:
    console = Console(file=io.StringIO())
    show_changes([], console)
    assert "Neither run has an effect" in console.file.getvalue()  # type: ignore[attr-defined]
