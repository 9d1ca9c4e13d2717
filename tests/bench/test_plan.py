"""Suite → plan: cells with their reasons, names, families, comparisons."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.errors import LeanRecError
from bench.device import get_device
from bench.plan import comparisons, make_plan, restrict
from bench.records import CONTROL, Cell
from bench.run import Plan
from bench.store import Store
from bench.suite import Suite

TOY = 'toy = dcnv2(dataset="planted(rows=2000, ids=200)", width=64, depth=2)'
TOWERS = 'two-tower(dataset="planted")'


def plan_of(folder: Path, **changes: object) -> Plan:
    fields = {
        "name": "toy",
        "about": "A toy",
        "baselines": (TOY,),
        "stacks": ("int8-linear",),
        "scenarios": ("offline(batch_sizes=[8])",),
    }
    suite = Suite.model_validate(fields | changes)
    return make_plan(suite, get_device("cpu"), Store(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that the tests of this file share."""
    return tmp_path_factory.mktemp("store")


def skipped(plan: Plan) -> dict[str, str]:
    return {c.cell.id: c.skip for c in plan.cells if c.skip}


class TestCells:
    def test_a_scenario_may_leave_out_what_it_does_not_show(self, folder: Path) -> None:
        drifting = TOY.replace("ids=200", "ids=200, drift=1.0")
        plan = plan_of(
            folder,
            baselines=(drifting, TOWERS),
            stacks=("async-refresh", "int8-linear"),
            scenarios=("refresh",),
        )
        reasons = {i: why for i, why in skipped(plan).items() if "refresh-cpu" in i}
        assert set(reasons) == {
            c.cell.id
            for c in plan.cells
            if c.cell.scenario == "refresh"
            and (c.cell.baseline != "toy" or c.cell.stack == "int8-linear")
        }
        assert "changes nothing that refresh shows" in reasons["toy-int8_linear-refresh-cpu"]
        assert "the task is retrieval" in next(w for i, w in reasons.items() if "two_tower" in i)

    def test_every_baseline_meets_every_stack_and_scenario(self, folder: Path) -> None:
        plan = plan_of(
            folder,
            baselines=(TOY, TOY.replace("toy", "other").replace("width=64", "width=128")),
            stacks=("int8-linear", "bf16"),
            scenarios=("offline(batch_sizes=[8])", "single-stream(batch_sizes=[1])"),
        )
        assert len(plan.cells) == 2 * 3 * 3
        assert len({c.cell.id for c in plan.cells}) == len(plan.cells)

    def test_the_control_against_itself_and_quality_are_always_there(self, folder: Path) -> None:
        plan = plan_of(folder, stacks=())
        assert [c.cell.id for c in plan.cells] == [
            "toy-control-offline-cpu",
            "toy-control-quality-cpu",
        ]
        assert not skipped(plan)

    def test_quality_that_the_suite_names_is_not_added_again(self, folder: Path) -> None:
        plan = plan_of(folder, scenarios=("quality", "offline(batch_sizes=[8])"))
        assert sum(c.cell.scenario == "quality" for c in plan.cells) == 2

    def test_specs_are_canonical_and_named(self, folder: Path) -> None:
        plan = plan_of(folder, stacks=("fast = int8-linear( min_width = 32 )+bf16", "int8-linear"))
        spec = 'dcnv2(dataset="planted(rows=2000, ids=200)", width=64)'  # less the default depth
        assert plan.baselines == {"toy": spec}
        assert plan.stacks == {
            CONTROL: CONTROL,
            "fast": "int8-linear(min_width=32)+bf16",
            "int8-linear": "int8-linear",
        }

    def test_a_spec_without_a_name_is_its_own(self, folder: Path) -> None:
        plan = plan_of(folder, stacks=("int8-linear(min_width=64)",))  # the default
        assert "int8-linear" in plan.stacks

    def test_what_is_named_twice_is_measured_once(self, folder: Path) -> None:
        plan = plan_of(folder, stacks=("int8-linear", "int8-linear", CONTROL))
        assert list(plan.stacks) == [CONTROL, "int8-linear"]

    def test_the_suite_s_limits_are_kept(self, folder: Path) -> None:
        plan = plan_of(folder, budget_seconds=9, gates={"quality": "mlperf-99.9"})
        assert (plan.budget_seconds, plan.quality_gate) == (9, "mlperf-99.9")


class TestIds:
    def test_an_id_is_what_pytest_and_profile_take(self) -> None:
        cell = Cell(baseline="dcnv2", stack="int8-linear", scenario="offline", device="cpu")
        assert cell.id == "dcnv2-int8_linear-offline-cpu"

    @given(st.text(max_size=20), st.text(max_size=20))
    def test_an_id_has_no_character_that_a_shell_or_pytest_reads(self, a: str, b: str) -> None:
        cell = Cell(baseline=a, stack=b, scenario="offline", device="cpu")
        assert re.fullmatch(r"[A-Za-z0-9.+_-]*", cell.id)

    def test_names_that_would_share_an_id_are_refused(self, folder: Path) -> None:
        with pytest.raises(LeanRecError, match="Give one of them a name"):
            plan_of(folder, stacks=("a--b = bf16", "a-b = int8-linear"))


