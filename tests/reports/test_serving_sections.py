"""The pages of serving: what is drawn and written is what the records hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import Truth, write_run
from synthetic_serving import HITS, LINES, RATES, SERVING, SLA, STARTS, WAITS

from bench.records import AnyRow, TrialRow
from bench.run import Run
from reports import serving
from reports.contents import report
from reports.pages import Picture, Section, Table, Text
from reports.select import Selection


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    truths = {"control": Truth(), "bf16": Truth()}
    folder = tmp_path_factory.mktemp("serving")
    return Run.load(write_run(folder, truths, ["dcnv2"], processes=3, more=SERVING))


@pytest.fixture(scope="module")
def shown(run: Run) -> dict[str, Section]:
    return {section.title: section for section in serving.sections(run)}


def panels(section: Section, picture: int = 0) -> dict[str, list]:
    """Title of each panel → its lines, of one picture of a section."""
    found = [block for block in section.blocks if isinstance(block, Picture)][picture]
    figure = found.draw()
    return {ax.get_title(loc="left"): list(ax.get_lines()) for ax in figure.axes}


def cells(section: Section) -> list[str]:
    return [
        str(cell)
        for block in section.blocks
        if isinstance(block, Table)
        for row in block.frame.itertuples(index=False)
        for cell in row
    ]


def test_a_run_without_such_scenarios_says_what_to_add(tmp_path: Path) -> None:
    plain = Run.load(write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=2))
    sections = serving.sections(plain)
    assert len(sections) == len(SERVING)
    for section, scenario in zip(sections, SERVING, strict=True):
        (text,) = section.blocks
        assert isinstance(text, Text)
        assert f"no {scenario} scenario" in text.text
        assert f"--scenario {scenario}" in text.text
    assert not serving.sections(plain, only_planned=True)


def test_a_run_that_has_not_begun_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=0, more=SERVING)
    for section in serving.sections(Run.load(folder)):
        assert [block.text for block in section.blocks] == ["Nothing was measured yet."]


def test_probes_stand_at_their_rates_beside_the_sla(shown: dict[str, Section]) -> None:
    lines = panels(shown["Under load"])["bf16"]
    sla = [line for line in lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in sla] == [SLA * 1e3]
    drawn = {
        (round(line.get_xdata()[0]), line.get_markerfacecolor() != "white")  # filled: met
        for line in lines
        if line not in sla
    }
    assert drawn == {
        (round(rate * times), times <= 1) for rate in RATES.values() for times in (0.5, 1, 1.1)
    }


def test_percentiles_and_their_bounds_are_those_of_the_calls(shown: dict[str, Section]) -> None:
    whole = sum(WAITS["control"])
    assert f"{whole * 1e3 * 1.495:.3f} ms" in " ".join(cells(shown["Under load"]))  # p50
    lines = panels(shown["Under load"])["at 50 % of the control's rate"]
    drawn = [line.get_ydata()[0] for line in lines if len(line.get_xdata()) == 3]
    assert drawn == pytest.approx([sum(w) * 1e3 * 1.495 for w in WAITS.values()], rel=1e-3)


def test_time_in_the_queue_and_in_compute_stand_apart(run: Run, shown: dict[str, Section]) -> None:
    figure = [b for b in shown["Under load"].blocks if isinstance(b, Picture)][1].draw()
    (ax,) = figure.axes
    widths = [[patch.get_width() for patch in part] for part in ax.containers]
    assert widths[0] == pytest.approx([w[0] * 1e3 for w in WAITS.values()] * 2)
    assert widths[1] == pytest.approx([w[1] * 1e3 for w in WAITS.values()] * 2)


def test_hits_are_drawn_beside_the_optimum_and_written(shown: dict[str, Section]) -> None:
    drawn = panels(shown["Caches"])
    lines = [line for line in drawn["Hits by look-up"] if len(line.get_xdata()) == 3]
    hits, optimum = (list(line.get_ydata()) for line in lines)
    assert hits == pytest.approx([100 * rate for rate in HITS.values()])
    assert optimum == pytest.approx([100 * rate + 20 for rate in HITS.values()])
    assert "60.0% (80.0%)" in cells(shown["Caches"])
    assert "50.0% (70.0%)" in cells(shown["Caches"])  # by unique id
    assert [list(line.get_ydata()) for line in drawn["Latency"] if len(line.get_xdata()) == 3] == [
        pytest.approx([2.0] * 3)
    ]


def test_quality_over_the_stream_is_the_middle_of_the_processes(shown: dict[str, Section]) -> None:
    drawn = panels(shown["Fresh weights"])
    lines = [list(line.get_ydata()) for line in drawn["Quality"] if len(line.get_xdata()) == 2]
    assert lines == [pytest.approx([value + 0.01, value]) for value in LINES.values()]
    swaps = [line for line in drawn["Worst latency"] if list(line.get_xdata()) == [1.25]]
    assert [line.get_ydata()[0] for line in swaps] == [9.0] * 3  # one a process
    assert "Staleness" in drawn


def test_a_restart_is_drawn_part_by_part(shown: dict[str, Section]) -> None:
    figure = next(b for b in shown["Cold start"].blocks if isinstance(b, Picture)).draw()
    (ax,) = figure.axes
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    row = names.index("bf16: treatment")
    widths = [part[row].get_width() for part in ax.containers]
    assert widths == pytest.approx([2 * seconds for seconds in STARTS.values()])
    assert f"{2 * sum(STARTS.values()):.3f} s" in cells(shown["Cold start"])


def test_records_without_curves_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    def without(head: TrialRow) -> list[AnyRow]:
        return [row for row in SERVING["server"](head) if row.kind != "curve"]

    truths = {"bf16": Truth()}
    folder = write_run(tmp_path, truths, ["dcnv2"], processes=2, more={"server": without})
    section = next(s for s in serving.sections(Run.load(folder)) if s.title == "Under load")
    assert "bf16: no search recorded" in panels(section)


def test_an_sla_that_no_rate_met_leaves_no_percentiles(tmp_path: Path) -> None:
    def unmet(head):  # type: ignore[no-untyped-def]
        rows = [row for row in SERVING["server"](head) if not getattr(row, "point", None)]
        return [
            row.model_copy(update={"value": 0.0} if row.kind == "value" else {"y": (1.0,) * 3})
            for row in rows
        ]

    folder = write_run(tmp_path, {"bf16": Truth()}, ["dcnv2"], processes=2, more={"server": unmet})
    run = Run.load(folder)
    (section,) = serving.sections(run, only_planned=True)
    assert not [b for b in section.blocks if isinstance(b, Table) and b.frame.empty]
    lines = panels(section)["bf16"]
    assert {line.get_markerfacecolor() for line in lines if line.get_linestyle() == "None"} == {
        "white"
    }


def test_a_selection_leaves_the_rest_out(run: Run) -> None:
    part = Selection(scenarios=["server"]).of(run)
    titles = {s.title: len(s.blocks) for s in serving.sections(part)}
    assert titles["Under load"] > 1
    assert titles["Caches"] == titles["Cold start"] == 1
    for section in serving.sections(Selection(baselines=["nothing"]).of(run)):
        (text,) = section.blocks
        assert isinstance(text, Text)
        assert text.text.endswith("scenario is not selected.")


def test_a_scenario_that_was_skipped_says_why(run: Run) -> None:
    cells = [
        p.model_copy(update={"skip": "there is no cache"})
        for p in run.plan.cells
        if p.cell.scenario == "cache-phases"
    ]
    plan = run.plan.model_copy(update={"cells": tuple(cells)})
    told = {s.title: s.blocks for s in serving.sections(replace(run, plan=plan))}
    (text,) = told["Caches"]
    assert isinstance(text, Text)
    assert text.text == (
        "Every cell of cache-phases that is selected was skipped: there is no cache."
    )


def test_the_report_holds_them_where_they_were_planned(run: Run, small_run: Path) -> None:
    titles = {section.title for section in report(run).sections}
    assert {"Under load", "Caches", "Fresh weights", "Cold start"} <= titles
    assert "Under load" not in {s.title for s in report(Run.load(small_run)).sections}
