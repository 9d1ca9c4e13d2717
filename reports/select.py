"""A part of a run: what a reader wants to look at."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cache

from baselines.registry import split_specs
from bench.effects import Effect
from bench.records import CONTROL, Cell
from bench.run import Run


@cache
def techniques_of(stack: str) -> tuple[str, ...]:
    """The names of the techniques in a stack, without their parameters."""
    if stack == CONTROL:
        return ()
    return tuple(part.partition("(")[0].strip() for part in split_specs(stack))


def part_of(run: Run, keep: Callable[[Cell | Effect], bool]) -> Run:
    """`run` with only the cells and effects to keep, which are still those of the whole run."""
    cells = tuple(p for p in run.plan.cells if keep(p.cell))
    part = replace(run, plan=run.plan.model_copy(update={"cells": cells}))
    part.__dict__["effects"] = [e for e in run.effects if keep(e)]
    return part


@dataclass(frozen=True)
class Selection:
    """The names to keep; an empty collection keeps all.

    A stack is kept for any one of its techniques; the control, which has none, always.
    """

    baselines: Collection[str] = ()
    techniques: Collection[str] = ()
    scenarios: Collection[str] = ()
    metrics: Collection[str] = ()

    def of(self, run: Run) -> Run:
        """`run` with only the cells and effects selected.

        The effects are those of the whole run: a verdict is held by its family, which a reader's
        choice of what to look at must not change.
        """
        return part_of(run, self._has)

    def _has(self, cell: Cell | Effect) -> bool:
        names = techniques_of(cell.stack)
        return (
            (not self.baselines or cell.baseline in self.baselines)
            and (not self.techniques or not names or not set(names).isdisjoint(self.techniques))
            and (not self.scenarios or cell.scenario in self.scenarios)
            and (not self.metrics or not isinstance(cell, Effect) or cell.metric in self.metrics)
        )
