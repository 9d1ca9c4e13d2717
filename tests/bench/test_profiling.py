"""`leanrec profile`: traces and a record of both arms, what explains the gap, mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from front_door import TINY, Leanrec, tiny_suite
from made_profile import made_profile
from torch import Tensor

from bench import allocator, profiling
from bench.device import get_device
from bench.meters.peaks import peak_bandwidth, peak_flops
from bench.meters.profile import trace
from bench.plan import make_plan
from bench.profiles.difference import changes, explaining
from bench.profiles.record import FILE, ArmProfile, Profile, folder_in, read_profile
from bench.profiles.trace import read_trace
from bench.records import dump_json
from bench.run import Plan, write_json
from bench.store import Store
from bench.suite import load_suite

SUITE = TINY.replace(
    'scenarios = ["single-stream(batch_sizes=[64])"]',
    'scenarios = ["single-stream(batch_sizes=[64])", "train(threads=1)"]',
).replace('stacks = ["prune-unstructured"]', 'stacks = ["prune-unstructured", "bf16"]')
BF16 = "toy-bf16-single_stream-cpu"


@pytest.fixture
def leanrec(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Leanrec:
    """The command, in this process, with peaks of small work."""
    monkeypatch.setattr(profiling, "peak_flops", partial(peak_flops, sides=[64]))
    monkeypatch.setattr(profiling, "peak_bandwidth", partial(peak_bandwidth, numbers=4096))
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: True)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    return Leanrec(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Whatever a command sets the number of threads to, one is what the next test finds."""
    yield
    torch.set_num_threads(1)


def operators(trace: Path) -> set[str]:
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return {event["name"] for event in events if event.get("cat") == "cpu_op"}


