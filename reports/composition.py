"""Which techniques compose: the measured effect of a stack against the product of its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from baselines.registry import split_specs
from bench.effects import Effect
from bench.run import Run
from reports import format as fmt
from reports.tables import Column, columns_of, headline

WIDE = 0.1  # an interval that reaches further than 10 % does not say that parts compose


@dataclass(frozen=True)
class Composition:
    """A ratio of a stack beside those of its parts, each turned so that more is better.

    excess: the stack's gain ÷ the product of the parts' gains, with an interval that holds the
    errors of all of them as independent, which is how they were measured: in processes of their
    own. verdict: "composes" where the interval holds 1 and is narrow enough to say so, "cancels"
    where it lies below it by more than the margin, "reinforces" where above, else "inconclusive".
    """

    stack: Effect
    parts: tuple[Effect, ...]
    product: float
    excess: float
    low: float
    high: float
    verdict: str


def compositions(run: Run) -> list[Composition]:
    """Every headline ratio of a stack of several techniques, each of which was measured alone."""
    columns = columns_of(run)
    named = {spec: name for name, spec in run.plan.stacks.items()}
    found = []
    for (baseline, stack, device), own in run.effects_of_stacks.items():
        specs = split_specs(run.plan.stacks.get(stack, stack))
        names = [named.get(spec.strip(), spec.strip()) for spec in specs]
        if len(names) < 2:
            continue
        alone = [run.effects_of_stacks.get((baseline, name, device), []) for name in names]
        parts = [_ratios(effects, columns) for effects in alone]
        found += [
            _composition(whole, tuple(part[key] for part in parts))
            for key, whole in _ratios(own, columns).items()
            if all(key in part for part in parts)
        ]
    return found


def composition_table(run: Run) -> pd.DataFrame:
    """A row for each stack, metric and point."""
    return pd.DataFrame(
        [
            {
                "Baseline": c.stack.baseline,
                "Stack": c.stack.stack,
                "Scenario": c.stack.scenario,
                "Device": c.stack.device,
                "Metric": c.stack.metric,
                "Point": c.stack.point,
                "Parts": " · ".join(f"{fmt.ratio(part.gain[0])}×" for part in c.parts),
                "Product": f"{fmt.ratio(c.product)}×",
                "Measured": f"{fmt.ratio(c.stack.gain[0])}×",
                "Measured ÷ product [interval]": f"{fmt.ratio(c.excess)} "
                f"[{fmt.ratio(c.low, c.excess)}, {fmt.ratio(c.high, c.excess)}]",
                "Verdict": c.verdict,
            }
            for c in compositions(run)
        ]
    )


def _ratios(effects: list[Effect], columns: list[Column]) -> dict[tuple[str, str, str], Effect]:
    """(scenario, metric, point) → the headline ratio there."""
    return {
        (e.scenario, e.metric, e.point): e
        for column in columns
        for e in headline(effects, column)
        if e.scale == "ratio" and math.isfinite(e.effect) and e.effect > 0
    }


def _composition(whole: Effect, parts: tuple[Effect, ...]) -> Composition:
    product = math.prod(part.gain[0] for part in parts)
    logs = [math.log(e.gain[0]) for e in (whole, *parts)]
    below = math.hypot(_reach(whole, 1), *(_reach(part, 2) for part in parts))
    above = math.hypot(_reach(whole, 2), *(_reach(part, 1) for part in parts))
    log = logs[0] - sum(logs[1:])
    margin = math.log1p(max(e.margin for e in (whole, *parts)))
    low, high = log - below, log + above
    verdict = "inconclusive"
    if high < -margin:
        verdict = "cancels"
    elif low > margin:
        verdict = "reinforces"
    elif low <= 0 <= high and max(below, above) <= math.log1p(WIDE):
        verdict = "composes"
    return Composition(whole, parts, product, math.exp(log), math.exp(low), _exp(high), verdict)


def _reach(e: Effect, end: int) -> float:
    """From the gain to one end of its interval, on the log scale; infinite without an end."""
    value, bound = e.gain[0], e.gain[end]
    if not math.isfinite(bound) or bound <= 0:
        return math.inf
    return abs(math.log(bound / value))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
