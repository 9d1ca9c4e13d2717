"""Search for the best stack by successive halving: few processes for all, more for the promising.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization", AISTATS 2016, arXiv:1502.07943; thirds instead of halves as in Li et al.,
"Hyperband", JMLR 2018, arXiv:1603.06560. Each round brings every stack that is left to three times
as many processes, and keeps the third that promises most by the estimates so far; no verdict is
read, so no error is spent. The last are measured to their decision by the protocol.
"""

from __future__ import annotations

from itertools import groupby

from bench.effects import effects_of
from bench.limits import Limits
from bench.plan import PlannedComparison, comparisons
from bench.recommend import Objective, candidates
from bench.records import CONTROL
from bench.runner import Runner

FINALISTS = 2
KEPT = 3  # one in so many stays after a round


def search(runner: Runner, limits: Limits, objective: Objective) -> None:
    """Measure the comparisons of the runner's plan until the best of each baseline is decided.

    The control against itself is measured to the first look alone: a run is judged by it, and it
    is the answer where no stack is worth its cost. The budget is the plan's.
    """
    looks = runner.protocol.looks
    for _, group in groupby(comparisons(runner.plan), key=lambda c: (c.baseline, c.device)):
        every = list(group)
        left = [c for c in every if c.stack != CONTROL]
        processes = 1
        while len(left) > FINALISTS:
            _measure(runner, left, min(processes, looks[-1]))
            if runner.cut_short:
                return
            ranking = _ranking(runner, left, limits, objective)
            left.sort(key=lambda c: ranking.index(c.stack))
            left = left[: max(FINALISTS, len(left) // KEPT)]
            processes *= KEPT
        _measure(runner, [c for c in every if c.stack == CONTROL], looks[0])
        _measure(runner, left, looks[-1])


def _measure(runner: Runner, group: list[PlannedComparison], processes: int) -> None:
    """Bring every comparison to so many processes, in rounds."""
    for process in range(processes):
        for comparison in group:
            runner.advance(comparison, process)


def _ranking(
    runner: Runner, group: list[PlannedComparison], limits: Limits, objective: Objective
) -> list[str]:
    """The stacks of a baseline, what promises most first; one without any effect comes last."""
    stacks = {c.stack for c in group}
    place = group[0].baseline, group[0].device
    trials = [
        t
        for t in runner.trials.values()
        if (t.head.baseline, t.head.device) == place and t.head.stack in stacks
    ]
    effects = effects_of(trials, runner.protocol, set(), runner.noise_floor)
    ranked = [c.stack for c in candidates(effects, limits, objective)]
    return [*ranked, *sorted(stacks - set(ranked))]
