"""A part of a run keeps the verdicts of the whole."""

import pytest

from bench.run import Run
from reports.select import Selection, techniques_of


@pytest.mark.parametrize(
    ("stack", "names"),
    [
        ("control", ()),
        ("bf16", ("bf16",)),
        ("int8-linear(min_width=32)+int8-embedding", ("int8-linear", "int8-embedding")),
        ('a(x="(+)", y=[1, 2])+b', ("a", "b")),
    ],
)
def test_the_techniques_of_a_stack(stack: str, names: tuple[str, ...]) -> None:
    assert techniques_of(stack) == names


def test_nothing_selected_is_everything(run: Run) -> None:
    assert Selection().of(run).effects == run.effects


def test_a_technique_keeps_its_stacks_and_the_control(run: Run) -> None:
    part = Selection(techniques=["int8-linear"]).of(run)
    wanted = {"control", "int8-linear", "int8-linear+int8-embedding"}
    assert {e.stack for e in part.effects} == wanted
    assert {p.cell.stack for p in part.plan.cells} == wanted


def test_an_effect_keeps_the_verdict_of_the_whole_run(run: Run) -> None:
    part = Selection(baselines=["dcnv2"], scenarios=["offline"], metrics=["throughput"]).of(run)
    assert part.effects
    assert all(e in run.effects for e in part.effects)
    assert {(e.baseline, e.scenario, e.metric) for e in part.effects} == {
        ("dcnv2", "offline", "throughput")
    }
