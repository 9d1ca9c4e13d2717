"""The harness is tested by fraud: cheats are caught, and their honest counterparts not accused."""

from __future__ import annotations

import pytest
import torch
from small_trials import DCNV2, accusations, run

from bench import memory
from bench.records import BlockRow, EventRow, QualityRow

LATENCY = "single-stream(batch_sizes=[256])"
THROUGHPUT = "offline(batch_sizes=[256])"
TOWERS = "small-towers"


@pytest.mark.parametrize(
    "stack", ["control", "honest", "honest-buffer", "honest-numerics", "honest-bytes", "bf16"]
)
def test_who_does_the_work_is_not_accused(stack: str) -> None:
    rows = run(stack, LATENCY, THROUGHPUT, "quality")
    assert accusations(rows) == set()
    assert len([row for row in rows if isinstance(row, BlockRow)]) == 16


@pytest.mark.parametrize("scenario", [LATENCY, THROUGHPUT])
@pytest.mark.parametrize(
    ("fraud", "accusation"),
    [
        ("skips", "output_mismatch"),
        ("keeps-last", "output_mismatch"),
        ("small-only", "output_mismatch"),
        ("knows-the-clock", "output_mismatch"),
        ("by-identity", "answers_kept"),
        ("by-content", "answers_kept"),
        ("lazy", "unsynchronised"),
    ],
)
def test_who_does_less_work_is_caught(fraud: str, accusation: str, scenario: str) -> None:
    loads = [scenario, scenario] if fraud == "skips" else [scenario]  # one load sees 63 in 64
    assert accusation in accusations(run(fraud, *loads))


@pytest.mark.parametrize("scenario", [LATENCY, THROUGHPUT])
def test_a_declared_cache_is_noted_and_not_accused(scenario: str) -> None:
    rows = run("by-content-said", scenario)
    assert accusations(rows) == set()
    (note,) = [row for row in rows if isinstance(row, EventRow) and row.name == "repeats"]
    assert note.severity == "note"


def test_the_hits_of_a_cache_stand_beside_its_speed() -> None:
    rows = run("lru-cache", LATENCY, THROUGHPUT)
    assert accusations(rows) == set()
    notes = [r for r in rows if isinstance(r, EventRow) and r.name == "hits"]
    assert [r.scenario for r in notes] == ["single-stream", "offline"]
    assert all("batch=256" in r.detail and "%" in r.detail for r in notes)


def test_the_accusation_voids_the_scenario_and_names_the_arm() -> None:
    rows = run("skips", LATENCY, LATENCY)
    found = [r for r in rows if isinstance(r, EventRow) and r.name == "output_mismatch"]
    assert {(r.scenario, r.severity) for r in found} == {("single-stream", "failure")}
    assert {r.detail.split()[0] for r in found} == {"treatment"}


@pytest.mark.parametrize("how", ["weights", "module", "hook", "forward"])
def test_who_changes_the_control_is_caught(how: str) -> None:
    assert "control_mutated" in accusations(run(f'mutates(how="{how}")', LATENCY))


def test_who_changes_the_control_while_serving_is_caught() -> None:
    assert "control_mutated" in accusations(run("mutates-late", LATENCY))


def test_nan_is_caught_in_the_timed_run_and_in_the_test_set() -> None:
    assert "non_finite" in accusations(run("nan", LATENCY))
    rows = run("nan", "quality")
    assert {r.scenario for r in rows if isinstance(r, EventRow) and r.name == "non_finite"} == {
        "",
        "quality",
    }


@pytest.mark.parametrize("baseline", [DCNV2, TOWERS])
def test_nan_for_one_user_alone_is_caught_by_the_whole_test_set(baseline: str) -> None:
    rows = run("rare-nan", "quality", baseline=baseline)
    assert "quality" in {r.scenario for r in rows if isinstance(r, EventRow)}
    honest = run("honest", "quality", baseline=baseline)
    assert accusations(honest) == set()
    assert all(set(r.replicates) == {0.0} for r in honest if isinstance(r, QualityRow))


def test_who_changes_numerics_and_declares_only_size_is_caught() -> None:
    rows = run("size-only", "quality")
    assert accusations(rows) == {"undeclared_change"}
    (event,) = [r for r in rows if isinstance(r, EventRow) and r.severity == "failure"]
    assert "numerics" in event.detail
    assert event.scenario == ""  # nothing of the trial can be believed


def test_who_changes_what_it_declares_is_not_accused() -> None:
    assert accusations(run("int8-embedding", "quality")) == set()


@pytest.fixture
def small_memory_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "INFERENCE_CALLS", 4)


@pytest.mark.usefixtures("small_memory_pass")
def test_a_leak_is_caught_and_told_in_bytes() -> None:
    rows = run("leaks", "offline", mode="memory")
    assert accusations(rows) == {"memory_leak"}
    (event,) = [r for r in rows if isinstance(r, EventRow)]
    assert f" {4 * 4 * 1000} more bytes" in event.detail  # calls, bytes of a float, floats a call


@pytest.mark.usefixtures("small_memory_pass")
@pytest.mark.parametrize("stack", ["control", "honest-buffer", "by-identity"])
def test_what_is_held_once_is_no_leak(stack: str) -> None:
    assert accusations(run(stack, "offline", mode="memory")) == set()


@pytest.mark.usefixtures("small_memory_pass")
def test_training_is_no_leak() -> None:
    assert accusations(run("control", "train", mode="memory")) == set()


@pytest.mark.parametrize(
    ("scenario", "accusation"),
    [
        ("honest-load", None),
        ("claims-more", "sample_count"),
        ("claims-faster", "value_mismatch"),
        ("claims-nothing-timed", "sample_count"),
    ],
)
def test_a_scenario_that_lies_is_caught(scenario: str, accusation: str | None) -> None:
    rows = run("control", f"{scenario}(batch_sizes=[64])")
    assert accusations(rows) == ({accusation} if accusation else set())


@pytest.mark.cuda
def test_a_side_stream_is_waited_for() -> None:
    from bench.device import get_device
    from bench.meters.clock import time_each

    device = get_device("cuda")
    stream = torch.cuda.Stream()
    matrices = [device.move((torch.randn(4096, 4096),)) for _ in range(4)]

    def aside(matrix: torch.Tensor) -> torch.Tensor:
        with torch.cuda.stream(stream):
            return matrix @ matrix

    for call in (aside, lambda m: m @ m):
        time_each(call, matrices, device.synchronize)
    hidden, _ = time_each(aside, matrices, device.synchronize)
    plain, _ = time_each(lambda m: m @ m, matrices, device.synchronize)
    assert min(hidden) > min(plain) / 2
