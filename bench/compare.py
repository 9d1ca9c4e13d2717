"""Two runs side by side: what changed in what a stack buys, each against its own control.

A ratio to the control of the same session carries over from host to host and from day to day; an
absolute time does not, so none is compared here.
"""

from __future__ import annotations

import math
from typing import Literal

from bench.effects import Effect
from bench.records import CONTROL, Row
from bench.run import Run
from bench.stats import Interval
from bench.verdicts import gain_of

ChangeVerdict = Literal["better", "worse", "unchanged", "inconclusive", "not comparable"]


class Change(Row):
    """How the effect of one metric of one cell differs between run A and run B.

    effect_a, effect_b: the effects, None where the run has no such effect. change, low, high:
    B ÷ A of the ratios to the control for scale "ratio", B − A of the differences otherwise; low
    and high bound it at `level` confidence, for this row alone. margin: as in `Effect`, the larger
    of the two. reason says why where they are not comparable.
    """

    baseline: str
    stack: str
    scenario: str
    device: str
    metric: str
    unit: str
    direction: Literal["higher", "lower"]
    scale: Literal["ratio", "difference"]
    point: str = ""
    segment: str = ""
    effect_a: float | None
    effect_b: float | None
    change: float = math.nan
    low: float = math.nan
    high: float = math.nan
    level: float = math.nan
    margin: float = math.nan
    verdict: ChangeVerdict
    reason: str = ""
    same_host: bool


def compare(run_a: Run, run_b: Run) -> list[Change]:
    """Every effect that either run holds, A/A arms apart, in the order of A and then of B."""
    same_host = on_same_host(run_a, run_b)
    of_a, of_b = _by_key(run_a), _by_key(run_b)
    return [
        _change(of_a.get(key), of_b.get(key), same_host) for key in dict.fromkeys((*of_a, *of_b))
    ]


def on_same_host(run_a: Run, run_b: Run) -> bool:
    """Whether both runs name the same host; False where either names none."""
    host = run_a.environment.get("host")
    return host is not None and host == run_b.environment.get("host")


def _by_key(run: Run) -> dict[tuple[str, ...], Effect]:
    return {
        (e.baseline, e.stack, e.scenario, e.device, e.metric, e.point, e.segment): e
        for e in run.effects
        if e.stack != CONTROL
    }


def _change(a: Effect | None, b: Effect | None, same_host: bool) -> Change:
    known = a or b
    assert known is not None  # a key comes from one run at least
    fields = {
        **known.model_dump(
            include={
                "baseline", "stack", "scenario", "device", "metric", "unit", "direction", "scale",
                "point", "segment",
            }
        ),
        "effect_a": a.effect if a else None,
        "effect_b": b.effect if b else None,
        "same_host": same_host,
    }  # fmt: skip
    if a is None or b is None:
        reason = f"run {'A' if a is None else 'B'} has no such effect"
    else:
        reason = _reason_against(a, b)
        if not reason:
            fields |= _judged(a, b)
    if reason:
        fields |= {"verdict": "not comparable", "reason": reason}
    return Change.model_validate(fields)


def _reason_against(a: Effect, b: Effect) -> str:
    """Why two effects do not compare; "" where they do."""
    for name, effect in (("A", a), ("B", b)):
        if effect.verdict == "failed":
            return f"failed in run {name}: {effect.note}"
        if math.isnan(effect.effect):
            return f"no estimate in run {name}: {effect.note}"
    definitions = [(e.unit, e.direction, e.scale, e.estimator) for e in (a, b)]
    if definitions[0] != definitions[1]:
        return "the metric is defined differently in the two runs"
    if a.protocol != b.protocol:
        return "quality was measured by different protocols"
    if max(a.margin, b.margin) == 0 and not a.protocol:
        return f"an absolute difference in {a.unit} has no margin and belongs to its session"
    return ""


def _judged(a: Effect, b: Effect) -> dict[str, object]:
    """The change with its interval.

    Bounds by recovering the variances from the two intervals (MOVER, Zou and Donner 2008), which
    needs no degrees of freedom and keeps at least the lower of the two levels.
    """
    ratio = a.scale == "ratio"
    (ea, la, ha), (eb, lb, hb) = (
        [_log(v) for v in (e.effect, e.low, e.high)] if ratio else [e.effect, e.low, e.high]
        for e in (a, b)
    )
    change = Interval(
        eb - ea,
        eb - ea - math.hypot(eb - lb, ha - ea),
        eb - ea + math.hypot(hb - eb, ea - la),
        math.nan,
        math.nan,
    )
    margin = max(a.margin, b.margin)
    gain = gain_of(change, a.direction)
    delta = math.log1p(margin) if ratio else margin
    verdict: ChangeVerdict = "inconclusive"
    if gain.low > delta:
        verdict = "better"
    elif gain.high < -delta:
        verdict = "worse"
    elif -delta <= gain.low and gain.high <= delta:
        verdict = "unchanged"
    values = change[:3]
    return {
        **dict(zip(("change", "low", "high"), map(_exp, values) if ratio else values, strict=True)),
        "level": min(a.level, b.level),
        "margin": margin,
        "verdict": verdict,
    }


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # e^710 overflows
