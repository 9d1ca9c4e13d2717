"""A run at a glance: marks that say what the verdicts say, exact numbers behind them."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_run import Truth, write_run

from bench.records import EventRow
from bench.run import Run
from reports.html_page import table
from reports.overview import foundations, glances, overview


def cell(run: Run, stack: str, baseline: str = "dcnv2") -> tuple[list[str], str]:
    found = overview(run)
    (place,) = found.marks.index[found.marks["Stack"] == stack]
    return found.marks[baseline][place].split("\n"), found.exact[baseline][place]


def test_marks_tell_each_truth_and_hover_the_numbers(run: Run) -> None:
    marks, exact = cell(run, "int8-linear")
    assert "▲ Throughput 3.10×" in marks
    assert {"▼ Latency 1.61×", "▲ Latency 3.40×"} <= set(marks)
    assert any(mark.startswith("= Quality") for mark in marks)
    assert "Throughput (batch=4096): faster, 3.10× [" in exact
    assert "▼ Quality −0.0210" in cell(run, "prune-structured", "two-tower")[0]


def test_what_is_skipped_says_why(run: Run) -> None:
    assert cell(run, "lora") == (["– skipped"], "skipped: is made for sequence, not for ctr")


def glance(run: Run, stack: str, baseline: str = "dcnv2") -> dict[str, str]:
    frame = glances(run)[baseline, "cpu"].set_index("Stack")
    return {str(name): str(text) for name, text in frame.loc[stack].items()}


def test_a_glance_tells_each_truth_by_mark_and_size(run: Run) -> None:
    found = glance(run, "int8-linear")
    assert found["Throughput"] == "▲ 3.10×"
    assert found["Latency"].split("\n") == ["▼ 1.61× (batch 1)", "▲ 3.40× (batch 512)"]
    assert (found["Quality"], found["Model size"]) == ("=", "▲ 1.31×")
    assert glance(run, "prune-structured", "two-tower")["Quality"] == "▼ −0.0210"


def test_a_glance_leaves_out_what_was_skipped_throughout(run: Run) -> None:
    assert "lora" not in set(glances(run)["dcnv2", "cpu"]["Stack"])


def test_a_glance_gives_the_undecided_as_times_better(tmp_path: Path) -> None:
    slower = 1 / 1.02  # by the margin itself
    truths = {"slower": Truth({1: slower, 512: slower, 4096: slower})}
    run = Run.load(write_run(tmp_path, truths, ["dcnv2"]))
    latency, throughput = (glance(run, "slower")[name] for name in ("Latency", "Throughput"))
    for text in (latency, throughput):
        mark, number = text.split()
        assert mark == "?"
        assert float(number.rstrip("×")) == pytest.approx(slower, abs=0.01)


@pytest.mark.parametrize(("processes", "mark"), [(0, "… Throughput"), (2, "✕ Throughput")])
def test_what_failed_and_what_is_to_come(tmp_path: Path, processes: int, mark: str) -> None:
    leak = EventRow(scenario="offline", name="memory_leak", severity="failure", detail="it grows")
    truths = {"leaky": Truth({4096: 2.0}, events=(leak,))}
    folder = write_run(tmp_path, truths, ["dcnv2"], processes=processes, finished=False)
    assert mark in cell(Run.load(folder), "leaky")[0]


def test_colour_and_title_follow_the_marks(run: Run) -> None:
    found = overview(run)
    shown = table(found.marks, found.exact)
    assert '<span class="good">▲ Throughput 3.10×</span>' in shown
    assert 'title="' in shown


def test_what_the_numbers_rest_on_holds_the_certificate(run: Run, tmp_path: Path) -> None:
    told = dict(foundations(run))
    assert told["Measured on"].startswith("A Processor With 2 Cores, 2 cores, torch 2.13.0")
    assert "called different in 0.5% [0.0%, 3.0%] of 200" in told["Certificate"]
    bare = write_run(tmp_path, {}, ["dcnv2"], processes=0, environment={})
    told = dict(foundations(Run.load(bare)))
    assert "no certificate" in told["Certificate"]
    assert told["Measured on"] == "a machine that is not recorded"
