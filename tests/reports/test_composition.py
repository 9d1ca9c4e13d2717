"""Stacks against the product of their parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_run import Truth, write_run

from bench.run import Run
from reports.composition import composition_table, compositions


def run_of(folder: Path, whole: float, name: str = "bf16+fold") -> Run:
    truths = {
        "control": Truth(),
        "bf16": Truth({1: 1.0, 512: 2.0, 4096: 2.0}),
        "fold": Truth({1: 1.0, 512: 1.5, 4096: 1.5}),
        name: Truth({1: 1.0, 512: whole, 4096: whole}),
    }
    return Run.load(write_run(folder, truths, ["dcnv2"]))


@pytest.mark.parametrize(
    ("whole", "verdict"), [(3.0, "composes"), (2.0, "cancels"), (4.0, "reinforces")]
)
def test_the_stack_is_held_against_the_product_of_its_parts(
    tmp_path: Path, whole: float, verdict: str
) -> None:
    (found,) = (c for c in compositions(run_of(tmp_path, whole)) if c.stack.scenario == "offline"
                and c.stack.metric == "throughput")  # fmt: skip
    assert found.verdict == verdict
    assert found.product == pytest.approx(3.0, rel=0.02)
    assert found.excess == pytest.approx(whole / 3, rel=0.02)
    assert found.low < found.excess < found.high


def test_a_time_is_turned_around(tmp_path: Path) -> None:
    found = {c.stack.point: c for c in compositions(run_of(tmp_path, 3.0))
             if c.stack.metric == "latency"}  # fmt: skip
    assert found["batch=512"].product == pytest.approx(3.0, rel=0.02)
    assert found["batch=1"].product == pytest.approx(1.0, rel=0.02)


def test_the_errors_of_all_parts_are_in_the_interval(tmp_path: Path) -> None:
    (found,) = (c for c in compositions(run_of(tmp_path, 3.0)) if c.stack.metric == "throughput")
    widest = max(high / low for _, low, high in (e.gain for e in (found.stack, *found.parts)))
    assert found.high / found.low > widest


def test_a_stack_without_a_part_measured_alone_is_left_out(tmp_path: Path) -> None:
    assert composition_table(run_of(tmp_path, 3.0, "bf16+compile")).empty


def test_parameters_belong_to_a_part(tmp_path: Path) -> None:
    assert compositions(run_of(tmp_path / "a", 3.0, "bf16+fold"))
    assert not compositions(run_of(tmp_path / "b", 3.0, 'bf16+fold(how="a+b")'))
