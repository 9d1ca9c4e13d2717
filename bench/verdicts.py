"""From an interval to a word. The metric's unit and direction alone say which word."""

from __future__ import annotations

import math
from typing import Literal, get_args

from bench.protocol import QualityMargin
from bench.stats import Interval

Verdict = Literal[
    "faster", "slower", "smaller", "larger", "equivalent", "inconclusive",
    "better", "non-inferior", "inferior", "failed",
]  # fmt: skip
Direction = Literal["higher", "lower"]

QUALITY_MARGINS: tuple[QualityMargin, ...] = get_args(QualityMargin)
_RELATIVE = {"mlperf-99": 0.01, "mlperf-99.9": 0.001}  # MLPerf inference: 99 % and 99.9 % gates
_ABSOLUTE = {"auc-0.001": 0.001}
_TIMES = {"ns", "us", "µs", "ms", "s", "min", "h"}


def is_time(unit: str) -> bool:
    """Whether the unit is a time or a rate, so that the words are faster and slower."""
    return not _TIMES.isdisjoint(unit.split("/"))


def ratio_verdict(interval: Interval, margin: float, unit: str, direction: Direction) -> Verdict:
    """The verdict of an interval of log(treatment ÷ control).

    margin: δ as a ratio, 0.02 for 2 %; symmetrical on the log scale. Wholly outside ±δ: faster or
    slower for times and rates, smaller or larger for the rest. Wholly inside: equivalent, which is
    two one-sided tests (Schuirmann 1987). Otherwise inconclusive.
    """
    delta = math.log1p(margin)
    if -delta <= interval.low and interval.high <= delta:
        return "equivalent"
    if -delta <= interval.high and interval.low <= delta:
        return "inconclusive"
    grew = interval.estimate > 0
    if not is_time(unit):
        return "larger" if grew else "smaller"
    return "faster" if grew == (direction == "higher") else "slower"


def gain_of(interval: Interval, direction: Direction) -> Interval:
    """A difference turned so that more is better."""
    return interval if direction == "higher" else interval.reversed()


def quality_verdict(gain: Interval, margin: float, level: float) -> Verdict:
    """The verdict of a quality difference, turned by `gain_of`.

    margin: the loss that is tolerated, in the metric's unit. Non-inferior: the one-sided bound of
    the loss at `level` is within it. Better: besides, the two-sided interval is wholly above 0.
    Inferior: the bound on the other side shows that the loss is more than the margin.
    """
    if gain.lower_bound(level) >= -margin:
        return "better" if gain.low > 0 else "non-inferior"
    if -gain.reversed().lower_bound(level) < -margin:
        return "inferior"
    return "inconclusive"


def tolerated_loss(margin: QualityMargin, control: float) -> float:
    """The width of a named margin in the metric's unit, where the control's value is `control`."""
    if margin in _RELATIVE:
        return _RELATIVE[margin] * abs(control)
    return _ABSOLUTE[margin]
