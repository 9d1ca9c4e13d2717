"""One run from suite to summary: what `leanrec run` and `pytest bench` share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from baselines.data.sources import cache_dir
from baselines.errors import LeanRecError
from bench.barriers import WORKER_VARIABLES
from bench.certificate import latest_certificate
from bench.device import Device
from bench.effects import Effect
from bench.environment import environment
from bench.records import CONTROL, dump_json, write_atomically
from bench.run import Plan, Run, write_json
from bench.runner import locked
from bench.scenarios.base import all_threads
from bench.store import Store
from bench.suite import Suite


def artefact_store() -> Store:
    """Where trained models and prepared data are shared between runs."""
    return Store(cache_dir() / "artefacts")


def default_folder(suite: Suite) -> Path:
    """A folder for a run that was given none: ``runs/SUITE-DATE-TIME``."""
    name = re.sub(r"[^\w.+-]+", "_", suite.name)
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def open_run(plan: Plan, device: Device, folder: Path, *, resume: bool = False) -> Iterator[Run]:
    """Hold `folder` for a run of `plan`, with its plan and environment written; gives it as it is.

    Raises LeanRecError where the folder cannot be written, is held by another process, holds a
    run and resume is False, or holds the run of another plan.
    """
    with locked(folder):
        existing = (folder / "plan.json").exists()
        if existing and not resume:
            raise LeanRecError(
                f"{folder} holds a run already.",
                "Nothing was run, and nothing in it was changed.",
                "Add --resume to go on with it, or choose another --out folder.",
            )
        if existing and _but_budget(Run.load(folder).plan) != _but_budget(plan):
            raise LeanRecError(
                f"The run in {folder} has another plan than the one asked for.",
                "Nothing was run, and nothing in it was changed.",
                "Resume it with the suite and options it was begun with, or choose another "
                "--out folder.",
            )
        if not existing:
            facts = environment(device, all_threads())
            facts["settings"]["worker_variables"] = WORKER_VARIABLES
            facts["certificate"] = latest_certificate(facts["host"], device.name)
            write_atomically(folder / "environment.json", dump_json(facts))
        write_json(folder / "plan.json", plan)
        yield Run.load(folder)


def _but_budget(plan: Plan) -> Plan:
    return plan.model_copy(update={"budget_seconds": None})


def exit_code(run: Run) -> int:
    """0 all well, 1 a quality gate failed, 2 something could not be measured or is suspect."""
    if run.failures:
        return 2
    return 1 if broken_gates(run) else 0


def broken_gates(run: Run) -> list[Effect]:
    """The headline quality effects that do not pass the suite's gate. Inconclusive is no pass."""
    gate = run.plan.quality_gate
    return [
        e
        for e in run.effects
        if gate is not None
        and e.primary
        and (e.scenario, e.segment) == ("quality", "")
        and e.stack != CONTROL
        and e.margins.get(gate) not in ("non-inferior", "better")
    ]


def gate_text(effect: Effect, run: Run) -> str:
    """A broken gate in words."""
    gate = run.plan.quality_gate
    said = effect.margins.get(gate, effect.verdict) if gate else effect.verdict
    return f"{effect.baseline} × {effect.stack}: {effect.metric} is {said} under {gate}"
