"""What the scenarios of serving saw: load, restarts, caches, fresh weights."""

from __future__ import annotations

from collections.abc import Callable

from bench.run import Run
from reports.pages import Block, Section, Table, Text
from reports.serving import cache_phases, cold_start, refresh, server

_PARTS: dict[str, tuple[str, Callable[[Run], tuple[Block, ...]]]] = {
    "server": ("Under load", server.blocks),
    "cache-phases": ("Caches", cache_phases.blocks),
    "refresh": ("Fresh weights", refresh.blocks),
    "cold-start": ("Cold start", cold_start.blocks),
}


def sections(run: Run, only_planned: bool = False) -> tuple[Section, ...]:
    """One for each scenario; where none was planned, why and what to do, or, with `only_planned`,
    nothing."""
    found = []
    for scenario, (title, blocks) in _PARTS.items():
        skips = {p.skip: None for p in run.plan.cells if p.cell.scenario == scenario}
        if "" in skips:
            told = tuple(b for b in blocks(run) if not (isinstance(b, Table) and b.frame.empty))
            found.append(Section(title, told or (Text("Nothing was measured yet."),)))
        elif not only_planned:
            found.append(Section(title, (Text(_absence(run, scenario, list(skips))),)))
    return tuple(found)


def _absence(run: Run, scenario: str, skips: list[str]) -> str:
    """Why there is nothing to show of a scenario. The trials are those of the whole run."""
    if skips:
        return f"Every cell of {scenario} that is selected was skipped: {'; '.join(skips)}."
    if any(scenario in trial.head.scenarios for trial in run.trials):
        return f"The {scenario} scenario is not selected."
    why = f"This run has no {scenario} scenario: add it to the scenarios of the suite"
    return f"{why}, or run with --scenario {scenario}."
