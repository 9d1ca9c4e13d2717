"""`leanrec profile`: both arms of a cell under torch's profiler. Nothing is timed in this pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from baselines.errors import LeanRecError
from bench.comparison import Comparison
from bench.device import Device
from bench.meters.profile import profile
from bench.pipeline import Pipeline
from bench.run import Plan
from bench.scenarios.base import SCENARIOS, TimedScenario
from bench.store import Store


def profile_cell(
    plan: Plan, cell_id: str, device: Device, store: Store, to: Path, console: Console
) -> None:
    """Write one trace an arm under `to`, and print the costliest operators of each.

    Raises LeanRecError where the plan has no such cell, skips it, or the cell is not timed.
    """
    planned = next((c for c in plan.cells if c.cell.id == cell_id), None)
    if planned is None:
        raise LeanRecError(
            f"Suite {plan.suite} has no cell {cell_id!r}.",
            "Nothing was profiled.",
            f"It has: {', '.join(c.cell.id for c in plan.cells if not c.skip)}.",
        )
    if planned.skip:
        raise LeanRecError(
            f"Cell {cell_id} is skipped: {planned.skip}.",
            "Nothing was profiled.",
            "Choose another.",
        )
    cell = planned.cell
    scenario = SCENARIOS.make(plan.scenarios[cell.scenario])
    if not isinstance(scenario, TimedScenario):
        raise LeanRecError(
            f"Scenario {cell.scenario} is not timed, so there is nothing to explain.",
            "Nothing was profiled.",
            "Choose a cell of another scenario.",
        )
    treatment = Pipeline.from_specs(
        plan.baselines[cell.baseline], plan.stacks[cell.stack], device, 0, store
    )
    comparison = Comparison(treatment.control(), treatment, plan.protocol, np.random.default_rng(0))
    if "deploy" in scenario.stages:
        for event in comparison.build():
            console.print(f"{event.name}: {event.detail}", markup=False)
    with torch.inference_mode(scenario.inference):
        load = next(iter(scenario.loads(comparison)))
        torch.set_num_threads(load.threads)
        arms = dict(zip(("control", cell.stack), load.calls, strict=True))
        if cell.stack == "control":
            arms = {"control": load.calls[0]}
        found = profile({name: (call, load.batches) for name, call in arms.items()}, to, device)
    for arm in found:
        table = Table(
            "operator", "calls", "self time", "share", title=f"{arm.arm}, batch {load.batch_size}"
        )
        for row in arm.operators:
            table.add_row(
                str(row["name"]),
                str(row["calls"]),
                f"{row['self_us']:.0f} µs",
                f"{row['share']:.0%}",
            )
        console.print(table)
        console.print(f"trace: {arm.trace}", markup=False)
    console.print(f"Open them with: tensorboard --logdir {to}", markup=False)
