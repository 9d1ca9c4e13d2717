"""Reading a run in progress: the same as reading it whole, and only what has changed."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from made_trials import blocks, trial

from baselines.errors import LeanRecError
from bench import reading
from bench.protocol import Protocol
from bench.reading import Reader, stamp
from bench.records import CONTROL, Cell, Trial, dump_json, write_trial
from bench.run import Plan, PlannedCell, Run, Summary, write_json

CELLS = tuple(
    PlannedCell(cell=Cell(baseline=b, stack=s, scenario="single-stream", device="cpu"))
    for b in ("toy", "other")
    for s in (CONTROL, "fast")
)


def made(process: int, stack: str = "fast", baseline: str = "toy", speed: float = 2.0) -> Trial:
    control = [1e-3 * (1 + process / 100), 1.01e-3]
    found = trial(process, blocks(control, [c / speed for c in control]), stack=stack)
    head = {"id": f"{baseline}-{stack}-{process}", "baseline": baseline}
    return found.model_copy(update={"head": found.head.model_copy(update=head)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plan = Plan(suite="toy", protocol=Protocol(looks=(5,)), cells=CELLS)
    write_json(tmp_path / "plan.json", plan)
    (tmp_path / "environment.json").write_text(dump_json({}))
    for process in range(2):
        for baseline in ("toy", "other"):
            for stack, speed in ((CONTROL, 1.0), ("fast", 2.0)):
                write_trial(tmp_path / "records", made(process, stack, baseline, speed))
    return tmp_path


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was read and estimated, in turn."""
    done: list[Any] = []
    read, estimate = reading.read_trial, reading.estimates_of

    def reads(path: Path) -> Trial:
        done.append(path.stem)
        return read(path)

    def estimates(trials: list[Trial], *terms: Any) -> Any:
        done.append({t.head.baseline for t in trials})
        return estimate(trials, *terms)

    monkeypatch.setattr(reading, "read_trial", reads)
    monkeypatch.setattr(reading, "estimates_of", estimates)
    return done


def same(found: Run, folder: Path) -> bool:
    whole = Run.load(folder)
    return (found.effects, found.warnings, found.summary, len(found.trials)) == (
        whole.effects, whole.warnings, whole.summary, len(whole.trials),
    )  # fmt: skip


def test_a_new_trial_is_read_alone_and_its_baseline_estimated_again(
    folder: Path, work: list[Any]
) -> None:
    reader = Reader(folder)
    assert same(reader.read(), folder)
    assert len(work) == 8 + 2
    work.clear()
    write_trial(folder / "records", made(2))
    assert same(reader.read(), folder)
    assert work == ["toy-fast-2", {"toy"}]
    work.clear()
    write_json(folder / "summary.json", Summary(wall=1.0, work=1.0, finished=True))
    assert same(reader.read(), folder)
    assert work == []


def test_what_is_changed_removed_or_damaged_is_seen(folder: Path) -> None:
    reader = Reader(folder)
    before = stamp(folder)
    reader.read()
    write_trial(folder / "records", made(0, speed=4.0))
    assert stamp(folder) != before
    assert same(reader.read(), folder)
    (folder / "records" / "other-fast-0.jsonl").unlink()
    assert same(reader.read(), folder)
    (folder / "records" / "other-fast-1.jsonl").write_text("{")
    found = reader.read()
    assert same(found, folder)
    assert "is corrupt at line 1" in found.problems[0]


def test_another_noise_floor_judges_all_again(folder: Path) -> None:
    reader = Reader(folder)
    assert all(e.margin == 0.02 for e in reader.read().effects)
    floors = {"certificate": {"noise_floor": {"latency": 0.3}}}
    (folder / "environment.json").write_text(dump_json(floors))
    found = reader.read()
    assert {e.margin for e in found.effects if e.metric == "latency"} == {0.3}
    assert same(found, folder)


def test_a_run_that_is_gone_is_an_error_and_the_collector_goes_on(folder: Path) -> None:
    reader = Reader(folder)
    (folder / "plan.json").unlink()
    with pytest.raises(LeanRecError, match="is not a run"):
        reader.read()
    assert gc.isenabled()


def test_what_a_run_says_of_its_progress_is_no_change_of_its_records(folder: Path) -> None:
    before = stamp(folder)
    (folder / "progress.json").write_text("{}")
    assert stamp(folder) == before
