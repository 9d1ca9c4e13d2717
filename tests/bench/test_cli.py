"""The command line: verbs, JSON, exit codes, what is said of mistakes. Workers are stood in for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_worker import QUICK, FakeWorkers
from front_door import TINY, Leanrec, tiny_suite
from made_trials import LATENCY, trial

from bench import certify, runner
from bench.protocol import Protocol
from bench.records import BlockRow, EndRow, Trial
from bench.run import Run
from bench.worker import TrialSpec

REQUIRED = {
    "baseline", "stack", "scenario", "device", "metric", "unit", "direction", "control",
    "treatment", "effect", "low", "high", "verdict", "n_processes", "n_blocks",
}  # fmt: skip
GATED = TINY + '[gates]\nquality = "mlperf-99"\n'


@pytest.fixture
def leanrec(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Leanrec:
    """The command, in this process."""
    return Leanrec(monkeypatch, capsys)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> FakeWorkers:
    """Workers that find a stack twice as fast as the control."""
    fake = FakeWorkers({"prune-unstructured": 0.5})
    monkeypatch.setattr(runner, "run_worker", fake)
    return fake


@pytest.fixture
def measured(tmp_path: Path, leanrec: Leanrec, workers: FakeWorkers) -> Path:
    """The folder of a finished run."""
    folder = tmp_path / "measured"
    assert leanrec("run", tiny_suite(tmp_path), "--out", folder).code == 0
    return folder


class TestList:
    @pytest.mark.parametrize(
        ("kind", "some"),
        [
            ("baselines", {"dcnv2", "two-tower"}),
            ("datasets", {"ml-100k", "planted"}),
            ("techniques", {"int8-linear", "bf16", "compile"}),
            ("scenarios", {"offline", "single-stream", "train", "quality"}),
            ("suites", {"default", "demo", "smoke", "wide"}),
        ],
    )
    def test_each_kind_is_listed_with_a_line_on_each(
        self, leanrec: Leanrec, kind: str, some: set[str]
    ) -> None:
        rows = leanrec("list", kind, "--json").json
        assert some <= {row["name"] for row in rows}
        assert not [row for row in rows if len(row["about"]) <= 10]
        shown = leanrec("list", kind).text
        assert all(row["name"] in shown and row["about"] in shown for row in rows)

    def test_parameters_stand_with_their_defaults(self, leanrec: Leanrec) -> None:
        rows = {row["name"]: row for row in leanrec("list", "techniques", "--json").json}
        assert rows["int8-linear"]["parameters"] == {"min_width": 64}
        assert "min_width=64" in leanrec("list", "techniques").text

    def test_an_unknown_kind_is_refused_with_the_known(self, leanrec: Leanrec) -> None:
        said = leanrec("list", "tecniques")
        assert said.code == 2
        assert "baselines, datasets, techniques, scenarios, suites" in said.text


class TestRun:
    def test_a_good_run_ends_with_0_its_verdicts_and_where_all_is(
        self, tmp_path: Path, leanrec: Leanrec, workers: FakeWorkers
    ) -> None:
        said = leanrec("run", tiny_suite(tmp_path), "--out", tmp_path / "a run")
        assert said.code == 0
        assert "2.00× faster" in said.out
        assert f"Records: {tmp_path}/a run" in said.out
        assert f"leanrec report '{tmp_path}/a run'" in said.out
        assert "measure toy × prune-unstructured #1 1.0 s" in said.err
        assert {p.name for p in (tmp_path / "a run").iterdir()} >= {
            "plan.json",
            "environment.json",
            "records",
            "summary.json",
        }

    def test_options_replace_what_the_suite_names(
        self, tmp_path: Path, leanrec: Leanrec, workers: FakeWorkers
    ) -> None:
        said = leanrec(
            "run", tiny_suite(tmp_path), "--out", tmp_path / "r", "--technique", "bf16",
            "--technique", "int8-embedding", "--scenario", "offline(batch_sizes=[8])",
            "--budget", 1000,
        )  # fmt: skip
        assert said.code == 0
        plan = Run.load(tmp_path / "r").plan
        assert plan.stacks.keys() == {"control", "bf16", "int8-embedding"}
        assert plan.scenarios["offline"] == "offline(batch_sizes=[8])"
        assert plan.budget_seconds == 1000

    def test_without_out_the_folder_is_named_after_the_suite(
        self,
        tmp_path: Path,
        leanrec: Leanrec,
        workers: FakeWorkers,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        suite = tiny_suite(tmp_path, 'name = "a/b \\"c\\" – Größe"\n' + TINY)
        assert leanrec("run", suite).code == 0
        (folder,) = (tmp_path / "runs").iterdir()
        assert folder.name.startswith("a_b_c_Größe-")

    def test_a_broken_gate_is_1_and_said(
        self, tmp_path: Path, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Harmful(FakeWorkers):
            def __call__(self, spec: TrialSpec, limit: float, log: Path) -> Trial:
                made = super().__call__(spec, limit, log)
                loss = 0.1 if spec.stack != "control" else 0.0
                rows = [
                    r.model_copy(update={"treatment": 0.8 - loss, "replicates": (-loss,) * 50})
                    if r.kind == "quality"
                    else r
                    for r in made.rows
                ]
                return made.model_copy(update={"rows": tuple(rows)})

        monkeypatch.setattr(runner, "run_worker", Harmful())
        suite = tiny_suite(tmp_path, GATED)
        said = leanrec("run", suite, "--out", tmp_path / "r")
        assert said.code == 1
        gate = "gate failed: toy × prune-unstructured: auc is inferior under mlperf-99"
        assert gate in said.err
        assert leanrec("show", tmp_path / "r").code == 1
        assert leanrec("run", tiny_suite(tmp_path), "--out", tmp_path / "without").code == 0

    def test_what_could_not_be_measured_is_2_and_the_rest_is_shown(
        self, tmp_path: Path, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        crash = EndRow(status="crash", cause="killed by signal 11 (SIGSEGV)", wall=1.0)
        fake = FakeWorkers(
            {"bf16": 0.5},
            ends=lambda s: (
                crash if (s.mode, s.stack) == ("measure", "prune-unstructured") else None
            ),
        )
        monkeypatch.setattr(runner, "run_worker", fake)
        said = leanrec(
            "run", tiny_suite(tmp_path), "--out", tmp_path / "r",
            "--technique", "prune-unstructured", "--technique", "bf16",
        )  # fmt: skip
        assert said.code == 2
        assert "killed by signal 11" in said.text
        assert "2.00× faster" in said.out
        assert leanrec("show", tmp_path / "r").code == 2

    def test_a_second_run_into_a_folder_needs_resume(
        self, tmp_path: Path, leanrec: Leanrec, measured: Path, workers: FakeWorkers
    ) -> None:
        before = sorted((p, p.read_bytes()) for p in measured.rglob("*") if p.is_file())
        said = leanrec("run", tiny_suite(tmp_path), "--out", measured)
        assert said.code == 2
        assert "holds a run already" in said.text
        assert "--resume" in said.text
        assert before == sorted((p, p.read_bytes()) for p in measured.rglob("*") if p.is_file())

    def test_a_finished_run_resumed_runs_nothing(
        self, tmp_path: Path, leanrec: Leanrec, measured: Path, workers: FakeWorkers
    ) -> None:
        count = len(workers.specs)
        assert leanrec("run", tiny_suite(tmp_path), "--out", measured, "--resume").code == 0
        assert len(workers.specs) == count

    def test_a_run_is_resumed_only_with_its_own_plan(
        self, tmp_path: Path, leanrec: Leanrec, measured: Path
    ) -> None:
        other = tiny_suite(tmp_path, TINY.replace("pairs = 2", "pairs = 4"), "other.toml")
        other.rename(tmp_path / "tiny.toml")
        said = leanrec("run", tmp_path / "tiny.toml", "--out", measured, "--resume")
        assert said.code == 2
        assert "another plan" in said.text

    def test_a_budget_may_change_on_resume(
        self, tmp_path: Path, leanrec: Leanrec, measured: Path
    ) -> None:
        suite = tmp_path / "tiny.toml"
        assert leanrec("run", suite, "--out", measured, "--resume", "--budget", 60).code == 0
        assert Run.load(measured).plan.budget_seconds == 60

    def test_resume_of_nothing_starts(
        self, tmp_path: Path, leanrec: Leanrec, workers: FakeWorkers
    ) -> None:
        folder = tmp_path / "new"
        assert leanrec("run", tiny_suite(tmp_path), "--out", folder, "--resume").code == 0

    def test_ctrl_c_says_how_to_go_on(
        self, tmp_path: Path, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(spec: TrialSpec, limit: float, log: Path) -> Trial:
            raise KeyboardInterrupt

        monkeypatch.setattr(runner, "run_worker", interrupted)
        folder = tmp_path / "it's here"
        said = leanrec("run", tiny_suite(tmp_path), "--out", folder)
        assert said.code == 2
        assert "Interrupted" in said.text
        assert "--resume" in said.text
        assert "'\"'\"'s here'" in said.text  # quoted for a shell

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--device", "tpu"], "Known: cpu, cuda"),
            (["--budget", "-1"], "budget_seconds"),
            (["--budget", "soon"], "budget"),
            (["--technique", "int8-liner"], "Did you mean int8-linear"),
            (["--baseline", "dcn"], "Did you mean dcnv2"),
            (["--scenario", "ofline"], "Did you mean offline"),
            (["--plugin", "nowhere.py"], "does not exist"),
            (["--tecnique", "bf16"], "No such option"),
        ],
    )
    def test_a_wrong_option_is_2_and_writes_nothing(
        self, tmp_path: Path, leanrec: Leanrec, arguments: list[str], said: str
    ) -> None:
        ended = leanrec("run", tiny_suite(tmp_path), "--out", tmp_path / "r", *arguments)
        assert ended.code == 2
        assert said in ended.text
        assert not (tmp_path / "r").exists()


class TestShow:
    def test_json_has_one_object_a_cell_and_metric(self, leanrec: Leanrec, measured: Path) -> None:
        rows = leanrec("show", measured, "--json").json
        assert all(row.keys() >= REQUIRED for row in rows)
        (latency,) = (
            r for r in rows if r["metric"] == "latency" and r["stack"] == "prune-unstructured"
        )
        assert latency["verdict"] == "faster"
        assert latency["effect"] == pytest.approx(0.5)
        assert latency["low"] <= latency["effect"] <= latency["high"]
        assert (latency["n_processes"], latency["n_blocks"]) == (2, 8)
        assert (latency["unit"], latency["direction"]) == ("s", "lower")
        keys = [
            (r["baseline"], r["stack"], r["scenario"], r["metric"], r["point"], r["segment"])
            for r in rows
        ]
        assert len(set(keys)) == len(keys)

    def test_a_corrupt_record_is_told_with_its_line_and_the_rest_is_shown(
        self, leanrec: Leanrec, measured: Path
    ) -> None:
        broken = next((measured / "records").glob("*memory-0.jsonl"))
        broken.write_text(broken.read_text()[:50])
        said = leanrec("show", measured)
        assert said.code == 2
        assert f"{broken.name} is corrupt at line 1" in said.text.replace("\n", "")
        assert "2.00× faster" in said.out
        assert leanrec("show", measured, "--json").code == 2

    @pytest.mark.parametrize("name", ["nowhere", "tiny.toml", "."])
    def test_what_is_no_run_is_2(self, tmp_path: Path, leanrec: Leanrec, name: str) -> None:
        tiny_suite(tmp_path)
        said = leanrec("show", tmp_path / name)
        assert said.code == 2
        assert "--out in 'leanrec run'" in said.text or "not readable" in said.text


class TestCompare:
    def test_a_run_with_itself_is_unchanged(self, leanrec: Leanrec, measured: Path) -> None:
        said = leanrec("compare", measured, measured, "--json")
        assert said.code == 0
        verdicts = {(row["metric"], row["verdict"]) for row in said.json}
        assert ("latency", "unchanged") in verdicts
        assert "unchanged" in leanrec("compare", measured, measured).text

    def test_worse_is_1(
        self,
        tmp_path: Path,
        leanrec: Leanrec,
        measured: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(runner, "run_worker", FakeWorkers({"prune-unstructured": 0.7}))
        slower = tmp_path / "slower"
        assert leanrec("run", tiny_suite(tmp_path), "--out", slower).code == 0
        assert leanrec("compare", measured, slower).code == 1
        assert leanrec("compare", slower, measured).code == 0
        said = leanrec("compare", measured, slower, "--json")
        (latency,) = (row for row in said.json if row["metric"] == "latency")
        assert latency["verdict"] == "worse"
        assert latency["change"] == pytest.approx(1.4)

    def test_runs_with_nothing_in_common_are_not_comparable(
        self, tmp_path: Path, leanrec: Leanrec, measured: Path
    ) -> None:
        other = tmp_path / "other"
        args = ("--out", other, "--technique", "bf16")
        assert leanrec("run", tiny_suite(tmp_path), *args).code == 0
        said = leanrec("compare", measured, other)
        assert said.code == 0
        assert "not comparable" in said.text
        rows = leanrec("compare", measured, other, "--json").json
        assert {row["verdict"] for row in rows} == {"not comparable"}
        assert all(row["reason"] for row in rows)

    def test_no_run_is_2(self, tmp_path: Path, leanrec: Leanrec, measured: Path) -> None:
        assert leanrec("compare", measured, tmp_path / "nowhere").code == 2


class TestReport:
    def test_every_format_is_written_where_it_was_asked_for(
        self, tmp_path: Path, leanrec: Leanrec, measured: Path
    ) -> None:
        to = tmp_path / "out – 1"
        said = leanrec("report", measured, "--format", "md,html,csv,json", "--out", to)
        assert said.code == 0
        for name in ("md", "html", "csv", "json"):
            assert (to / f"report.{name}").stat().st_size > 100
            assert f"{to}/report.{name}" in said.out
        json.loads((to / "report.json").read_text(encoding="utf-8"))

    def test_without_out_it_lies_in_the_run(self, leanrec: Leanrec, measured: Path) -> None:
        assert leanrec("report", measured, "--format", "csv").code == 0
        assert (measured / "report" / "report.csv").exists()

    def test_an_unknown_format_is_2(self, leanrec: Leanrec, measured: Path) -> None:
        said = leanrec("report", measured, "--format", "html,docx")
        assert said.code == 2
        assert "'docx'" in said.text
        assert not (measured / "report").exists()

    def test_a_folder_that_cannot_be_written_is_2(self, leanrec: Leanrec, measured: Path) -> None:
        said = leanrec("report", measured, "--out", measured / "plan.json" / "report")
        assert said.code == 2
        assert "cannot be written" in said.text


class TestDashboard:
    def test_no_run_is_2_and_starts_nothing(self, tmp_path: Path, leanrec: Leanrec) -> None:
        said = leanrec("dashboard", tmp_path / "nowhere")
        assert said.code == 2
        assert "is not a run" in said.text

    def test_a_port_that_does_not_exist_is_2(self, leanrec: Leanrec, measured: Path) -> None:
        assert leanrec("dashboard", measured, "--port", 70000).code == 2


class TestDoctor:
    def test_json_says_of_each_thing_what_was_seen_and_what_to_do(self, leanrec: Leanrec) -> None:
        said = leanrec("doctor", "--json")
        assert said.code == 0
        assert len(said.json) > 3
        for finding in said.json:
            assert finding["status"] in ("ok", "warn", "bad")
            assert finding["observed"]


class TestCertificate:
    @pytest.fixture
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> list[TrialSpec]:
        """Workers that give known truths at once, under a short protocol; the specs asked for."""
        specs: list[TrialSpec] = []

        def known(spec: TrialSpec, limit: float, log: Path) -> Trial:
            specs.append(spec)
            rows = [
                BlockRow(
                    scenario="single-stream", metric=LATENCY, pair=pair, arm=arm, position=position,
                    point={"batch": 512, "comparison": number, "injected_percent": percent},
                    value=1e-3 * (1 + percent / 100 * position), samples=20,
                    durations_ns=(1_000_000, 1_000_100, 999_900), dropped=2, outliers=0,
                )
                for number, percent in spec.comparisons
                for pair in range(2)
                for position, arm in ((0, "control"), (1, "treatment"))
            ]  # fmt: skip
            return trial(spec.process, rows, stack="control", mode="certificate")

        def protocol() -> Protocol:
            return QUICK

        monkeypatch.setattr(certify, "run_worker", known)
        monkeypatch.setattr(certify, "Protocol", protocol)
        return specs

    def test_json_holds_rates_with_their_intervals(
        self, leanrec: Leanrec, quick: list[TrialSpec]
    ) -> None:
        said = leanrec("certificate", "--comparisons", 25, "--json")
        assert said.code == 0
        made = said.json
        assert made["false_alarms"]["n"] == 25
        assert made["false_alarms"]["rate"] == 0
        found = {p["injected"]: p["found"]["rate"] for p in made["power"]}
        assert found[0.1] == found[0.05] == 1
        assert {percent for s in quick for _, percent in s.comparisons} == {0, 2, 5, 10}

    def test_a_run_on_this_host_carries_it_from_then_on(
        self, tmp_path: Path, leanrec: Leanrec, quick: list[TrialSpec], workers: FakeWorkers
    ) -> None:
        said = leanrec("certificate", "--comparisons", 5)
        assert "faster or slower" in said.out
        assert leanrec("run", tiny_suite(tmp_path), "--out", tmp_path / "r").code == 0
        certificate = Run.load(tmp_path / "r").environment["certificate"]
        assert certificate["false_alarms"]["n"] == 5

    def test_too_few_comparisons_are_2(self, leanrec: Leanrec) -> None:
        assert leanrec("certificate", "--comparisons", 4).code == 2

    def test_a_worker_that_fails_is_2_with_its_cause(
        self, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(spec: TrialSpec, limit: float, log: Path) -> Trial:
            return trial(0, [], mode="certificate", status="crash", cause="exited with 3: no torch")

        monkeypatch.setattr(certify, "run_worker", broken)
        said = leanrec("certificate", "--comparisons", 5)
        assert said.code == 2
        assert "exited with 3: no torch" in said.text


def test_without_a_verb_help_is_shown(leanrec: Leanrec) -> None:
    said = leanrec()
    for verb in ("list", "train", "speed", "run", "show", "compare", "report", "dashboard",
                 "certificate", "doctor", "profile"):  # fmt: skip
        assert verb in said.text


def test_markup_in_a_folders_name_is_no_markup(
    tmp_path: Path, leanrec: Leanrec, measured: Path
) -> None:
    odd = tmp_path / "[/red] [bold]x"
    shutil.copytree(measured, odd)
    said = leanrec("report", odd, "--format", "csv")
    assert said.code == 0
    assert str(odd) in said.out


def test_help_comes_before_anything_heavy_is_loaded() -> None:
    program = "import sys, bench.cli; print('torch' in sys.modules, 'pandas' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["False", "False"]
