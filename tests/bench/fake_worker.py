"""A stand-in for worker processes, and the plan of a toy matrix that it runs at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from made_trials import blocks, quality, trial

from bench.protocol import Protocol
from bench.records import Cell, EndRow, Trial
from bench.run import Plan, PlannedCell
from bench.worker import TrialSpec

QUICK = Protocol(looks=(2, 4), spend=(0.6, 0.4), pairs=2, bootstraps=50, memory_processes=2)


def toy_plan(
    *stacks: str,
    scenarios: tuple[str, ...] = ("single-stream", "quality"),
    protocol: Protocol = QUICK,
    skip: dict[str, str] | None = None,
    budget: float | None = None,
) -> Plan:
    """A plan of the baseline "toy" under the control and `stacks`; skip: stack → reason."""
    names = ("control", *stacks)
    cells = tuple(
        PlannedCell(
            cell=Cell(baseline="toy", stack=stack, scenario=scenario, device="cpu"),
            skip=(skip or {}).get(stack, ""),
        )
        for stack in names
        for scenario in scenarios
    )
    return Plan(
        suite="toy",
        protocol=protocol,
        cells=cells,
        baselines={"toy": "dcnv2"},
        stacks={name: name for name in names},
        scenarios={name: name for name in scenarios},
        budget_seconds=budget,
    )


class FakeWorkers:
    """Answers each spec with a made trial, in the place of `bench.runner.run_worker`.

    ratio: stack → treatment ÷ control of its latency, or such a ratio for each process; 1 where
    none is given. ends: asked with each spec; the end that it gives, if any, is the trial's.
    loss: stack → AUC that it loses of .8; 0 where none is given.
    """

    def __init__(
        self,
        ratio: dict[str, float | tuple[float, ...]] | None = None,
        ends: Callable[[TrialSpec], EndRow | None] = lambda spec: None,
        loss: dict[str, float] | None = None,
    ) -> None:
        self.ratio, self.ends, self.loss = ratio or {}, ends, loss or {}
        self.specs: list[TrialSpec] = []

    def __call__(self, spec: TrialSpec, limit: float, log: Path) -> Trial:
        self.specs.append(spec)
        rows = []
        if spec.mode == "measure":
            ratio = self.ratio.get(spec.stack, 1.0)
            ratio = ratio[spec.process] if isinstance(ratio, tuple) else ratio
            control = [1e-3, 1.0001e-3]
            calls = [1_000_000 + k for k in range(10)]
            durations = calls, [int(ns * ratio) for ns in calls]
            timed = blocks(control, [c * ratio for c in control], durations=durations)
            rows = [*timed, quality(0.8, 0.8 - self.loss.get(spec.stack, 0.0))]
        phases = {"training" if spec.mode == "train" else "blocks": 0.5, "start": 0.25}
        end = EndRow(status="ok", phases=phases, wall=1.0)
        made = trial(
            spec.process, rows, stack=spec.stack, mode=spec.mode, baseline=spec.baseline,
            scenarios=spec.names,
        )  # fmt: skip
        head = made.head.model_copy(update={"id": spec.id})
        ended = self.ends(spec)
        if ended is not None:
            return Trial(head=head, rows=(), end=ended)
        return Trial(head=head, rows=made.rows, end=end)

    def count(self, mode: str, stack: str) -> int:
        """How many trials of that mode and stack were asked for."""
        return sum((s.mode, s.stack) == (mode, stack) for s in self.specs)
