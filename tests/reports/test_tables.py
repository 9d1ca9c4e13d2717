"""The tables of a run: what they say of known truths, of failures and of runs in progress."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from synthetic_run import TRUTHS, Truth, write_run

from bench.records import EndRow, EventRow
from bench.run import Run
from reports import provenance, tables


def row(frame: pd.DataFrame, **wanted: str) -> dict[str, str]:
    for name, value in wanted.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return dict(frame.iloc[0])


def test_the_matrix_tells_each_truth(run: Run) -> None:
    matrix = tables.verdict_matrix(run)
    found = row(matrix, Baseline="dcnv2", Stack="int8-linear")
    assert found["Throughput"] == "3.10× faster (batch 4096)"
    assert found["Latency"].splitlines() == ["1.61× slower (batch 1)", "3.40× faster (batch 512)"]
    assert found["Model size"] == "1.31× smaller"
    assert found["Quality"].startswith("non-inferior −0.000")
    pruned = row(matrix, Baseline="two-tower", Stack="prune-structured")
    assert pruned["Quality"] == "inferior −0.0210"


def test_the_matrix_holds_every_planned_stack_by_baseline(run: Run) -> None:
    matrix = tables.verdict_matrix(run)
    assert list(matrix["Baseline"]) == ["dcnv2"] * 9 + ["two-tower"] * 8
    assert row(matrix, Stack="lora")["Throughput"] == "skipped"


def test_points_with_one_verdict_share_a_line(run: Run) -> None:
    found = row(tables.verdict_matrix(run), Baseline="dcnv2", Stack="prune-structured")
    assert found["Latency"] == "1.10 to 1.70× faster (batch 1, 512)"


def test_the_skipped_have_their_reason(run: Run) -> None:
    assert row(tables.skipped_table(run), Stack="lora")["Reason"] == (
        "is made for sequence, not for ctr"
    )


def test_every_effect_without_a_segment_stands_in_the_table(run: Run) -> None:
    assert len(tables.effects_table(run.effects)) == sum(not e.segment for e in run.effects)


def test_records_hold_every_effect_with_its_numbers(run: Run) -> None:
    found = tables.records(run)
    assert len(found) == len(run.effects)
    assert found[0]["effect"] == run.effects[0].effect


def test_a_loss_in_one_segment_is_seen(run: Run) -> None:
    frame = tables.segments_table(run.effects)
    found = row(frame, Baseline="dcnv2", Stack="prune-structured", Segment="popularity")
    assert found["0"] == "inferior −0.0630"
    assert found["1"] == "inferior −0.0210"
    assert row(frame, Baseline="dcnv2", Stack="compile", Segment="activity")["9"] == ""


def test_preparation_pays_off_after_its_extra_seconds_over_the_seconds_a_call_saves(
    run: Run,
) -> None:
    found = row(tables.preparation_table(run), Baseline="dcnv2", Stack="compile")
    calls, _, rest = found["Break-even calls"].splitlines()[0].partition(" ")
    effect = next(
        e
        for e in run.effects
        if (e.baseline, e.stack, e.metric, e.point) == ("dcnv2", "compile", "latency", "batch=1")
    )
    assert float(calls.replace(",", "")) == pytest.approx(
        12.0 / (effect.control - effect.treatment), rel=0.01
    )
    assert rest == "(batch 1)"


def test_preparation_pays_off_by_throughput_where_no_latency_was_measured(run: Run) -> None:
    found = row(tables.preparation_table(run), Baseline="dcnv2", Stack="compile")
    calls, _, rest = found["Break-even calls"].splitlines()[-1].partition(" ")
    effect = next(
        e
        for e in run.effects
        if (e.baseline, e.stack, e.metric) == ("dcnv2", "compile", "throughput")
    )
    saved = 4096 / effect.control - 4096 / effect.treatment
    assert float(calls.replace(",", "")) == pytest.approx(12.0 / saved, rel=0.01)
    assert rest == "(batch 4096)"


def test_preparation_without_any_load_has_no_break_even(run: Run) -> None:
    alone = replace(run)
    alone.__dict__["effects"] = [e for e in run.effects if e.metric == "preparation"]
    found = row(tables.preparation_table(alone), Baseline="dcnv2", Stack="compile")
    assert found["Break-even calls"] == "–"


def test_preparation_of_what_is_no_faster_never_pays_off(run: Run) -> None:
    found = row(tables.preparation_table(run), Baseline="dcnv2", Stack="prune-unstructured")
    assert found["Break-even calls"] == "never"


def test_a_voided_cell_and_a_crashed_trial_say_failed(tmp_path: Path) -> None:
    leak = EventRow(scenario="offline", name="memory_leak", severity="failure", detail="it grows")
    crash = EndRow(status="crash", cause="signal 11", wall=1.0)
    truths = {"leaky": Truth({4096: 2.0}, events=(leak,)), "crashing": Truth(end=crash)}
    run = Run.load(write_run(tmp_path, truths, ["dcnv2"]))
    matrix = tables.verdict_matrix(run)
    assert row(matrix, Stack="leaky")["Throughput"] == "failed (batch 4096)"
    assert row(matrix, Stack="leaky")["Latency"].startswith("equivalent")
    assert row(matrix, Stack="crashing")["Quality"] == "failed"
    assert any("signal 11" in line for line in run.warnings)


def test_a_failed_effect_has_no_number_but_its_cause(tmp_path: Path) -> None:
    bad = EventRow(scenario="offline", name="non_finite", severity="failure", detail="NaN came out")
    run = Run.load(write_run(tmp_path, {"broken": Truth(events=(bad,))}, ["dcnv2"]))
    table = tables.effects_table(run.effects)
    found = row(table, Stack="broken", Metric="throughput")
    assert (found["Effect [interval]"], found["Verdict"]) == ("n/a", "failed")
    assert "NaN came out" in found["Note"]
    record = next(r for r in tables.records(run) if r["metric"] == "throughput")
    assert record["effect"] is None


@pytest.mark.parametrize(("finished", "text"), [(False, "in progress"), (True, "not measured")])
def test_a_cell_without_records_says_why(tmp_path: Path, finished: bool, text: str) -> None:
    truths = {"control": Truth(), "bf16": Truth()}
    run = Run.load(write_run(tmp_path, truths, ["dcnv2"], processes=0, finished=finished))
    assert row(tables.verdict_matrix(run), Stack="bf16")["Latency"] == text


def test_an_empty_run_gives_empty_tables(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path, {}, ["dcnv2"], processes=0, finished=False))
    assert tables.effects_table(run.effects).empty
    assert tables.segments_table(run.effects).empty
    assert tables.preparation_table(run).empty
    assert provenance.accounting(run).empty


def test_the_engine_states_its_own_cost(run: Run) -> None:
    found = row(provenance.accounting(run), What="Wall time ÷ work (the engine's own cost)")
    assert found["Value"] == "1.10×"


def test_the_certificate_is_told_with_its_intervals(run: Run) -> None:
    values = dict(provenance.certificate_table(run).itertuples(index=False, name=None))
    assert values["Slow-down of 5.0%: slower was said (power)"] == "90.0% [80.0%, 96.0%] of 60"
    assert values["Identical code: t-test on raw timings said different"].startswith("42.0%")
    assert values["Noise floor of latency"] == "±1.3%"


def test_the_environment_is_told_flat(run: Run) -> None:
    frame = provenance.environment_table(run)
    assert row(frame, Name="variables.OMP_NUM_THREADS")["Value"] == "1"
    assert row(frame, Part="doctor")["Value"] == "the load of the host was 1.2"


@pytest.mark.parametrize(
    "environment",
    [{}, {"certificate": None}, {"certificate": {"power": [{}], "rules": [{}]}, "notes": None}],
)
def test_a_bare_environment_is_no_error(tmp_path: Path, environment: dict[str, object]) -> None:
    truths = {"control": TRUTHS["control"]}
    run = Run.load(write_run(tmp_path, truths, ["dcnv2"], processes=2, environment=environment))
    assert provenance.environment_table(run).empty
    assert len(provenance.certificate_table(run)) in (0, 2)


def test_the_protocol_names_the_quality_protocol(run: Run) -> None:
    assert "ML-100K" in row(provenance.protocol_table(run), What="Quality protocol")["Value"]
