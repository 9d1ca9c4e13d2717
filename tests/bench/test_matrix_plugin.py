"""`pytest bench`: one test a cell over the same engine, and no other session disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_worker import FakeWorkers
from front_door import TINY, environment, tiny_suite
from made_trials import quality

import bench.matrix
from bench import runner
from bench.campaign import artefact_store
from bench.device import get_device
from bench.plan import make_plan
from bench.records import BlockRow, EndRow, Trial, read_trials
from bench.suite import load_suite
from bench.worker import TrialSpec

pytest_plugins = ["pytester"]

CELLS = [
    "toy-control-single_stream-cpu",
    "toy-control-quality-cpu",
    "toy-prune_unstructured-single_stream-cpu",
    "toy-prune_unstructured-quality-cpu",
]
HALF = "prune-unstructured"
TIMED = {CELLS[0], CELLS[2]}


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All that a plan imports is loaded: pytester forgets the modules that its sessions import."""
    suite = load_suite(str(tiny_suite(tmp_path_factory.mktemp("suite"))))
    make_plan(suite, get_device("cpu"), artefact_store())


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> FakeWorkers:
    """Workers that find the stack twice as fast."""
    fake = FakeWorkers({HALF: 0.5})
    monkeypatch.setattr(runner, "run_worker", fake)
    return fake


