"""What `pytest bench` holds: the run, its runner, and the replay into pytest-benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from baselines.registry import load_plugin
from bench.campaign import artefact_store, broken_gates, default_folder, gate_text, open_run
from bench.device import Device, get_device
from bench.effects import Effect
from bench.plan import comparisons, make_plan, restrict
from bench.records import BlockRow, Cell
from bench.run import Plan, PlannedCell, Run, noise_floor
from bench.runner import Runner
from bench.series import causes
from bench.suite import load_suite, narrowed


class ReplayTimer:
    """A timer that reads durations measured earlier, for pytest-benchmark's own machinery.

    Each measured call is one round of one iteration: the timer is read before and after it.
    """

    def __init__(self) -> None:
        self._readings: Iterator[float] = iter(())

    def load(self, seconds: list[float]) -> None:
        """Have the next rounds last `seconds`."""
        self._readings = (reading for s in seconds for reading in (0.0, s))

    def __call__(self) -> float:
        return next(self._readings, 0.0)


@dataclass(frozen=True)
class CellResult:
    """What one cell came to."""

    cell: Cell
    effects: list[Effect]
    seconds: list[float]  # durations of the treatment's calls at the first point
    failures: list[str]
    broken_gates: list[str]


class Matrix:
    """The run behind the tests."""

    def __init__(self, folder: Path, plan: Plan, device: Device) -> None:
        self.folder, self.plan, self.device = folder, plan, device
        self._held = ExitStack()
        self._runner: Runner | None = None
        self._timers: dict[str, ReplayTimer] = {}

    @classmethod
    def of(cls, config: pytest.Config) -> Matrix:
        """What the command line asks for; nothing is written yet. Raises LeanRecError."""
        option = config.getoption
        plugins = tuple(path.resolve() for path in option("plugin"))
        for path in plugins:
            load_plugin(path)
        suite = narrowed(
            load_suite(option("suite")),
            option("baseline"),
            option("technique"),
            option("scenario"),
            option("budget"),
        )
        device = get_device(option("device"))
        plan = make_plan(suite, device, artefact_store(), plugins)
        return cls(option("out") or default_folder(suite), plan, device)

    def benchmark_mark(self, planned: PlannedCell) -> pytest.MarkDecorator:
        """pytest-benchmark's marker: cells of one baseline and scenario form a group."""
        cell = planned.cell
        timer = self._timers.setdefault(cell.id, ReplayTimer())
        return pytest.mark.benchmark(
            group=f"{cell.baseline} {cell.scenario} {cell.device}", timer=timer, disable_gc=False
        )

    def keep(self, cell_ids: set[str]) -> None:
        """Leave out of the run what was deselected."""
        self.plan = restrict(self.plan, cell_ids)

    def measure(self, planned: PlannedCell) -> CellResult:
        """Run the comparison that holds the cell, unless an earlier cell's test has done so."""
        if self._runner is None:
            begun = self._held.enter_context(open_run(self.plan, self.device, self.folder))
            floors = noise_floor(begun.environment)
            self._runner = Runner(self.folder, self.plan, artefact_store(), floors)
        cell = planned.cell
        for comparison in comparisons(self.plan):
            if (comparison.baseline, comparison.stack) == (cell.baseline, cell.stack):
                self._runner.run_comparison(comparison)
        self._runner.close()
        run = Run.load(self.folder)
        mine = [t for t in run.trials if _covers(t.head.baseline, t.head.stack, cell)]
        effects = [
            e
            for e in run.effects
            if (e.baseline, e.stack, e.scenario) == (cell.baseline, cell.stack, cell.scenario)
        ]
        found = {c for t in mine for s, c in causes(t).items() if s == cell.scenario}
        gates = [gate_text(e, run) for e in broken_gates(run) if e in effects]
        return CellResult(cell, effects, _seconds(mine, cell.scenario), sorted(found), gates)

    def replay(self, result: CellResult, benchmark: Any) -> None:
        """Hand the durations and the effects of a cell to pytest-benchmark."""
        benchmark.extra_info["effects"] = [
            e.model_dump(mode="json", exclude_none=True) for e in result.effects
        ]
        self._timers[result.cell.id].load(result.seconds)
        benchmark.pedantic(lambda: None, rounds=len(result.seconds), iterations=1)

    def summary(self) -> list[str]:
        """Lines for the end of the session; none where nothing was run."""
        if self._runner is None:
            return []
        run = Run.load(self.folder)
        cost = run.summary
        lines = [f"LeanRec records: {self.folder}", f"Report: leanrec report {self.folder}"]
        if cost and cost.work:
            lines.append(f"Wall time ÷ work of the trials: {cost.wall / cost.work:.2f}")
        return lines

    def close(self) -> None:
        """Let go of the run's folder."""
        self._held.close()


def _covers(baseline: str, stack: str, cell: Cell) -> bool:
    return (baseline, stack) == (cell.baseline, cell.stack)


def _seconds(trials: list[Any], scenario: str) -> list[float]:
    rows = [
        row
        for trial in trials
        for row in trial.rows
        if isinstance(row, BlockRow) and (row.scenario, row.arm) == (scenario, "treatment")
    ]
    return [ns / 1e9 for row in rows if row.point == rows[0].point for ns in row.durations_ns]
