"""A worker says how its trial ended, whatever a technique does; and what it holds in memory."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from front_door import until
from small_trials import (
    FRAUDS,
    accusations,
    end_of,
    run,
    spec,
)

from bench import launch, memory, worker
from bench.records import ROW, EndRow, EventRow, TrialRow, ValueRow
from bench.runner import run_worker

LOAD = "single-stream(batch_sizes=[4])"
HELD = 64 * 2**20  # bytes that the technique honest-bytes holds


def test_a_trial_begins_with_its_head_and_ends_with_its_end() -> None:
    rows = run("honest", LOAD, process=3)
    head, end = rows[0], end_of(rows)
    assert isinstance(head, TrialRow)
    assert (head.stack, head.mode, head.process, head.seed) == ("honest", "measure", 3, 3)
    assert head.scenarios == ("single-stream",)
    assert end.status == "ok"
    assert {"load", "preparation", "checks", "blocks", "start"} <= set(end.phases)
    assert sum(end.phases.values()) <= end.wall + 0.01


def test_a_training_trial_trains_and_says_how_long_it_took(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(worker, "all_threads", lambda: 1)
    first, second = (run("control", mode="train", store=tmp_path) for _ in range(2))
    for rows in (first, second):
        assert [type(row) for row in rows] == [TrialRow, EndRow]
        assert accusations(rows) == set()
    assert end_of(first).phases["training"] > end_of(second).phases["training"]


@pytest.mark.parametrize(
    ("how", "status", "cause"),
    [
        ("error", "error", r"ValueError: the kernel \(frauds\.py, line \d+\)"),
        ("memory", "out_of_memory", "the process could not get memory"),
        ("allocation", "out_of_memory", r"RuntimeError: .*allocate memory"),
    ],
)
def test_how_a_trial_ended_is_told_in_one_line(how: str, status: str, cause: str) -> None:
    end = end_of(run(f'fails(how="{how}")', LOAD))
    assert end.status == status
    assert "\n" not in end.cause
    assert re.fullmatch(cause + ".*", end.cause), end.cause


def test_a_training_that_diverges_is_non_finite() -> None:
    end = end_of(run("diverges", LOAD))
    assert end.status == "non_finite"
    assert "epoch 1" in end.cause


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"stack_spec": "nonsuch"}, "Unknown technique 'nonsuch'"),
        ({"baseline_spec": "dcnv3"}, "Did you mean dcnv2"),
        ({"scenarios": ("ofline",)}, "Did you mean offline"),
        ({"device": "tpu"}, "Unknown device"),
        ({"plugins": (Path("missing.py"),)}, "does not exist"),
    ],
)
def test_a_mistake_of_the_user_is_an_error_with_its_mend(
    changes: dict[str, object], cause: str
) -> None:
    end = end_of(run("control", LOAD, **changes))
    assert end.status == "error"
    assert cause in end.cause


def test_rows_that_came_before_a_failure_are_kept() -> None:
    rows = run("honest", LOAD, "nonsuch-load", plugins=(FRAUDS,))
    assert end_of(rows).status == "error"  # specs are read before anything is measured
    assert len(rows) == 2
    rows = run("control", LOAD, "train(target=0.5, threads=-1)")
    assert end_of(rows).status == "error"
    assert len(rows) > 2


@pytest.fixture
def small_memory_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "INFERENCE_CALLS", 4)


def held(stack: str, *scenarios: str) -> dict[str, float]:
    rows = run(stack, *scenarios, mode="memory")
    assert accusations(rows) == set()
    found = {row.metric.name: row.value for row in rows if isinstance(row, ValueRow)}
    arms = {row.arm for row in rows if isinstance(row, ValueRow)}
    assert arms == {"control" if stack == "control" else "treatment"}
    return found


@pytest.mark.usefixtures("small_memory_pass")
def test_an_allocation_of_known_bytes_shows_in_the_memory_pass() -> None:
    control, treatment = held("control", "offline"), held("honest-bytes", "offline")
    assert treatment["model_bytes"] - control["model_bytes"] == HELD
    for metric in ("steady_memory", "peak_memory"):
        added = treatment[metric] - control[metric]
        assert 0.9 * HELD < added < 1.2 * HELD, metric


@pytest.mark.usefixtures("small_memory_pass")
def test_memory_of_training_and_of_serving_stand_under_their_scenarios() -> None:
    rows = run("control", "offline", "train", mode="memory")
    found = {(r.scenario, r.metric.name) for r in rows if isinstance(r, ValueRow)}
    assert found == {
        ("offline", "model_bytes"),
        *((s, m) for s in ("offline", "train") for m in ("peak_memory", "steady_memory")),
    }


def written(*arguments: str, **more: object) -> tuple[list[str], str, int]:
    """What a worker process writes to stdout and stderr, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bench.worker"],
        input=spec(*arguments, **more).model_dump_json(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.stdout.splitlines(), done.stderr, done.returncode


@pytest.mark.slow
def test_what_a_library_prints_is_no_record_and_a_traceback_is_for_the_log() -> None:
    lines, log, code = written("fails", LOAD)
    rows = [ROW.validate_json(line) for line in lines]
    assert end_of(rows).status == "error"
    assert code == 0
    for noise in ("printed by a library", "written by a C library", "Traceback"):
        assert noise in log
        assert not any(noise in line for line in lines)


def ended(how: str, limit: float, log: Path) -> EndRow:
    trial = run_worker(spec(f'fails(how="{how}")', LOAD), limit, log)
    assert trial.head.stack == f'fails(how="{how}")'
    return trial.end


@pytest.mark.slow
def test_a_killed_worker_is_a_recorded_crash(tmp_path: Path) -> None:
    end = ended("killed", 600, tmp_path / "log")
    assert (end.status, "signal 9" in end.cause) == ("crash", True)


@pytest.mark.slow
def test_a_worker_that_exits_is_a_recorded_crash_with_its_last_words(tmp_path: Path) -> None:
    end = ended("exit", 600, tmp_path / "log")
    assert end.status == "crash"
    assert end.cause == "exited with 1: gave up"


@pytest.mark.slow
def test_a_worker_that_hangs_is_stopped_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is over when the worker hangs, however long it took to come so far."""
    log, noise = tmp_path / "log", "printed by a library"

    class Limit(threading.Timer):
        def run(self) -> None:
            assert until(lambda: noise in log.read_text())
            self.function(*self.args)

    monkeypatch.setattr(launch.threading, "Timer", Limit)
    end = ended("hangs", 15, log)
    assert (end.status, end.cause) == ("timeout", "did not end within 15 s")
    assert noise in log.read_text()


def test_a_worker_stopped_before_it_could_speak_is_a_timeout(tmp_path: Path) -> None:
    for _ in range(5):
        trial = run_worker(spec("control", LOAD), 0.05, tmp_path / "log")
        assert trial.end.status == "timeout"
        assert trial.rows == ()
        assert not any(isinstance(row, EventRow) for row in trial.rows)