@pytest.fixture
def matrix(pytester: pytest.Pytester, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the matrix of the tiny suite in this process; records go to ``run``.

    Only the plug-ins that are needed are loaded, which is quicker.
    """
    tiny_suite(pytester.path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(*arguments: str) -> pytest.RunResult:
        result = pytester.runpytest_inprocess(
            "--pyargs", "bench", "--suite", "tiny.toml", "--out", "run", "-p", "no:cacheprovider",
            "-p", "bench.plugin", "-p", "pytest_benchmark.plugin", *arguments,
        )  # fmt: skip
        assert "Traceback" not in result.stdout.str() + result.stderr.str()
        return result

    return run


def collected(result: pytest.RunResult) -> list[str]:
    return [line.partition("[")[2][:-1] for line in result.outlines if "::test_cell[" in line]


class TestCollection:
    def test_one_test_a_cell_with_its_id(self, matrix: Any) -> None:
        result = matrix("--collect-only", "-q")
        assert collected(result) == CELLS
        assert not Path("run").exists()

    def test_nothing_else_of_the_package_is_collected(self, matrix: Any) -> None:
        lines = matrix("--collect-only", "-q").outlines
        assert all("test_matrix.py::test_cell[" in line for line in lines if "::" in line)

    def test_options_choose_baseline_technique_and_scenario(self, matrix: Any) -> None:
        baseline = TINY.split("'")[1].replace("toy", "other").replace("width=16", "width=8")
        result = matrix(
            "--collect-only", "-q", "--baseline", baseline, "--technique", "bf16",
            "--scenario", "offline(batch_sizes=[8])",
        )  # fmt: skip
        assert collected(result) == [
            f"other-{stack}-{scenario}-cpu"
            for stack in ("control", "bf16")
            for scenario in ("offline", "quality")
        ]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--technique", "int8-liner"], "Did you mean int8-linear"),
            (["--device", "tpu"], "Known: cpu, cuda"),
            (["--budget", "-1"], "budget_seconds"),
            (["--plugin", "nowhere.py"], "does not exist"),
            (["-p", "xdist", "-n", "2"], "refuses to run under xdist"),
        ],
    )
    def test_a_mistake_ends_the_session_with_one_message(
        self, matrix: Any, arguments: list[str], said: str
    ) -> None:
        result = matrix(*arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert said in result.stderr.str()
        assert not Path("run").exists()


class TestSession:
    def test_every_cell_passes_and_the_records_are_told(self, matrix: Any) -> None:
        result = matrix()
        result.assert_outcomes(passed=4)
        result.stdout.fnmatch_lines(["LeanRec records: run", "*Wall time ÷ work of the trials: *"])
        trials, problems = read_trials(Path("run/records"))
        assert (len(trials), problems) == (10, [])

    def test_k_leaves_out_of_the_run_what_it_leaves_out_of_the_session(
        self, matrix: Any, workers: FakeWorkers
    ) -> None:
        result = matrix("-k", "single_stream and prune")
        result.assert_outcomes(passed=1, deselected=3)
        plan = json.loads(Path("run/plan.json").read_text())
        kept = {(c["cell"]["stack"], c["cell"]["scenario"]) for c in plan["cells"]}
        assert kept == {(HALF, "single-stream"), (HALF, "quality"), ("control", "single-stream")}
        assert workers.count("measure", "control") == 0

    def test_a_skipped_cell_gives_its_reason(self, matrix: Any) -> None:
        result = matrix("-rs", "--technique", "int8-linear(min_width=4096)")
        result.assert_outcomes(passed=2, skipped=2)
        result.stdout.fnmatch_lines(["SKIPPED*finds no linear layer at least 4096 wide*"])

    def test_the_durations_measured_are_those_of_pytest_benchmark(self, matrix: Any) -> None:
        result = matrix("--benchmark-json", "out.json")
        result.assert_outcomes(passed=4)
        result.stdout.fnmatch_lines(["*benchmark 'toy single-stream cpu': 2 tests*"])
        assert_benchmarks(Path("out.json"), Path("run"))

    def test_a_benchmark_carries_the_effects_of_its_cell(self, matrix: Any) -> None:
        matrix("--benchmark-json", "out.json")
        found = {b["param"]: b for b in json.loads(Path("out.json").read_text())["benchmarks"]}
        (latency,) = (
            e for e in found[CELLS[2]]["extra_info"]["effects"] if e["metric"] == "latency"
        )
        assert latency["verdict"] == "faster"

    def test_what_voids_a_cell_fails_its_test_and_no_other(
        self, matrix: Any, workers: FakeWorkers
    ) -> None:
        crash = EndRow(status="crash", cause="killed by signal 11 (SIGSEGV)", wall=1.0)
        workers.ends = lambda s: crash if (s.mode, s.stack) == ("measure", HALF) else None
        result = matrix()
        result.assert_outcomes(passed=2, failed=2)
        result.stdout.fnmatch_lines(["*killed by signal 11*"])

    def test_a_broken_gate_fails_the_test_of_its_cell(
        self, matrix: Any, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiny_suite(pytester.path, TINY + '[gates]\nquality = "mlperf-99"\n')
        honest = FakeWorkers()

        def harmful(spec: TrialSpec, limit: float, log: Path) -> Trial:
            made = honest(spec, limit, log)
            if (spec.mode, spec.stack) != ("measure", HALF):
                return made
            blocks = [row for row in made.rows if isinstance(row, BlockRow)]
            return made.model_copy(update={"rows": (*blocks, quality(0.8, 0.6))})

        monkeypatch.setattr(runner, "run_worker", harmful)
        result = matrix()
        result.assert_outcomes(passed=3, failed=1)
        result.stdout.fnmatch_lines(["*auc is inferior under mlperf-99*"])

    def test_a_folder_that_holds_a_run_fails_with_a_sentence(self, matrix: Any) -> None:
        matrix().assert_outcomes(passed=4)
        again = matrix()
        again.assert_outcomes(failed=4)
        again.stdout.fnmatch_lines(["*holds a run already*"])

    def test_the_run_is_let_go_at_the_end(self, matrix: Any) -> None:
        matrix()
        with runner.locked(Path("run")):
            pass


class TestOthers:
    """Sessions that have nothing to do with the matrix."""

    def test_an_option_of_theirs_may_have_the_same_name(self, pytester: pytest.Pytester) -> None:
        pytester.makeconftest(
            """
            def pytest_addoption(parser):
                for name in ("--device", "--suite", "--out", "--budget", "--plugin"):
                    parser.addoption(name, default="theirs")
            """
        )
        pytester.makepyfile(
            "def test_it(request): assert request.config.getoption('device') == 'theirs'"
        )
        pytester.runpytest_inprocess().assert_outcomes(passed=1)

    def test_a_folder_of_theirs_may_be_called_bench(self, pytester: pytest.Pytester) -> None:
        pytester.mkdir("bench").joinpath("test_theirs.py").write_text("def test_it(): pass")
        pytester.runpytest_inprocess("bench").assert_outcomes(passed=1)

    def test_nothing_heavy_is_loaded(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(
            """
            import sys

            def test_it(pytestconfig):
                assert pytestconfig.pluginmanager.hasplugin("leanrec")
                loaded = {"torch", "numpy", "pandas", "pydantic"} & sys.modules.keys()
                assert not loaded, loaded
            """
        )
        pytester.runpytest_subprocess("-p", "no:benchmark").assert_outcomes(passed=1)

    def test_the_matrix_is_left_out_of_a_session_over_the_whole_checkout(self) -> None:
        checkout = Path(bench.matrix.__file__).parents[1]
        listed = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--collect-only", ".", "--ignore", "tests",
             "--noconftest"],
            cwd=checkout, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "test_cell" not in listed.stdout


def assert_benchmarks(report: Path, run: Path, cells: set[str] = TIMED) -> None:
    """Each benchmark's data are the durations of its cell's records, to the last digit."""
    trials, _ = read_trials(run / "records")
    benchmarks = json.loads(report.read_text())["benchmarks"]
    assert {b["param"] for b in benchmarks} == cells
    for benchmark in benchmarks:
        stack = "control" if "control" in benchmark["param"] else HALF
        recorded = [
            ns / 1e9
            for made in trials
            if made.head.stack == stack
            for row in made.rows
            if isinstance(row, BlockRow) and row.arm == "treatment"
            for ns in row.durations_ns
        ]
        assert benchmark["stats"]["data"] == recorded
        assert benchmark["stats"]["rounds"] == len(recorded) > 20


@pytest.mark.slow
def test_the_matrix_from_a_checkout_with_real_workers(tmp_path: Path) -> None:
    suite = tiny_suite(tmp_path, TINY.replace('["prune-unstructured"]', "[]"))
    ended = subprocess.run(
        [
            sys.executable, "-m", "pytest", "bench", "--suite", suite, "--out", tmp_path / "run",
            "--benchmark-json", tmp_path / "out.json", "-p", "no:cacheprovider",
        ],
        cwd=Path(bench.matrix.__file__).parents[1],
        env={k: v for k, v in environment().items() if not k.startswith("PYTEST_")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout
    assert os.fspath(tmp_path / "run") in ended.stdout
    assert_benchmarks(tmp_path / "out.json", tmp_path / "run", TIMED & {CELLS[0]})
