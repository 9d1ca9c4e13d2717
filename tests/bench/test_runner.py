"""The runner: rounds and looks, shared trainings, failures, budget, what a run's folder holds."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_worker import QUICK, FakeWorkers, toy_plan
from made_trials import blocks, trial

from baselines.errors import LeanRecError
from bench import launch, runner
from bench.plan import comparisons
from bench.protocol import Protocol
from bench.records import BlockRow, EndRow, Trial, read_trials, write_trial
from bench.run import Plan, Run, Summary, Underway, underway
from bench.runner import Progress, Runner, locked
from bench.store import Store
from bench.worker import TrialSpec

CRASH = EndRow(status="crash", cause="killed by signal 11 (SIGSEGV)", wall=0.5)
UNDECIDED = (1.05, 0.95, 1.04, 0.97)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of a run, held."""
    with locked(tmp_path / "run"):
        yield tmp_path / "run"


def run(
    folder: Path,
    plan: Plan,
    workers: Callable[..., Trial],
    monkeypatch: pytest.MonkeyPatch,
    tell: Any = lambda progress: None,
) -> Summary:
    monkeypatch.setattr(runner, "run_worker", workers)
    return Runner(folder, plan, Store(folder / "store"), {}, tell).run()


class TestRounds:
    def test_what_is_decided_at_a_look_stops_and_the_rest_goes_on(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers({"fast": 0.5, "unclear": UNDECIDED})
        run(folder, toy_plan("fast", "unclear"), workers, patched(monkeypatch))
        assert workers.count("measure", "control") == 2
        assert workers.count("measure", "fast") == 2
        assert workers.count("measure", "unclear") == 4

    def test_rounds_spread_the_processes_over_the_run(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers()
        run(folder, toy_plan("fast", "small"), workers, patched(monkeypatch))
        order = [(s.process, s.stack) for s in workers.specs if s.mode == "measure"]
        assert order == [(p, s) for p in (0, 1) for s in ("control", "fast", "small")]

    def test_verdicts_are_read_only_at_the_looks(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        protocol = QUICK.model_copy(update={"looks": (3, 4)})
        workers = FakeWorkers()  # decided after two already
        run(folder, toy_plan(protocol=protocol), workers, patched(monkeypatch))
        assert workers.count("measure", "control") == 3

    def test_the_noise_floor_of_the_host_decides_as_it_will_in_the_report(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers({"fast": (1.03, 1.031, 1.03, 1.031)})
        monkeypatch.setattr(runner, "run_worker", workers)
        plan = patched_plan(monkeypatch, toy_plan("fast"))
        Runner(folder, plan, Store(folder), {"latency": 0.028}).run()
        assert workers.count("measure", "fast") == 4  # beyond 2 %, not beyond 2.8 %

    def test_one_comparison_can_be_run_to_its_decision(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers()
        monkeypatch.setattr(runner, "run_worker", workers)
        plan = patched_plan(monkeypatch, toy_plan("fast", "small"))
        Runner(folder, plan, Store(folder), {}).run_comparison(comparisons(plan)[1])
        assert {s.stack for s in workers.specs if s.mode == "measure"} == {"fast"}


class TestTrainings:
    def test_the_control_is_trained_once_a_seed_for_all_that_rest_on_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers()
        run(folder, toy_plan("fast", "small", "third"), workers, patched(monkeypatch))
        trained = [(s.stack, s.process) for s in workers.specs if s.mode == "train"]
        assert trained == [("control", 0), ("control", 1)]

    def test_a_stack_that_changes_training_is_trained_too(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers()
        plan = toy_plan("mixed").model_copy(
            update={"stacks": {"control": "control", "mixed": "bf16"}}
        )
        run(folder, plan, workers, monkeypatch)
        assert workers.count("train", "mixed") == 2
        before = [(s.mode, s.stack) for s in workers.specs]
        assert before.index(("train", "mixed")) < before.index(("measure", "mixed"))

    @pytest.mark.parametrize(("spec", "ahead"), [("(fine_tune=1)", 2), ("", 0)])
    def test_a_stack_that_fine_tunes_does_so_ahead_of_what_is_timed(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, spec: str, ahead: int
    ) -> None:
        workers = FakeWorkers()
        stacks = {"control": "control", "tuned": f"prune-unstructured{spec}"}
        run(folder, toy_plan("tuned").model_copy(update={"stacks": stacks}), workers, monkeypatch)
        assert workers.count("train", "tuned") == ahead

    def test_a_failed_training_of_the_control_fails_all_with_its_cause(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        end = EndRow(status="non_finite", cause="the loss is nan", wall=1.0)
        workers = FakeWorkers(ends=lambda s: end if s.mode == "train" else None)
        run(folder, toy_plan("fast"), workers, patched(monkeypatch))
        assert {s.mode for s in workers.specs} == {"train"}
        trials, _ = read_trials(folder / "records")
        given_up = [t for t in trials if t.head.mode == "measure"]
        assert {t.head.stack for t in given_up} == {"control", "fast"}
        for made in given_up:
            assert made.end.status == "non_finite"
            assert made.end.cause == "training of control: the loss is nan"

    def test_a_failed_training_of_a_stack_fails_that_stack_alone(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = toy_plan("mixed", "fast").model_copy(
            update={"stacks": {"control": "control", "mixed": "bf16", "fast": "int8-linear"}}
        )
        workers = FakeWorkers(
            ends=lambda s: CRASH if (s.mode, s.stack) == ("train", "mixed") else None
        )
        run(folder, plan, workers, monkeypatch)
        assert workers.count("measure", "mixed") == 0
        assert workers.count("measure", "fast") == 2


class TestMemory:
    def test_each_arm_has_its_own_process_in_alternating_order(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers()
        plan = patched_plan(monkeypatch, toy_plan("fast"))
        monkeypatch.setattr(runner, "run_worker", workers)
        Runner(folder, plan, Store(folder), {}).run_comparison(comparisons(plan)[1])
        order = [(s.process, s.stack) for s in workers.specs if s.mode == "memory"]
        assert order == [(0, "fast"), (0, "control"), (1, "control"), (1, "fast")]

    def test_one_inference_load_stands_for_all(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers()
        plan = toy_plan(scenarios=("single-stream", "offline", "quality", "train"))
        run(folder, plan, workers, monkeypatch)
        asked = {s.scenarios for s in workers.specs if s.mode == "memory"}
        assert asked == {("offline", "train")}


class TestFailures:
    def test_a_crash_is_recorded_and_the_rest_of_the_matrix_goes_on(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers(
            ends=lambda s: CRASH if (s.mode, s.stack) == ("measure", "bad") else None
        )
        run(folder, toy_plan("bad", "fast"), workers, patched(monkeypatch))
        assert workers.count("measure", "bad") == 1  # more processes would only repeat it
        assert workers.count("measure", "fast") == 2
        trials, _ = read_trials(folder / "records")
        assert [t.end.cause for t in trials if t.end.status != "ok"] == [CRASH.cause]


class TestBudget:
    def clock(self, monkeypatch: pytest.MonkeyPatch, workers: FakeWorkers) -> None:
        """Every trial takes ten seconds."""
        monkeypatch.setattr(runner.time, "monotonic", lambda: 10.0 * len(workers.specs))

    def test_a_spent_budget_ends_the_run_and_is_said(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers({"unclear": UNDECIDED})
        self.clock(monkeypatch, workers)
        summary = run(folder, toy_plan("unclear", budget=95), workers, patched(monkeypatch))
        assert summary.out_of_budget
        assert workers.count("measure", "unclear") == 2
        run_ = loaded(folder, toy_plan("unclear"))
        (effect,) = (e for e in run_.effects if e.stack == "unclear" and e.metric == "latency")
        assert effect.verdict == "inconclusive"

    def test_a_run_that_ends_late_with_nothing_left_out_is_not_out_of_budget(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers()
        self.clock(monkeypatch, workers)
        plan = toy_plan("fast")
        whole = run(folder, plan, workers, patched(monkeypatch))
        late = plan.model_copy(update={"budget_seconds": whole.wall - 1})
        for path in (folder / "records").iterdir():
            path.unlink()
        workers.specs.clear()
        assert not run(folder, late, workers, monkeypatch).out_of_budget

    def test_what_is_recorded_already_costs_no_budget(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = toy_plan("fast", budget=1e-9)
        run(folder, plan.model_copy(update={"budget_seconds": None}), FakeWorkers(),
            patched(monkeypatch))  # fmt: skip
        again = FakeWorkers()
        assert not run(folder, plan, again, monkeypatch).out_of_budget
        assert again.specs == []


class TestSummary:
    def test_work_is_what_trials_must_do_and_wall_the_rest_too(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers()
        summary = run(folder, toy_plan("fast"), workers, patched(monkeypatch))
        assert summary.work == pytest.approx(0.5 * len(workers.specs))
        assert summary.finished
        assert not summary.out_of_budget

    def test_a_resumed_run_counts_what_was_done_before(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = FakeWorkers()
        first = run(folder, toy_plan("fast"), workers, patched(monkeypatch))
        again = run(folder, toy_plan("fast"), FakeWorkers(), monkeypatch)
        assert again.work == first.work
        assert again.wall >= 1.0 * len(workers.specs)


class TestResume:
    def test_what_is_recorded_is_not_run_again(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = FakeWorkers({"unclear": UNDECIDED})
        plan = toy_plan("fast", "unclear")
        run(folder, plan, whole, patched(monkeypatch))
        before = {p.name: p.read_bytes() for p in (folder / "records").iterdir()}
        lost = sorted(before)[::3]
        for name in lost:
            (folder / "records" / name).unlink()
        rest = FakeWorkers({"unclear": UNDECIDED})
        run(folder, plan, rest, monkeypatch)
        assert sorted(f"{s.id}.jsonl" for s in rest.specs) == lost
        after = {p.name: p.read_bytes() for p in (folder / "records").iterdir()}
        assert after.keys() == before.keys()
        assert all(after[name] == before[name] for name in before.keys() - set(lost))

    def test_a_corrupt_record_is_set_aside_and_measured_anew(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(folder, toy_plan(), FakeWorkers(), patched(monkeypatch))
        broken = sorted((folder / "records").iterdir())[0]
        broken.write_text(broken.read_text()[:100])
        again = FakeWorkers()
        run(folder, toy_plan(), again, monkeypatch)
        assert [s.id for s in again.specs] == [broken.stem]
        assert broken.with_suffix(".corrupt").exists()
        trials, problems = read_trials(folder / "records")
        assert problems == []
        assert broken.stem in {t.head.id for t in trials}


class TestProgress:
    def test_the_folder_says_what_is_measured_until_the_run_ends(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Underway | None] = []
        workers = FakeWorkers()

        def look(spec: TrialSpec, *rest: Any) -> Trial:
            seen.append(underway(folder))
            return workers(spec, *rest)

        run(folder, toy_plan("fast"), look, patched(monkeypatch))
        assert len(seen) == len(workers.specs)
        for now, spec in zip(seen, workers.specs, strict=True):
            assert now is not None
            assert now.doing == f"{spec.mode} {spec.baseline} × {spec.stack} #{spec.process}"
            assert 0 <= now.done <= now.expected
        assert underway(folder) is None

    def test_it_ends_with_nothing_left_and_never_has_more_done_than_expected(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[Progress] = []
        workers = FakeWorkers({"unclear": UNDECIDED})
        run(folder, toy_plan("unclear"), workers, patched(monkeypatch), told.append)
        assert all(0 <= p.done <= p.expected for p in told)
        assert all(p.seconds_left >= 0 for p in told)
        assert (told[-1].done, told[-1].expected, told[-1].seconds_left) == (6, 6, 0)
        assert told[0].doing == "train toy × control #0"
        ends = [p.last for p in told if p.last is not None]
        assert len(ends) == len(workers.specs)


class TestLock:
    def test_two_never_write_one_run(self, folder: Path) -> None:
        with pytest.raises(LeanRecError, match="Another process is writing"), locked(folder):
            pytest.fail("the second got in")

    def test_it_is_let_go(self, tmp_path: Path) -> None:
        for _ in range(2):
            with locked(tmp_path):
                pass

    def test_a_folder_that_is_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(LeanRecError, match="cannot be written"), locked(tmp_path / "file"):
            pytest.fail("a run in a file")


def test_a_full_disk_ends_the_run_with_its_cause_and_the_records_intact(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = patched_plan(monkeypatch, toy_plan("fast"))
    fsync, calls = os.fsync, []

    def filling(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 6:  # each trial: its record, and before it what is measured
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling)
        with pytest.raises(LeanRecError, match="No space left"):
            run(folder, plan, FakeWorkers(), patch)
    trials, problems = read_trials(folder / "records")
    assert (len(trials), problems) == (3, [])
    rest = FakeWorkers()
    run(folder, plan, rest, monkeypatch)
    assert not {s.id for s in rest.specs} & {t.head.id for t in trials}


class TestWorkerProcess:
    """`run_worker` with other programs in the worker's place: what each ending becomes."""

    @pytest.fixture
    def spec(self, tmp_path: Path) -> TrialSpec:
        return TrialSpec(
            id="toy", mode="measure", baseline="toy", stack="fast", baseline_spec="dcnv2",
            stack_spec="bf16", device="cpu", scenarios=("offline(batch_sizes=[8])",), process=3,
            protocol=Protocol(), store=tmp_path, spawned=0.0,
        )  # fmt: skip

    def ended(
        self, spec: TrialSpec, program: str, monkeypatch: pytest.MonkeyPatch, limit: float = 300.0
    ) -> Any:
        script = spec.store / "worker.sh"
        script.write_text(f"#!/bin/sh\n{program}\n")
        script.chmod(0o755)
        monkeypatch.setattr(launch.sys, "executable", str(script))
        return launch.run_worker(spec, limit, spec.store / "logs" / "toy.log")

    @pytest.mark.parametrize(
        ("program", "status", "cause"),
        [
            ("kill -11 $$", "crash", "killed by signal 11 (SIGSEGV)"),
            ("kill -9 $$", "crash", "killed by signal 9, as the kernel does when memory runs out"),
            ("echo one >&2; echo it broke >&2; exit 3", "crash", "exited with 3: it broke"),
            ("exit 4", "crash", "exited with 4: it said nothing"),
            ("exit 0", "crash", "exited with 0: it said nothing"),
            ("sleep 600", "timeout", "did not end within 0 s"),
        ],
    )
    def test_how_it_ended_is_recorded(
        self,
        spec: TrialSpec,
        monkeypatch: pytest.MonkeyPatch,
        program: str,
        status: str,
        cause: str,
    ) -> None:
        limit = 0.3 if status == "timeout" else 300.0
        made = self.ended(spec, program, monkeypatch, limit)
        assert (made.end.status, made.end.cause) == (status, cause)
        assert made.head.id == spec.id
        assert (made.head.seed, made.head.scenarios) == (3, ("offline",))

    def test_the_rows_before_a_kill_are_kept_and_half_a_row_is_dropped(
        self, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = write_trial(spec.store, trial(0, blocks([1.0, 2.0], [3.0, 4.0])))
        lines = source.read_bytes().splitlines(keepends=True)
        (spec.store / "said").write_bytes(b"".join(lines[:3]) + lines[3][:-30] + "é".encode()[:1])
        made = self.ended(spec, f"cat {spec.store}/said; kill -9 $$", monkeypatch)
        assert made.end.status == "crash"
        assert [r.value for r in made.rows if isinstance(r, BlockRow)] == [1.0, 3.0]

    def test_what_a_worker_started_ends_with_it(
        self, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = f"sleep 600 >/dev/null 2>&1 & echo $! > {spec.store}/child; exit 5"
        self.ended(spec, program, monkeypatch)
        child = int((spec.store / "child").read_text())
        assert gone(child)

    def test_a_log_that_cannot_be_written_is_said(self, spec: TrialSpec) -> None:
        (spec.store / "file").write_text("")
        with pytest.raises(LeanRecError, match="cannot be written"):
            launch.run_worker(spec, 1.0, spec.store / "file" / "toy.log")


def gone(pid: int, within: float = 120.0) -> bool:
    """Whether a process ends in that time; one that was not collected has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def patched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Stacks of any name that change nothing of training."""
    monkeypatch.setattr(runner, "make_stack", lambda text: ())
    return monkeypatch


def patched_plan(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> Plan:
    patched(monkeypatch)
    return plan


def loaded(folder: Path, plan: Plan) -> Run:
    (folder / "plan.json").write_text(plan.model_dump_json())
    (folder / "environment.json").write_text("{}")
    return Run.load(folder)
