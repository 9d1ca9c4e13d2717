"""Suite → plan: every cell of the matrix, run or skipped with its reason."""

from __future__ import annotations

import inspect
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from baselines.base import BASELINES
from baselines.errors import LeanRecError
from baselines.registry import format_spec
from bench.device import Device
from bench.pipeline import TRAINING_STAGES, Pipeline, make_stack, stack_spec, stages_of
from bench.records import CONTROL, Cell
from bench.run import Plan, PlannedCell
from bench.scenarios.base import SCENARIOS, Scenario
from bench.store import Store
from bench.suite import Suite

_NAMED = re.compile(r"(?P<name>[a-z0-9][a-z0-9.+-]*)\s*=\s*(?P<spec>.+)", re.DOTALL)


def make_plan(suite: Suite, device: Device, store: Store, plugins: tuple[Path, ...] = ()) -> Plan:
    """The plan of `suite` on `device`. Loads every baseline's data once.

    Raises LeanRecError where a name or parameter is wrong, or data can't be had.
    """
    baselines = _named(suite.baselines, lambda text: format_spec(BASELINES.make(text)))
    stacks = _named((CONTROL, *suite.stacks), lambda text: stack_spec(make_stack(text)))
    scenarios = _scenarios(suite.scenarios)
    cells = [
        PlannedCell(
            cell=Cell(baseline=b, stack=s, scenario=scenario.name, device=device.name),
            skip=reason,
        )
        for b, baseline in baselines.items()
        for s, stack in stacks.items()
        for scenario, reason in _reasons(baseline, stack, scenarios, device, store)
    ]
    ids = [c.cell.id for c in cells]
    if twins := [i for i, count in Counter(ids).items() if count > 1]:
        raise LeanRecError(
            f"Two cells of the suite would have the id {twins[0]!r}.",
            "Neither could be chosen by it.",
            "Give one of them a name, as in: my-name = spec.",
        )
    primary = tuple(i for i in ids if any(fnmatch(i, pattern) for pattern in suite.primary))
    return Plan(
        suite=suite.name,
        about=suite.about,
        protocol=suite.protocol,
        cells=tuple(cells),
        baselines=baselines,
        stacks=stacks,
        scenarios={s.name: format_spec(s) for s in scenarios},
        primary=primary,
        quality_gate=suite.gates.quality,
        plugins=plugins,
        budget_seconds=suite.budget_seconds,
    )


def _scenarios(specs: Iterable[str]) -> list[Scenario]:
    scenarios = [SCENARIOS.make(text) for text in specs]
    names = [s.name for s in scenarios]
    if len(set(names)) < len(names):
        raise LeanRecError(
            f"The suite names a scenario twice: {', '.join(names)}.",
            "Their records could not be told apart.",
            "Give each scenario once, with all its batch sizes.",
        )
    if all(s.name != "quality" for s in scenarios):
        scenarios.append(SCENARIOS.make("quality"))
    return sorted(scenarios, key=lambda s: s.stages == TRAINING_STAGES)


def _reasons(
    baseline: str, stack: str, scenarios: list[Scenario], device: Device, store: Store
) -> list[tuple[Scenario, str]]:
    pipeline = Pipeline.from_specs(baseline, stack, device, 0, store)
    try:
        against = pipeline.reason_against() or ""
    except LeanRecError:
        raise
    except Exception as error:
        raise LeanRecError(
            f"{baseline} × {stack} cannot be planned: {type(error).__name__}: {error}"
            f"{_place(error, pipeline)}.",
            "Nothing was run.",
            "Mend it, or leave it out.",
        ) from error
    changed = stages_of(pipeline.stack)
    trained = pipeline.baseline.recipe.epochs > 0
    reasons = []
    for scenario in scenarios:
        reason = against
        if not reason and not trained and scenario.stages == TRAINING_STAGES:
            reason = "the model is complete when built: there is no training to measure"
        if not reason and "train" in changed and scenario.stages == TRAINING_STAGES:
            reason = _ranks_against(scenario, pipeline)
        if not reason and stack != CONTROL and not changed & scenario.stages:
            shown = "training" if scenario.stages == TRAINING_STAGES else scenario.name
            reason = f"{stack} changes nothing that {shown} shows: it is the control there"
        reason = reason or scenario.reason_against(pipeline) or ""
        reasons.append((scenario, reason))
    return reasons


def _ranks_against(scenario: Scenario, pipeline: Pipeline) -> str:
    """Why a scenario that shows training does not take the number of ranks; "" where it does."""
    parallel = pipeline.recipe.parallel
    if bool(parallel) == scenario.parallel:
        return ""
    if parallel:
        return f"trains on {parallel.ranks} ranks, which the scenario distributed measures"
    return "trains on one rank: the scenario train measures it"


def _place(error: Exception, pipeline: Pipeline) -> str:
    """The last line that ran of the files that define the baseline and the techniques."""
    files = {inspect.getfile(type(plugin)) for plugin in (pipeline.baseline, *pipeline.stack)}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _named(entries: Iterable[str], canonical: Callable[[str], str]) -> dict[str, str]:
    """Name → canonical spec of entries of the form ``spec`` or ``name = spec``."""
    named: dict[str, str] = {}
    for entry in entries:
        match = _NAMED.fullmatch(entry.strip())
        spec = canonical(match["spec"] if match else entry)
        name = match["name"] if match else spec
        if named.setdefault(name, spec) != spec:
            raise LeanRecError(
                f"The suite calls two things {name!r}: {named[name]} and {spec}.",
                "Their records could not be told apart.",
                "Rename one of them.",
            )
    return named


@dataclass(frozen=True)
class PlannedComparison:
    """The cells that one series of processes measures: a baseline, a stack, a device, by name."""

    baseline: str
    stack: str
    device: str
    scenarios: tuple[str, ...]  # specs


def comparisons(plan: Plan) -> list[PlannedComparison]:
    """The comparisons of a plan, in its order, without what is skipped."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for planned in plan.cells:
        if not planned.skip:
            cell = planned.cell
            key = cell.baseline, cell.stack, cell.device
            grouped.setdefault(key, []).append(plan.scenarios[cell.scenario])
    return [PlannedComparison(*key, tuple(scenarios)) for key, scenarios in grouped.items()]


def restrict(plan: Plan, cell_ids: set[str]) -> Plan:
    """The plan with only the named cells, and the A/A arms and quality that they rest on."""
    wanted = [c.cell for c in plan.cells if c.cell.id in cell_ids]
    pairs = {(c.baseline, c.stack) for c in wanted}
    loads = {(c.baseline, c.scenario) for c in wanted}

    def stays(planned: PlannedCell) -> bool:
        cell = planned.cell
        return (
            cell.id in cell_ids
            or (cell.scenario == "quality" and (cell.baseline, cell.stack) in pairs)
            or (cell.stack == CONTROL and (cell.baseline, cell.scenario) in loads)
        )

    return plan.model_copy(update={"cells": tuple(filter(stays, plan.cells))})
