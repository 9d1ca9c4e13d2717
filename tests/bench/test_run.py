"""A run as its folder holds it: what is read, what is warned of, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_worker import toy_plan
from made_trials import blocks, failure, quality, trial

from baselines.errors import LeanRecError
from bench.campaign import broken_gates, exit_code, gate_text
from bench.records import EventRow, Trial, write_trial
from bench.run import Run, Summary, noise_floor, write_json


def run_of(folder: Path, *trials: Trial, gate: str | None = None, floor: float = 0.0) -> Run:
    plan = toy_plan("fast").model_copy(update={"quality_gate": gate})
    write_json(folder / "plan.json", plan)
    certificate = {"noise_floor": {"latency": floor}}
    (folder / "environment.json").write_text(json.dumps({"certificate": certificate}))
    for made in trials:
        write_trial(folder / "records", made)
    return Run.load(folder)


def series(ratio: float, stack: str = "fast", loss: float = 0.0, processes: int = 4) -> list[Trial]:
    return [
        trial(
            p,
            [
                *blocks([1.0 + p / 1e4], [ratio * (1.0 + p / 1e4)]),
                quality(0.8, 0.8 - loss),
            ],
            stack=stack,
            scenarios=("single-stream", "quality"),
        )
        for p in range(processes)
    ]


def verdict(run: Run, metric: str) -> str:
    (found,) = (e.verdict for e in run.effects if e.metric == metric and e.stack == "fast")
    return found


class TestLoad:
    def test_a_run_in_progress_is_a_run(self, tmp_path: Path) -> None:
        run = run_of(tmp_path)
        assert (run.trials, run.effects, run.warnings, run.summary) == ([], [], [], None)

    def test_the_summary_is_read_once_it_is_there(self, tmp_path: Path) -> None:
        run_of(tmp_path)
        write_json(tmp_path / "summary.json", Summary(wall=2, work=1, finished=True))
        summary = Run.load(tmp_path).summary
        assert summary is not None
        assert (summary.wall, summary.out_of_budget) == (2, False)

    @pytest.mark.parametrize("missing", ["plan.json", "environment.json"])
    def test_a_folder_without_its_files_is_no_run(self, tmp_path: Path, missing: str) -> None:
        run_of(tmp_path)
        (tmp_path / missing).unlink()
        with pytest.raises(LeanRecError, match=f"is not a run: it has no {missing}"):
            Run.load(tmp_path)

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("plan.json", b"{"),
            ("plan.json", b"[]"),
            ("plan.json", b"\xff\xfe"),
            ("environment.json", b"{"),
            ("summary.json", b'{"wall": 1}'),
        ],
    )
    def test_a_corrupt_file_is_named(self, tmp_path: Path, file: str, content: bytes) -> None:
        run_of(tmp_path)
        (tmp_path / file).write_bytes(content)
        with pytest.raises(LeanRecError, match="is not readable") as caught:
            Run.load(tmp_path)
        assert "Restore" in caught.value.fix

    def test_a_file_is_no_run(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(LeanRecError, match=r"is not readable|is not a run"):
            Run.load(tmp_path / "file")


class TestEffects:
    def test_the_certificates_noise_floor_widens_the_margin(self, tmp_path: Path) -> None:
        assert verdict(run_of(tmp_path / "a", *series(1.05)), "latency") == "slower"
        assert verdict(run_of(tmp_path / "b", *series(1.05), floor=0.08), "latency") == "equivalent"

    def test_a_host_without_a_certificate_has_no_floor(self) -> None:
        assert noise_floor({"certificate": None}) == noise_floor({}) == {}


class TestFailures:
    def test_a_clean_run_has_none(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, *series(0.5), *series(1.0, "control"))
        assert (run.failures, run.warnings) == ([], [])
        assert exit_code(run) == 0

    def test_a_corrupt_record_a_failed_trial_and_a_voided_cell_are_each_told(
        self, tmp_path: Path
    ) -> None:
        run_of(tmp_path, *series(0.5))
        void = trial(5, [failure("single-stream", "skipped_work", "half the batches")])
        crash = trial(6, [], status="crash", cause="killed by signal 11")
        for made in (void, crash):
            write_trial(tmp_path / "records", made)
        (tmp_path / "records" / "x.jsonl").write_text("{")
        run = Run.load(tmp_path)
        text = "\n".join(run.failures)
        for part in ("x.jsonl", "half the batches", "crash: killed by signal 11"):
            assert part in text
        assert exit_code(run) == 2
        assert verdict(run, "latency") == "failed"

    def test_an_a_a_arm_that_comes_out_different_makes_the_run_suspect(
        self, tmp_path: Path
    ) -> None:
        run = run_of(tmp_path, *series(1.3, "control"))
        assert "A/A arm came out slower" in run.failures[0]
        assert exit_code(run) == 2

    def test_a_warning_seen_often_is_told_once_with_its_count(self, tmp_path: Path) -> None:
        event = EventRow(scenario="offline", name="not_steady", severity="warning", detail="why")
        run = run_of(tmp_path, *(trial(p, [event]) for p in range(3)))
        assert run.failures == []
        assert run.warnings == ["toy × offline: not_steady: 3 times, for example fast: why"]
        assert exit_code(run) == 0


class TestGates:
    def test_a_loss_beyond_the_margin_breaks_the_gate(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, *series(1.0, loss=0.1), gate="mlperf-99")
        (broken,) = broken_gates(run)
        assert gate_text(broken, run) == "toy × fast: auc is inferior under mlperf-99"
        assert exit_code(run) == 1

    def test_a_loss_within_it_keeps_the_gate(self, tmp_path: Path) -> None:
        run = run_of(tmp_path, *series(1.0, loss=0.001), gate="mlperf-99")
        assert broken_gates(run) == []
        assert exit_code(run) == 0

    def test_the_named_margin_is_the_one_that_counts(self, tmp_path: Path) -> None:
        assert broken_gates(run_of(tmp_path, *series(1.0, loss=0.003), gate="mlperf-99.9"))

    def test_without_a_gate_nothing_can_break(self, tmp_path: Path) -> None:
        assert exit_code(run_of(tmp_path, *series(1.0, loss=0.1))) == 0

    def test_one_process_is_inconclusive_which_is_no_pass(self, tmp_path: Path) -> None:
        wide = [-0.1 if i % 2 else 0.1 for i in range(50)]
        made = trial(0, [quality(0.8, 0.8, replicates=wide)], scenarios=("quality",))
        assert broken_gates(run_of(tmp_path, made, gate="mlperf-99"))

    def test_what_could_not_be_measured_outweighs_the_gate(self, tmp_path: Path) -> None:
        crash = trial(9, [], status="crash", cause="x", scenarios=("single-stream",))
        run = run_of(tmp_path, *series(1.0, loss=0.1), crash, gate="mlperf-99")
        assert exit_code(run) == 2
