"""Limits that a stack must hold to, and how a run's effects stand against them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence, Set
from fnmatch import fnmatch
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from baselines.errors import LeanRecError
from bench.effects import Effect
from bench.protocol import QualityMargin
from bench.records import Cell, Row
from bench.verdicts import tolerated_loss

State = Literal["met", "broken", "undecided"]
Limit = Literal["max_quality_loss", "min_speedup", "max_latency", "max_memory", "max_preparation"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_TAIL = re.compile(r"latency(?:_p(?P<percentile>[\d.]+))?")


class Limits(Row):
    """What is asked of every stack; None where nothing is.

    max_quality_loss: a named margin, of the primary metric of the quality scenario. min_speedup:
    times as fast as the control in the headline of every timed scenario, training too. max_latency:
    seconds, of the highest percentile that was measured at each point. max_memory: bytes, at the
    peak of serving. max_preparation: seconds that are paid once, before the first answer.
    """

    max_quality_loss: QualityMargin | None = None
    min_speedup: Positive | None = None
    max_latency: Positive | None = None
    max_memory: Positive | None = None
    max_preparation: Positive | None = None

    @classmethod
    def of(
        cls, quality: str | None, speedup: float | None, milliseconds: float | None,
        mebibytes: float | None, seconds: float | None = None,
    ) -> Limits:  # fmt: skip
        """The limits as a user gives them. Raises LeanRecError for one that is none."""
        try:
            return cls.model_validate(
                {
                    "max_quality_loss": quality,
                    "min_speedup": speedup,
                    "max_latency": None if milliseconds is None else milliseconds / 1e3,
                    "max_memory": None if mebibytes is None else mebibytes * 2**20,
                    "max_preparation": seconds,
                }
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise LeanRecError(
                f"The limit {first['loc'][0]} cannot be {first['input']!r}: {first['msg']}.",
                "Nothing was checked.",
                "Correct the value.",
            ) from None


_EVERY = Limits(
    max_quality_loss="mlperf-99", min_speedup=1, max_latency=1, max_memory=1, max_preparation=1
)


class Finding(Row):
    """One effect against one limit.

    state: "met" where the whole interval keeps the limit (for quality: where the verdict under the
    margin passes), "broken" where the whole of it breaks the limit or the cell failed, "undecided"
    otherwise. value: the estimate; bound: the end of its interval that comes nearer to breaking the
    limit. Both are in what the limit is given in: a loss in `unit`, a ratio, seconds, bytes.
    distance: how far the bound is beyond the limit as a share of it; 0 where it is met, NaN where
    there is no interval.
    """

    baseline: str
    stack: str
    scenario: str
    device: str
    metric: str
    point: str
    unit: str
    limit: Limit
    allowed: float
    value: float
    bound: float
    distance: float
    state: State


def findings(effects: Iterable[Effect], limits: Limits, only: Sequence[str] = ()) -> list[Finding]:
    """Every effect that a limit concerns, in the order of the effects.

    only: patterns of cell ids, such as ``*-offline-*``; without any, all cells. Raises LeanRecError
    where a limit concerns nothing that was measured.
    """
    found = _findings(effects, limits, only)
    concerned = {f.limit for f in found}
    idle = [name for name, value in limits if value is not None and name not in concerned]
    if idle:
        raise LeanRecError(
            f"The limit {' and '.join(idle)} concerns nothing that was measured.",
            "A limit that nothing is held to would always be met.",
            "Measure the scenario it is about, or leave it out.",
        )
    return found


def reach(effects: Iterable[Effect]) -> dict[Limit, tuple[float, float]]:
    """Limit → the least and the largest estimate that it is about, in the limit's own unit."""
    values: dict[Limit, list[float]] = {}
    for f in _findings(effects, _EVERY):
        if math.isfinite(f.value):
            values.setdefault(f.limit, []).append(f.value)
    return {limit: (min(found), max(found)) for limit, found in values.items()}


