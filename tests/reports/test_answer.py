"""The answer in plain words: it follows the verdicts."""

from pathlib import Path

import pytest
from synthetic_run import TRUTHS, Truth, write_run

from bench.records import EventRow
from bench.run import Run
from reports.answer import Answer, answers, explanations, sanity, state


def answer(run: Run, stack: str) -> Answer:
    return next(a for a in answers(run) if (a.baseline, a.stack) == ("dcnv2", stack))


@pytest.mark.parametrize(
    ("stack", "outcome"),
    [
        ("int8-embedding", "free"),
        ("int8-linear", "a trade"),
        ("prune-structured", "a trade"),
        ("prune-unstructured", "no gain"),
    ],
)
def test_the_outcome_follows_gains_costs_and_quality(run: Run, stack: str, outcome: str) -> None:
    assert answer(run, stack).outcome == outcome


def test_the_sentence_names_gains_costs_and_quality(run: Run) -> None:
    sentence = answer(run, "int8-linear").sentence
    assert "throughput 3.10× faster (batch 4096)" in sentence
    assert "costs: latency 1.61× slower (batch 1)" in sentence
    assert "non-inferior (inside the control's spread over seeds" in sentence


def test_a_loss_outside_the_spread_over_seeds_is_not_free(tmp_path: Path) -> None:
    truth = Truth({1: 2.0, 512: 2.0, 4096: 2.0}, quality=-0.004)
    run = Run.load(write_run(tmp_path, {"control": Truth(), "lossy": truth}, ["dcnv2"]))
    found = answer(run, "lossy")
    assert "non-inferior (outside the control's spread" in found.sentence
    assert found.outcome == "a trade"


def test_only_costs_are_no_gain(tmp_path: Path) -> None:
    truth = Truth({1: 0.5, 512: 0.5, 4096: 0.5})
    run = Run.load(write_run(tmp_path, {"slow": truth}, ["dcnv2"]))
    assert answer(run, "slow").outcome == "no gain"


def test_a_failed_quality_is_a_failure_with_its_cause(tmp_path: Path) -> None:
    bad = EventRow(scenario="quality", name="non_finite", severity="failure", detail="NaN came out")
    run = Run.load(write_run(tmp_path, {"broken": Truth({4096: 9.0}, events=(bad,))}, ["dcnv2"]))
    assert answer(run, "broken").outcome == "failed"
    assert any("NaN came out" in why for _, why in explanations(run))


def test_a_note_of_a_trial_is_an_explanation(tmp_path: Path) -> None:
    note = EventRow(scenario="", name="width", severity="note", detail="rows of 10 numbers")
    run = Run.load(write_run(tmp_path, {"int8-embedding": Truth(events=(note,))}, ["dcnv2"]))
    assert explanations(run) == [("dcnv2 × int8-embedding", "width: rows of 10 numbers")]


def test_the_arm_of_identical_code_vouches_for_the_run(run: Run) -> None:
    assert "came out different in none of" in sanity(run)


def test_an_arm_of_identical_code_that_differs_makes_the_run_suspect(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path, {"control": Truth({4096: 1.5})}, ["dcnv2"]))
    assert "this run is suspect" in sanity(run)


def test_no_arm_of_identical_code_is_said(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path, {"bf16": TRUTHS["bf16"]}, ["dcnv2"], processes=2))
    assert sanity(run).startswith("This run has no finished A/A arm")


def test_a_run_in_progress_is_provisional(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path, {"bf16": TRUTHS["bf16"]}, ["dcnv2"], finished=False))
    assert "provisional" in state(run)
