"""`leanrec profile`: both arms of a cell by the clock and under torch's profiler, one after the
other in one process. What is timed is not profiled, and nothing of it enters a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote

import numpy as np
import torch

from baselines.base import Batch
from baselines.errors import LeanRecError
from bench.blocks import PairedBlocks, TooSmall
from bench.comparison import Comparison
from bench.device import Device
from bench.host import Host
from bench.meters.peaks import peak_bandwidth, peak_flops
from bench.meters.profile import REQUESTS, TRACED_REQUESTS, cost_of_an_operator, trace
from bench.meters.work import Work, count_work
from bench.pipeline import Pipeline
from bench.profiles.record import ArmProfile, Clock, Peaks, Profile, Seen, write_profile
from bench.profiles.trace import read_trace
from bench.records import ARMS, CONTROL, Arm, Cell
from bench.run import Plan, Run
from bench.scenarios.base import SCENARIOS, Load, TimedScenario
from bench.store import Store

Tell = Callable[[str], None]
AGAIN = "control (A/A)"  # the treatment of a control's cell: the same, made a second time


def plan_of_run(folder: Path, plugins: Sequence[Path]) -> Plan:
    """The plan of a run, whose plug-ins must be those that the user names: no file is run because
    a folder says so. Raises LeanRecError where they are not, or there is no run."""
    plan = Run.load(folder).plan
    missing = [p for p in plan.plugins if p.resolve() not in {q.resolve() for q in plugins}]
    if missing:
        raise LeanRecError(
            f"The run in {folder} was made with plug-ins that were not given.",
            "Nothing was profiled.",
            f"If you trust them, add: {' '.join(f'--plugin {quote(str(p))}' for p in missing)}",
        )
    return plan


def profile_cell(
    plan: Plan, cell_id: str, device: Device, store: Store, to: Path, tell: Tell
) -> Profile:
    """Profile the cell at the first point of its load; write a trace an arm and the record to `to`.

    Raises LeanRecError where the plan has no such cell, skips it, or the cell is not timed.
    """
    cell = _cell(plan, cell_id)
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
            tell(f"{event.name}: {event.detail}")
    with torch.inference_mode(scenario.inference):
        for load in scenario.loads(comparison):  # a load lives as long as the loop is in it
            torch.set_num_threads(load.threads)
            tell("by the clock")
            clock = _clock(comparison, load, scenario.mode)
            tell("under the profiler")
            arms = _arms(load, AGAIN if cell.stack == CONTROL else cell.stack, to, device)
            tell("the machine's peaks")
            peaks = Peaks(
                flops=peak_flops(device),
                bandwidth=peak_bandwidth(device),
                operator_us=cost_of_an_operator(device),
            )
            break
    profile = Profile(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        cell=cell,
        baseline=plan.baselines[cell.baseline],
        stack=plan.stacks[cell.stack],
        scenario=plan.scenarios[cell.scenario],
        point={"batch": load.batch_size, "threads": load.threads},
        host=Host().fingerprint(device.describe()["kind"]),
        torch=torch.__version__,
        arms=arms,
        clock=clock,
        peaks=peaks,
    )
    write_profile(to, profile)
    return profile


def _cell(plan: Plan, cell_id: str) -> Cell:
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
    return planned.cell


def _clock(comparison: Comparison, load: Load, mode: str) -> Clock:
    """Both arms in paired blocks, as a trial measures them."""
    blocks = PairedBlocks(
        *load.calls, load.batches, comparison.device, comparison.protocol, comparison.rng, mode,
        load.renew,
    )  # fmt: skip
    try:
        blocks.prepare()
    except TooSmall as error:
        raise LeanRecError(
            f"The clock cannot tell the arms apart: {error}.",
            "Nothing was profiled.",
            "Choose a cell of a larger load.",
        ) from error
    spent: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _, _, arm, block in blocks.run():
        spent[arm.name].append(block.elapsed / block.calls / 1e9)
    gains = tuple(a / b for a, b in zip(spent["control"], spent["treatment"], strict=True))
    median = (float(np.median(spent[arm])) for arm in ARMS)
    return Clock(seconds=(next(median), next(median)), gains=gains)


def _arms(load: Load, stack: str, to: Path, device: Device) -> tuple[ArmProfile, ArmProfile]:
    names = CONTROL, stack
    calls = dict(zip(names, load.calls, strict=True))
    traces = trace({name: (call, _batches(load)) for name, call in calls.items()}, to, device)

    def profiled(arm: Arm, name: str) -> ArmProfile:
        traced = traces[name]
        work = count_work(calls[name], next(iter(_batches(load))))
        return ArmProfile(
            arm=arm,
            name=name,
            trace=traced.path.relative_to(to).as_posix(),
            seen=_with_work(read_trace(traced.content, device.torch_device.type), work),
            flops=sum(w.flops or 0.0 for w in work.values()),
            bytes=sum(w.bytes for w in work.values()),
            asked=TRACED_REQUESTS,
            interrupted=traced.interrupted,
        )

    return profiled("control", CONTROL), profiled("treatment", stack)


def _batches(load: Load) -> Iterable[Batch]:
    """Requests as the clock had them: new ones where those met before must not come again."""
    return load.batches if load.renew is None else load.renew(REQUESTS)


def _with_work(seen: Seen, work: dict[str, Work]) -> Seen:
    """With the FLOPs and bytes of the operators that were counted."""
    operators = (
        o.model_copy(update={"flops": work[o.name].flops, "bytes": work[o.name].bytes})
        if o.name in work
        else o
        for o in seen.operators
    )
    return seen.model_copy(update={"operators": tuple(operators)})
