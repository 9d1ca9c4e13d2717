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
    """One for each scenario; where the run has none, what to add; only_planned: then nothing."""
    planned = {p.cell.scenario for p in run.plan.cells if not p.skip}
    found = []
    for scenario, (title, blocks) in _PARTS.items():
        if scenario in planned:
            told = tuple(b for b in blocks(run) if not (isinstance(b, Table) and b.frame.empty))
            found.append(Section(title, told or (Text("Nothing was measured yet."),)))
        elif not only_planned:
            why = f"This run has no {scenario} scenario: add it to the scenarios of the suite, or "
            found.append(Section(title, (Text(f"{why}run with --scenario {scenario}."),)))
    return tuple(found)
