"""The decision rules in common use, which METHODOLOGY.md sets beside LeanRec's own.

Each looks at the raw timings of two arms and says whether they are "different". They are here to
be measured, never to decide: iterations of one process are not independent, as these rules assume.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from baselines.errors import LeanRecError

Timings = npt.ArrayLike


def student_t(a: Timings, b: Timings) -> bool:
    """pyperf's rule: Student's two-sample t with pooled variance, two-sided at 95 %.

    Source: psf/pyperf, `is_significant`. a, b: durations, at least 2 each, in one unit.
    """
    x, y = _timings(a), _timings(b)
    df = len(x) + len(y) - 2
    pooled = (((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / df
    error = math.sqrt(pooled * (1 / len(x) + 1 / len(y)))
    distance = abs(float(x.mean() - y.mean()))
    return distance > error * float(special.stdtrit(df, 0.975))


def mann_whitney(a: Timings, b: Timings) -> bool:
    """asv's test: two-sided Mann-Whitney U, p < .002.

    Source: airspeed-velocity/asv, `asv.statistics`. a, b: durations, at least 2 each, in one unit.
    """
    return bool(stats.mannwhitneyu(_timings(a), _timings(b)).pvalue < 0.002)


def mean_plus_5(a: Timings, b: Timings) -> bool:
    """pytest-benchmark's ``--benchmark-compare-fail=mean:5%``: b's mean is 5 % above a's.

    One-sided, as there: a is the control. a, b: durations, at least 2 each, in one unit.
    """
    return bool(_timings(b).mean() > 1.05 * _timings(a).mean())


RULES: dict[str, Callable[[Timings, Timings], bool]] = {
    "Student's t on raw timings": student_t,
    "Mann-Whitney on raw timings": mann_whitney,
    "mean + 5 %": mean_plus_5,
}


def rate(successes: int, n: int, level: float = 0.95) -> tuple[float, float, float]:
    """A share with its exact binomial interval (Clopper and Pearson 1934): (rate, low, high).

    Raises LeanRecError where there is nothing to count.
    """
    if not 0 <= successes <= n or n < 1:
        raise LeanRecError(
            f"{successes} of {n} is not a share.", "There is no rate.", "Measure at least once."
        )
    tail = (1 - level) / 2
    low = float(special.betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = (
        float(special.betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    )
    return successes / n, low, high


def _timings(values: Timings) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    if len(array) < 2 or not (np.isfinite(array) & (array > 0)).all():
        raise LeanRecError(
            f"These {len(array)} timings are too few, or not all positive and finite.",
            "No rule can be applied, and none says 'different'.",
            "Give at least 2 durations of each arm.",
        )
    return array