class TestTraces:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("cell", "arms", "some"),
        [
            (
                "toy-prune_unstructured-single_stream-cpu",
                {"control", "prune-unstructured"},
                "aten::addmm",
            ),
            ("toy-control-single_stream-cpu", {"control", "control_A_A_"}, "aten::embedding"),
            ("toy-bf16-train-cpu", {"control", "bf16"}, "aten::index_add_"),
        ],
    )
    def test_each_arm_has_a_trace_and_the_record_names_it(
        self, tmp_path: Path, leanrec: Leanrec, cell: str, arms: set[str], some: str
    ) -> None:
        suite, to = tiny_suite(tmp_path, SUITE), tmp_path / "träces 1"
        said = leanrec("profile", cell, "--suite", suite, "--out", to)
        assert said.code == 0, said.text
        assert {path.name for path in to.iterdir()} == {*arms, FILE}
        profile = read_profile(to)
        assert profile.cell.id == cell
        for arm in profile.arms:
            assert some in operators(to / arm.trace)
            assert f"{arm.name}, by operator" in said.out
            assert sum(arm.seen.parts.values()) == pytest.approx(arm.seen.wall_us)
            assert arm.seen.memory
            assert arm.flops > 0
        assert f"tensorboard --logdir '{to}'" in said.out
        assert "ui.perfetto.dev" in said.out

    @pytest.mark.slow
    def test_bf16_is_seen_in_its_arm_alone_and_the_difference_says_so(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        to = tmp_path / "traces"
        said = leanrec(
            "profile", "--diff", BF16, "--suite", tiny_suite(tmp_path, SUITE), "--out", to
        )
        assert "Control − treatment, by operator" in said.out
        assert "by the clock" in said.text
        cast = next(c for c in changes(read_profile(to)) if c.name == "aten::_to_copy")
        assert cast.calls[0] == 0 < cast.calls[1]


class TestInARun:
    def plan(self, tmp_path: Path) -> Plan:
        suite = load_suite(str(tiny_suite(tmp_path, SUITE)))
        return make_plan(suite, get_device("cpu"), Store(tmp_path / "store"))

    @pytest.mark.slow
    def test_a_profile_goes_to_the_run_that_it_explains(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        run, plan = tmp_path / "run", self.plan(tmp_path)
        write_json(run / "plan.json", plan)
        (run / "environment.json").write_text(dump_json({}))
        said = leanrec("profile", BF16, "--run", run)
        assert said.code == 0, said.text
        cell = next(p.cell for p in plan.cells if p.cell.id == BF16)
        assert read_profile(folder_in(run, cell)).cell == cell

    def test_a_plug_in_runs_only_where_the_user_names_it(
        self, tmp_path: Path, leanrec: Leanrec
    ) -> None:
        run, plugin = tmp_path / "run", tmp_path / "theirs.py"
        plugin.write_text("raise SystemExit('it ran')")
        plan = self.plan(tmp_path).model_copy(update={"plugins": (plugin,)})
        write_json(run / "plan.json", plan)
        (run / "environment.json").write_text(dump_json({}))
        said = leanrec("profile", BF16, "--run", run)
        assert said.code == 2
        assert f"--plugin {plugin}" in said.text

    def test_no_run_is_2(self, tmp_path: Path, leanrec: Leanrec) -> None:
        said = leanrec("profile", BF16, "--run", tmp_path / "nowhere")
        assert said.code == 2
        assert "is not a run" in said.text

    def test_a_run_and_a_suite_are_2(self, tmp_path: Path, leanrec: Leanrec) -> None:
        said = leanrec("profile", BF16, "--run", tmp_path, "--suite", "smoke")
        assert said.code == 2
        assert "Leave --suite and --out away" in said.text


def profile_of(calls: dict[str, Callable[[Tensor], Tensor]], to: Path) -> Profile:
    """A profile of two calls; all but what the trace says is made by hand."""
    batches = [(torch.randn(256, 256),)]
    with torch.inference_mode():
        traced = trace({name: (c, batches) for name, c in calls.items()}, to, get_device("cpu"))
    made = made_profile()
    arms = [
        ArmProfile(**{**dict(arm), "seen": read_trace(one.content)})
        for arm, one in zip(made.arms, traced.values(), strict=True)
    ]
    return made.model_copy(update={"arms": tuple(arms)})


@pytest.mark.parametrize("slower", [0, 1])
def test_an_extra_product_is_what_explains_the_gap(tmp_path: Path, slower: int) -> None:
    weight = torch.randn(256, 256)
    plain, extra = (lambda x: x @ weight), (lambda x: (x @ weight) @ weight)
    calls = (extra, plain) if slower == 0 else (plain, extra)
    profile = profile_of(dict(zip(("control", "treatment"), calls, strict=True)), tmp_path)
    named = explaining(profile)[0]
    assert named.name == "aten::mm"
    assert named.calls == ((2, 1) if slower == 0 else (1, 2))


class TestMistakes:
    @pytest.mark.parametrize(
        ("cell", "said"),
        [
            ("toy-bf17-single_stream-cpu", "It has: toy-control-single_stream-cpu"),
            ("toy-prune_unstructured-train-cpu", "changes nothing that training shows"),
            ("toy-bf16-quality-cpu", "not timed"),
        ],
    )
    def test_a_cell_that_cannot_be_profiled_is_2(
        self, tmp_path: Path, leanrec: Leanrec, cell: str, said: str
    ) -> None:
        suite, to = tiny_suite(tmp_path, SUITE), tmp_path / "t"
        ended = leanrec("profile", cell, "--suite", suite, "--out", to)
        assert ended.code == 2
        assert said in ended.text
        assert not to.exists()

    def test_a_folder_that_cannot_be_written_is_2(self, tmp_path: Path, leanrec: Leanrec) -> None:
        suite = tiny_suite(tmp_path, SUITE)
        ended = leanrec(
            "profile", "toy-control-single_stream-cpu", "--suite", suite, "--out", suite / "t"
        )
        assert ended.code == 2
        assert "cannot be written" in ended.text

    def test_a_call_too_short_to_be_timed_is_2(
        self, tmp_path: Path, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bench.blocks.overhead_ns", lambda synchronize: 1e9)
        suite, to = tiny_suite(tmp_path, SUITE), tmp_path / "t"
        ended = leanrec("profile", BF16, "--suite", suite, "--out", to)
        assert ended.code == 2
        assert "larger load" in ended.text
