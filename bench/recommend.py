"""Which stack to use under limits: chosen from effects, and honest where they do not decide.

A stack is feasible where every limit is met. The best is the feasible one with the largest gain in
the objective; feasible stacks whose intervals reach into its own are tied with it, and one that is
not known to break a limit and may be better makes the choice unsure, and so does an inconclusive
verdict on the gain itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Literal, TypeVar, get_args

from baselines.errors import LeanRecError
from bench.effects import Effect
from bench.limits import Finding, Limits, State, findings, standing
from bench.records import CONTROL, Row

Objective = Literal["throughput", "latency", "training", "memory", "size"]
_SCENARIO = {"latency": "single-stream", "throughput": "offline", "training": "train"}
_Judged = TypeVar("_Judged", Effect, Finding)
_METRIC = {"memory": "peak_memory", "size": "model_bytes"}


class Candidate(Row):
    """A stack as it stands. gain, low, high: times better than the control in the objective, over
    all its points by their geometric mean (the bounds by that of the bounds, which is wide); NaN
    where it was not measured. inconclusive: the points at which the verdict on the gain is.
    processes: that measured it. state: of all limits together. distance: of the furthest limit."""

    baseline: str
    stack: str
    device: str
    gain: float
    low: float
    high: float
    inconclusive: tuple[str, ...]
    processes: int
    state: State
    distance: float
    findings: tuple[Finding, ...]


class Recommendation(Row):
    """What to use for one baseline on one device.

    chosen: None where no stack is known to keep every limit. tied: feasible, and not told apart
    from the chosen one by their intervals. open: undecided stacks that may be better. dropped: the
    same, but left by a search after fewer processes, since they promised less. beaten: feasible
    stacks that are worse, the runner-up first. out: stacks that break a limit, or are undecided and
    worse, the nearest first.
    """

    baseline: str
    device: str
    objective: Objective
    chosen: Candidate | None
    tied: tuple[Candidate, ...]
    open: tuple[Candidate, ...]
    dropped: tuple[Candidate, ...]
    beaten: tuple[Candidate, ...]
    out: tuple[Candidate, ...]

    @property
    def sure(self) -> bool:
        """Whether the evidence names one stack among those that were measured to the end."""
        known = self.chosen is not None and not self.chosen.inconclusive
        return known and not self.tied and not self.open


def require_objective(name: str) -> Objective:
    """`name`, where it is one. Raises LeanRecError otherwise."""
    known: tuple[Objective, ...] = get_args(Objective)
    for objective in known:
        if name == objective:
            return objective
    raise LeanRecError(
        f"There is no objective {name!r}.",
        "Nothing was recommended.",
        f"Known: {', '.join(known)}.",
    )


def recommend(
    effects: Iterable[Effect], limits: Limits, objective: Objective
) -> list[Recommendation]:
    """One recommendation for each baseline and device, in their order.

    Raises LeanRecError where nothing was measured that the objective or a limit is about.
    """
    ranked = candidates(effects, limits, objective)
    if all(math.isnan(c.gain) for c in ranked if c.stack != CONTROL):
        raise LeanRecError(
            f"The objective {objective} was not measured for any stack.",
            "Nothing can be recommended by it.",
            "Measure the scenario it is about, or choose another objective.",
        )
    groups = groupby(ranked, key=lambda c: (c.baseline, c.device))
    return [_recommendation(list(group), objective) for _, group in groups]


def candidates(effects: Iterable[Effect], limits: Limits, objective: Objective) -> list[Candidate]:
    """Every stack and the control, by baseline and device; in each, what promises most first: the
    nearest to the limits by the estimates alone, and of those that keep them the largest gain."""
    effects = [e for e in effects if not e.segment]
    held = findings(effects, limits)
    asked = {f.limit for f in held}
    effects_by, findings_by = _by_stack(effects), _by_stack(held)
    found = []
    for (baseline, device, stack), own in effects_by.items():
        of_it = findings_by.get((baseline, device, stack), [])
        aimed = [] if stack == CONTROL else _aimed(own, objective)
        gain, low, high = (1.0,) * 3 if stack == CONTROL else _gain(aimed)
        state: State = standing(of_it, asked, any(e.verdict == "failed" for e in own))
        if state == "met" and math.isnan(gain):
            state = "undecided"
        found.append(
            Candidate(
                baseline=baseline, stack=stack, device=device, gain=gain, low=low, high=high,
                inconclusive=tuple(
                    " ".join(filter(None, (e.scenario, e.point)))
                    for e in aimed
                    if e.verdict == "inconclusive"
                ),
                processes=max(e.n_processes for e in own), state=state, findings=tuple(of_it),
                distance=max((f.distance for f in of_it), default=0.0),
            )
        )  # fmt: skip
    order = list(dict.fromkeys((b, d) for b, d, _ in effects_by))
    return sorted(found, key=lambda c: (order.index((c.baseline, c.device)), *_promise(c)))


def _recommendation(ranked: list[Candidate], objective: Objective) -> Recommendation:
    feasible = sorted((c for c in ranked if c.state == "met"), key=lambda c: -c.gain)
    chosen = feasible[0] if feasible else None
    floor = chosen.low if chosen else -math.inf
    reach = [c for c in ranked if not c.high < floor]
    tied = tuple(c for c in feasible[1:] if c in reach)
    hoped = [c for c in ranked if c.state == "undecided" and c in reach]
    dropped = [c for c in hoped if chosen and c.processes < chosen.processes]
    rest = (c for c in ranked if c.state != "met" and c not in hoped)
    return Recommendation(
        baseline=ranked[0].baseline,
        device=ranked[0].device,
        objective=objective,
        chosen=chosen,
        tied=tied,
        open=tuple(c for c in hoped if c not in dropped),
        dropped=tuple(dropped),
        beaten=tuple(c for c in feasible[1:] if c not in tied),
        out=tuple(sorted(rest, key=lambda c: (math.isnan(c.distance), c.distance))),
    )


def _aimed(own: list[Effect], objective: Objective) -> list[Effect]:
    """The effects that the objective is about, one for each point."""
    found = [e for e in own if _is_of(e, objective)]
    return [e for e in found if e.scenario == found[0].scenario]


def _gain(aimed: list[Effect]) -> tuple[float, float, float]:
    """The geometric mean of the gains."""
    gains = [e.gain for e in aimed]
    if not gains or any(math.isnan(x) for gain in gains for x in gain):
        return (math.nan,) * 3
    logs = ([math.log(x) if x > 0 else -math.inf for x in xs] for xs in zip(*gains, strict=True))
    value, low, high = (math.exp(sum(xs) / len(xs)) for xs in logs)
    return value, low, high


def _is_of(e: Effect, objective: Objective) -> bool:
    if objective in _METRIC:
        return e.metric == _METRIC[objective] and e.scenario != "train"
    return e.primary and e.scenario == _SCENARIO[objective]


def _by_stack(rows: Iterable[_Judged]) -> dict[tuple[str, str, str], list[_Judged]]:
    """(baseline, device, stack) → its rows, in their order."""
    found: dict[tuple[str, str, str], list[_Judged]] = {}
    for row in rows:
        found.setdefault((row.baseline, row.device, row.stack), []).append(row)
    return found


def _promise(c: Candidate) -> tuple[float, float]:
    """By the estimates alone: how far the furthest limit is broken, then the gain."""
    beyond = [_beyond(f) for f in c.findings]
    return max(beyond, default=0.0), -c.gain if not math.isnan(c.gain) else math.inf


def _beyond(f: Finding) -> float:
    if math.isnan(f.value):
        return math.inf
    if f.limit == "min_speedup":
        return max(0.0, f.allowed / f.value - 1) if f.value else math.inf
    return max(0.0, f.value / f.allowed - 1)