def figures(e: Effect) -> tuple[float, float, float]:
    """The treatment's own figure with its bounds, by the control's and the effect.

    The control's own spread over processes is not in the bounds.
    """
    ends = e.effect, e.low, e.high
    value, low, high = (e.control * x if e.scale == "ratio" else e.control + x for x in ends)
    return value, low, high


def _findings(effects: Iterable[Effect], limits: Limits, only: Sequence[str] = ()) -> list[Finding]:
    chosen = [
        e for e in effects if not e.segment and (not only or any(fnmatch(_id(e), p) for p in only))
    ]
    tails = _highest_percentiles(chosen)
    found = []
    for e in chosen:
        if limits.max_quality_loss and e.primary and e.scenario == "quality":
            found.append(_quality(e, limits.max_quality_loss))
        if limits.max_preparation and e.metric == "preparation":
            found.append(_absolute(e, "max_preparation", limits.max_preparation))
        if e.scale != "ratio":
            continue
        if limits.min_speedup and e.primary:
            found.append(_speedup(e, limits.min_speedup))
        if limits.max_latency and id(e) in tails:
            found.append(_absolute(e, "max_latency", limits.max_latency))
        if limits.max_memory and e.metric == "peak_memory" and e.scenario != "train":
            found.append(_absolute(e, "max_memory", limits.max_memory))
    return found


def standing(own: Collection[Finding], asked: Set[Limit], failed: bool = False) -> State:
    """How a stack stands by its own findings, where stacks are held to the limits `asked`.

    Undecided too where one of them found nothing of this stack; broken where it failed.
    """
    states = {f.state for f in own}
    if failed or "broken" in states:
        return "broken"
    lacks = not asked <= {f.limit for f in own}
    return "undecided" if lacks or "undecided" in states else "met"


def _id(e: Effect) -> str:
    return Cell(baseline=e.baseline, stack=e.stack, scenario=e.scenario, device=e.device).id


def _highest_percentiles(effects: list[Effect]) -> set[int]:
    """The ids of the latency effects of the highest percentile of each cell and point."""
    best: dict[tuple[str, ...], tuple[float, Effect]] = {}
    for e in effects:
        if match := _TAIL.fullmatch(e.metric):
            key = (e.baseline, e.stack, e.scenario, e.device, e.point)
            percentile = float(match["percentile"] or 50)
            if key not in best or percentile > best[key][0]:
                best[key] = percentile, e
    return {id(e) for _, e in best.values()}


def _quality(e: Effect, margin: QualityMargin) -> Finding:
    verdict = e.margins.get(margin, e.verdict)
    allowed = tolerated_loss(margin, e.control)
    gain, low, _ = e.gain
    met, broken = verdict in ("non-inferior", "better"), verdict == "inferior"
    return _finding(e, "max_quality_loss", allowed, -gain, -low, -low / allowed - 1, met, broken)


def _speedup(e: Effect, wanted: float) -> Finding:
    gain, low, high = e.gain
    beyond = wanted / low - 1 if low else math.inf
    return _finding(e, "min_speedup", wanted, gain, low, beyond, low >= wanted, high < wanted)


def _absolute(e: Effect, limit: Limit, allowed: float) -> Finding:
    value, low, high = figures(e)
    beyond = high / allowed - 1
    return _finding(e, limit, allowed, value, high, beyond, high <= allowed, low > allowed)


def _finding(
    e: Effect, limit: Limit, allowed: float, value: float, bound: float, beyond: float,
    met: bool, broken: bool,
) -> Finding:  # fmt: skip
    state: State = "undecided"
    if e.verdict == "failed" or broken:
        state = "broken"
    elif met:
        state = "met"
    return Finding(
        baseline=e.baseline, stack=e.stack, scenario=e.scenario, device=e.device,
        metric=e.metric, point=e.point, unit=e.unit, limit=limit, allowed=allowed, value=value,
        bound=bound, distance=0.0 if met else beyond, state=state,
    )  # fmt: skip