class TestReasons:
    def test_a_technique_that_finds_nothing_to_change_is_skipped(self, folder: Path) -> None:
        plan = plan_of(folder, baselines=(TOWERS,), scenarios=("offline(batch_sizes=[8])", "train"))
        reasons = skipped(plan)
        assert all("finds no Linear" in reason for reason in reasons.values())
        assert {i.rsplit("-", 3)[1] for i in reasons} == {"int8_linear"}
        assert len(reasons) == 3

    def test_a_model_that_is_complete_when_built_has_no_training(self, folder: Path) -> None:
        floor = 'floor = popularity(dataset="planted(rows=2000, ids=200)")'
        plan = plan_of(folder, baselines=(floor,), stacks=(), scenarios=("train",))
        assert skipped(plan) == {
            "floor-control-train-cpu": "the model is complete when built: there is no "
            "training to measure"
        }

    def test_a_stack_is_skipped_for_the_one_technique_that_does_not_apply(
        self, folder: Path
    ) -> None:
        plan = plan_of(folder, baselines=(TOWERS,), stacks=("int8-embedding+int8-linear",))
        assert len(skipped(plan)) == 2
        assert all(reason.startswith("int8-linear ") for reason in skipped(plan).values())

    def test_a_technique_after_training_changes_nothing_of_training(self, folder: Path) -> None:
        plan = plan_of(folder, stacks=("int8-linear", "bf16"), scenarios=("train",))
        assert list(skipped(plan)) == ["toy-int8_linear-train-cpu"]
        assert "changes nothing that training shows" in skipped(plan)["toy-int8_linear-train-cpu"]

    def test_a_stack_that_only_trains_otherwise_is_not_timed_while_serving(
        self, folder: Path
    ) -> None:
        serving = ("offline(batch_sizes=[8])", "single-stream", "server", "cold-start")
        stacks = ("only = bf16-optimizer-state",)
        plan = plan_of(folder, stacks=stacks, scenarios=(*serving, "train", "quality"))
        assert skipped(plan) == {
            f"toy-only-{name.replace('-', '_')}-cpu": "bf16-optimizer-state changes nothing "
            f"that {name} shows: it is the control there"
            for name in ("offline", "single-stream", "server", "cold-start")
        }

    def test_the_control_is_measured_under_every_load(self, folder: Path) -> None:
        plan = plan_of(folder, scenarios=("train", "offline(batch_sizes=[8])"))
        assert not [i for i in skipped(plan) if "control" in i]


class TestWrongNames:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"stacks": ("int8-liner",)}, "Did you mean int8-linear"),
            ({"baselines": ("dcnv",)}, "Did you mean dcnv2"),
            ({"scenarios": ("ofline",)}, "Did you mean offline"),
            ({"stacks": ("int8-linear(min_wdth=3)",)}, "Did you mean 'min_width'"),
            ({"stacks": ("int8-linear(min_width=0)",)}, "min_width"),
            ({"stacks": ("int8-linear(",)}, "not of the form"),
            ({"stacks": ("bf16+bf16",)}, "twice"),
            ({"stacks": ("x = bf16", "x = int8-linear")}, "calls two things 'x'"),
            ({"stacks": ("control = bf16",)}, "calls two things 'control'"),
            ({"baselines": (TOY, TOY.replace("64", "32"))}, "calls two things 'toy'"),
            (
                {"scenarios": ("offline(batch_sizes=[8])", "offline(batch_sizes=[16])")},
                "a scenario twice",
            ),
        ],
    )
    def test_the_mistake_and_the_nearest_are_said(
        self, folder: Path, changes: dict[str, object], said: str
    ) -> None:
        with pytest.raises(LeanRecError) as caught:
            plan_of(folder, **changes)
        assert said in str(caught.value)


class TestPrimary:
    def test_patterns_name_the_primary_family(self, folder: Path) -> None:
        plan = plan_of(
            folder,
            stacks=("int8-linear", "bf16"),
            scenarios=("offline(batch_sizes=[8])", "single-stream(batch_sizes=[1])"),
            primary=("*-bf16-offline-*", "*-quality-*"),
        )
        assert set(plan.primary) == {
            "toy-bf16-offline-cpu",
            "toy-control-quality-cpu",
            "toy-int8_linear-quality-cpu",
            "toy-bf16-quality-cpu",
        }

    def test_without_patterns_there_is_none(self, folder: Path) -> None:
        assert plan_of(folder).primary == ()


class TestComparisons:
    def test_a_comparison_holds_the_loads_that_one_process_measures(self, folder: Path) -> None:
        plan = plan_of(folder, stacks=("int8-linear",), scenarios=("train", "offline"))
        control, treated = comparisons(plan)
        assert (control.stack, treated.stack) == (CONTROL, "int8-linear")
        assert control.scenarios == ("offline", "quality", "train")  # training last
        assert treated.scenarios == ("offline", "quality")

    def test_what_is_skipped_is_in_none(self, folder: Path) -> None:
        plan = plan_of(folder, baselines=(TOWERS,))
        assert [c.stack for c in comparisons(plan)] == [CONTROL]

    def test_a_restricted_plan_keeps_what_its_cells_rest_on(self, folder: Path) -> None:
        plan = plan_of(
            folder,
            stacks=("int8-linear", "bf16"),
            scenarios=("offline(batch_sizes=[8])", "single-stream(batch_sizes=[1])"),
        )
        kept = restrict(plan, {"toy-bf16-offline-cpu"})
        assert {c.cell.id for c in kept.cells} == {
            "toy-bf16-offline-cpu",
            "toy-bf16-quality-cpu",
            "toy-control-offline-cpu",
        }
