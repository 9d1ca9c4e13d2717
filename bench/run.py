"""A run: a folder of records with its plan and its environment. What every reader starts from.

RUN/plan.json         the suite, its protocol and every cell, run or skipped with its reason
RUN/environment.json  machine, software and the host's certificate
RUN/records/*.jsonl   one file per finished trial
RUN/progress.json     what is being measured, while the run is in progress
RUN/summary.json      wall time and work, written when the run ends
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from baselines.errors import LeanRecError
from bench.effects import Effect, effects_of
from bench.protocol import Protocol, QualityMargin
from bench.records import (
    CONTROL,
    Cell,
    EventRow,
    Row,
    Trial,
    dump_json,
    events,
    read_trials,
    write_atomically,
)

PROGRESS = "progress.json"


class PlannedCell(Row):
    """A cell of the plan; `skip` is the reason why it is not run, "" where it is."""

    cell: Cell
    skip: str = ""


class Plan(Row):
    """plan.json: what a run set out to measure."""

    suite: str
    about: str = ""
    protocol: Protocol
    cells: tuple[PlannedCell, ...]
    baselines: dict[str, str] = Field(default_factory=dict)  # name → spec, as of the next two
    stacks: dict[str, str] = Field(default_factory=dict)
    scenarios: dict[str, str] = Field(default_factory=dict)
    primary: tuple[str, ...] = ()  # cell ids of the suite's primary family
    quality_gate: QualityMargin | None = None
    plugins: tuple[Path, ...] = ()
    budget_seconds: float | None = None


class Summary(Row):
    """summary.json: where the wall time of a run went, in seconds."""

    wall: float
    work: float  # training once per seed, preparation, warm-up, blocks, quality and memory passes
    finished: bool
    out_of_budget: bool = False


class Underway(Row):
    """progress.json: the process that is being measured. done, expected, seconds_left: as in
    `bench.runner.Progress`."""

    done: int
    expected: int
    seconds_left: float
    doing: str


@dataclass(frozen=True)
class Run:
    """A run as its folder holds it now; it may still be in progress."""

    path: Path
    plan: Plan
    environment: dict[str, Any]
    trials: list[Trial]
    problems: list[str] = field(default_factory=list)
    summary: Summary | None = None

    @classmethod
    def load(
        cls, path: Path, read: Callable[[Path], tuple[list[Trial], list[str]]] = read_trials
    ) -> Run:
        """Read a run folder. Corrupt record files become `problems`, not errors.

        read: gives the trials and the problems of a folder of records. Raises LeanRecError where
        there is no run, or its plan is not readable.
        """
        try:
            plan = Plan.model_validate_json((path / "plan.json").read_text(encoding="utf-8"))
            environment = json.loads((path / "environment.json").read_text(encoding="utf-8"))
            summary_file = path / "summary.json"
            summary = (
                Summary.model_validate_json(summary_file.read_text(encoding="utf-8"))
                if summary_file.exists()
                else None
            )
        except FileNotFoundError as error:
            raise LeanRecError(
                f"{path} is not a run: it has no {Path(error.filename).name}.",
                "There is nothing to show.",
                "Give the folder that was named as --out in 'leanrec run'.",
            ) from error
        except (ValidationError, ValueError, OSError) as error:
            raise LeanRecError(
                f"The run in {path} is not readable: {error}.",
                "Its records are untouched.",
                "Restore plan.json, environment.json or summary.json from a copy.",
            ) from error
        trials, problems = read(path / "records")
        return cls(path, plan, environment, trials, problems, summary)

    @cached_property
    def effects(self) -> list[Effect]:
        """Every effect of the run, with multiplicity accounted for."""
        return effects_of(
            self.trials, self.plan.protocol, set(self.plan.primary), noise_floor(self.environment)
        )

    @cached_property
    def effects_of_stacks(self) -> dict[tuple[str, str, str], list[Effect]]:
        """(baseline, stack, device) → its effects, in their order."""
        found: dict[tuple[str, str, str], list[Effect]] = {}
        for e in self.effects:
            found.setdefault((e.baseline, e.stack, e.device), []).append(e)
        return found

    @cached_property
    def failures(self) -> list[str]:
        """What could not be measured, or cannot be believed: corrupt records, failed trials, voided
        cells, an A/A arm that came out different."""
        lines = list(self.problems)
        for trial in self.trials:
            if trial.end.status != "ok":
                lines.append(f"{_name(trial)}: {trial.end.status}: {trial.end.cause}")
        lines += self._events("failure")
        lines += [
            f"{e.baseline} × {e.scenario}: the A/A arm came out {e.verdict} in {e.metric} "
            f"{e.point}: identical code measured as different, so this run is suspect"
            for e in self.effects
            if e.stack == CONTROL and e.verdict in ("faster", "slower", "inferior")
        ]
        return list(dict.fromkeys(lines))

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader must know first: the failures, then what was less than perfect."""
        return self.failures + self._remarks

    def _events(self, severity: str) -> list[str]:
        seen = Counter(
            f"{_name(trial)}{f' × {event.scenario}' if event.scenario else ''}: "
            f"{event.name}: {event.detail}"
            for trial, event in events(self.trials)
            if event.severity == severity
        )
        return [f"{line} ({n} times)" if n > 1 else line for line, n in seen.items()]

    @property
    def _remarks(self) -> list[str]:
        """The warnings, one line for each kind in each scenario of a baseline."""
        kinds: dict[tuple[str, str, str], list[tuple[Trial, EventRow]]] = {}
        for trial, event in events(self.trials):
            if event.severity == "warning":
                key = trial.head.baseline, event.scenario, event.name
                kinds.setdefault(key, []).append((trial, event))
        lines = []
        for (baseline, scenario, name), found in kinds.items():
            trial, event = found[0]
            often = f"{len(found)} times, for example " if len(found) > 1 else ""
            where = f"{baseline} × {scenario}" if scenario else baseline
            lines.append(f"{where}: {name}: {often}{trial.head.stack}: {event.detail}")
        return lines


def underway(folder: Path) -> Underway | None:
    """What a run in progress is measuring; None where it does not say."""
    try:
        text = (folder / PROGRESS).read_text(encoding="utf-8")
        return Underway.model_validate_json(text)
    except (OSError, ValueError):
        return None


def noise_floor(environment: dict[str, Any]) -> dict[str, float]:
    """Metric → the ratio that the host cannot tell from none, by the certificate that it had."""
    floors: dict[str, float] = (environment.get("certificate") or {}).get("noise_floor", {})
    return floors


def _name(trial: Trial) -> str:
    return f"{trial.head.baseline} × {trial.head.stack} ({trial.head.mode})"


def write_json(path: Path, row: Row) -> None:
    """Write a row as a file of the run, atomically."""
    write_atomically(path, dump_json(row.model_dump(mode="json")))
