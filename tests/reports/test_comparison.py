"""Runs beside each other: what changed, what was different, and ratios over time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import ENVIRONMENT, Truth, write_run

from bench.run import Run
from reports import comparison, html_page
from reports.pages import Heading, Picture, Section, Table, Text

SCRIPT = "<script>alert(1)</script>"


def made(folder: Path, speed: float = 2.0, stack: str = "bf16", **facts: Any) -> Run:
    truths = {"control": Truth(), stack: Truth({4096: speed})}
    environment = {**ENVIRONMENT, **facts}
    return Run.load(write_run(folder, truths, ["dcnv2"], environment=environment))


def section(sections: tuple[Section, ...], title: str) -> Section:
    return next(s for s in sections if s.title == title)


def text_of(*sections: Section) -> str:
    return "".join(html_page.block(b) for s in sections for b in s.blocks)


def test_what_is_worse_is_told_before_what_is_better(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b", 1.0)
    for pair, verdict in (((a, b), "worse"), ((b, a), "better")):
        found = section(comparison.sections(*pair, pair), "Changes")
        table = next(block for block in found.blocks if isinstance(block, Table))
        assert list(table.frame["Verdict"]) == [verdict]


def test_the_unchanged_and_the_incomparable_are_counted(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b", stack="other")
    found = section(comparison.sections(a, b, [a, b]), "Changes")
    frame = next(x.frame for x in found.blocks if isinstance(x, Table))
    assert set(frame["Why"]) == {"run A has no such effect", "run B has no such effect"}
    assert frame["For example"].str.contains("dcnv2 × ").all()


def test_only_what_is_different_is_told(tmp_path: Path) -> None:
    software = {**ENVIRONMENT["software"], "torch": "2.14.0"}
    a, b = made(tmp_path / "a"), made(tmp_path / "b", software=software)
    found = section(comparison.sections(a, b, [a, b]), "What was different")
    (table,) = found.blocks
    assert isinstance(table, Table)
    assert table.frame.to_numpy().tolist() == [["software", "torch", "2.13.0", "2.14.0"]]
    same = section(comparison.sections(a, a, [a]), "What was different")
    assert isinstance(same.blocks[0], Text)


def test_another_host_is_said(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b", host="other")
    assert "of different hosts" in text_of(comparison.sections(a, b, [a, b])[0])


def test_runs_are_ordered_by_their_start(tmp_path: Path) -> None:
    days = ("2025-01-08", "2025-01-01", "")
    runs = [made(tmp_path / str(n), started=day) for n, day in enumerate(days)]
    assert comparison.in_order(runs) == [runs[2], runs[1], runs[0]]


def test_an_effect_of_one_run_alone_has_no_course(tmp_path: Path) -> None:
    runs = [made(tmp_path / "a"), made(tmp_path / "b"), made(tmp_path / "c", stack="other")]
    found = section(comparison.sections(runs[0], runs[1], runs), "Over time")
    assert {b.text.split(", ")[0] for b in found.blocks if isinstance(b, Heading)} == {"dcnv2"}
    numbers = [b.frame for b in found.blocks if isinstance(b, Table) and b.folded]
    assert all((frame["Run 3"] == "–").any() for frame in numbers)
    alone = section(comparison.sections(runs[0], runs[2], runs[::2]), "Over time")
    assert not [b for b in alone.blocks if isinstance(b, Picture)]


def test_hostile_names_are_text(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / str(n), speed, SCRIPT, software={SCRIPT: SCRIPT + str(n)}, host=SCRIPT)
        for n, speed in enumerate((1.0, 2.0))
    ]
    shown = text_of(*comparison.sections(runs[0], runs[1], runs))
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


@pytest.mark.slow
def test_thousands_of_effects_are_compared_in_seconds(tmp_path: Path) -> None:
    truths = {f"technique-{n}": Truth({4096: 1 + n / 100}) for n in range(200)}
    runs = [Run.load(write_run(tmp_path / name, truths, ["a", "b"], processes=2)) for name in "ab"]
    assert sum(len(run.effects) for run in runs) > 10_000
    start = time.process_time()
    comparison.sections(runs[0], runs[1], runs)
    assert time.process_time() - start < 5
