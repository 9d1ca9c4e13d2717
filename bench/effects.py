"""Records → effects and verdicts. The one place where a number of the report is computed."""

from __future__ import annotations

from typing import Literal

from bench.protocol import Protocol
from bench.records import Row, Trial

Verdict = Literal[
    "faster", "slower", "smaller", "larger", "equivalent", "inconclusive",
    "better", "non-inferior", "inferior", "failed",
]  # fmt: skip


class Effect(Row):
    """What the statistics say of one metric of one cell (at one point, for one segment).

    effect, low, high: treatment ÷ control for scale "ratio", treatment − control for
    "difference"; low and high bound it at `level` confidence. control and treatment are the
    values of the arms in `unit`. point is "" or for example "batch=512". margins: named quality
    margin → verdict under it (primary quality metrics only). seed_spread: standard deviation of
    the control over seeds, for quality metrics.
    """

    baseline: str
    stack: str
    scenario: str
    device: str
    metric: str
    unit: str
    direction: Literal["higher", "lower"]
    scale: Literal["ratio", "difference"]
    estimator: str
    point: str = ""
    segment: str = ""
    control: float
    treatment: float
    effect: float
    low: float
    high: float
    level: float
    margin: float
    verdict: Verdict
    margins: dict[str, Verdict] = {}
    p_value: float | None = None
    p_adjusted: float | None = None
    family: str = ""
    seed_spread: float | None = None
    protocol: str = ""
    n_processes: int
    n_blocks: int
    primary: bool = False
    note: str = ""


def effects_of(
    trials: list[Trial], protocol: Protocol, primary: set[str], noise_floor: dict[str, float]
) -> list[Effect]:
    """All effects of `trials`. primary: ids of the cells whose family is held by Holm."""
    raise NotImplementedError
