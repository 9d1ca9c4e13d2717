"""One run from suite to summary: what `leanrec run` and `pytest bench` share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from baselines.data.sources import cache_dir
from baselines.errors import LeanRecError
from bench.certificate import latest_certificate
from bench.device import get_device
from bench.environment import environment
from bench.plan import make_plan
from bench.records import dump_json, write_atomically
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
    return Path("runs") / f"{suite.name}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def open_run(
    suite: Suite,
    device_name: str,
    folder: Path,
    plugins: tuple[Path, ...] = (),
    *,
    resume: bool = False,
) -> Iterator[Plan]:
    """Hold `folder` for a run of `suite`, with its plan and environment written.

    Raises LeanRecError where the folder holds a run and resume is False, or holds the run of
    another plan, or the suite, the device or the data can't be had.
    """
    device = get_device(device_name)
    with locked(folder):
        existing = (folder / "plan.json").exists()
        if existing and not resume:
            raise LeanRecError(
                f"{folder} holds a run already.",
                "Nothing was run, and nothing in it was changed.",
                "Add --resume to go on with it, or choose another --out folder.",
            )
        plan = make_plan(suite, device, artefact_store(), plugins)
        if existing:
            held = Run.load(folder).plan
            if held.model_dump(exclude={"budget_seconds"}) != plan.model_dump(
                exclude={"budget_seconds"}
            ):
                raise LeanRecError(
                    f"The run in {folder} has another plan than the one asked for.",
                    "Nothing was run, and nothing in it was changed.",
                    "Resume it with the suite and options it was begun with, or choose another "
                    "--out folder.",
                )
        else:
            facts = environment(device, all_threads())
            facts["certificate"] = latest_certificate(facts["host"], device_name)
            write_atomically(folder / "environment.json", dump_json(facts))
        write_json(folder / "plan.json", plan)
        yield plan


def exit_code(run: Run) -> int:
    """0 all well, 1 a quality gate failed, 2 something could not be measured or is suspect."""
    if run.failures:
        return 2
    return 1 if broken_gates(run) else 0


def broken_gates(run: Run) -> list[str]:
    """The headline quality effects that do not pass the suite's gate. Inconclusive is no pass."""
    gate = run.plan.quality_gate
    if gate is None:
        return []
    return [
        f"{e.baseline} × {e.stack}: {e.metric} {e.effect:+.4f} is {e.margins.get(gate, e.verdict)} "
        f"under {gate}"
        for e in run.effects
        if e.primary
        and e.scenario == "quality"
        and e.stack != "control"
        and e.margins.get(gate) not in ("non-inferior", "better")
    ]
