"""The statistics of METHODOLOGY.md, as pure functions. Nothing here knows a record or a metric.

The unit of replication is the process: iterations within one are autocorrelated, and processes
differ, so everything enters here as one number a process (Kalibera and Jones, "Rigorous
benchmarking in reasonable time", ISMM 2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from baselines.errors import LeanRecError

Floats = Sequence[float] | npt.NDArray[np.float64]
PERCENTILES = (99.9, 99.0, 95.0, 90.0, 50.0)


class Interval(NamedTuple):
    """An estimate with its two-sided bounds, standard error and degrees of freedom.

    Infinite where one process is all there is; of zero width where all processes agree exactly.
    """

    estimate: float
    low: float
    high: float
    se: float
    df: float

    def reversed(self) -> Interval:
        """The interval of the quantity with its sign changed."""
        return Interval(-self.estimate, -self.high, -self.low, self.se, self.df)

    def lower_bound(self, level: float) -> float:
        """The one-sided lower bound at confidence `level`."""
        return self.estimate - _half_width(self.se, self.df, level)


def _half_width(se: float, df: float, level: float) -> float:
    """t(df) at one-sided `level` times `se`."""
    if df <= 0:
        return math.inf
    return float(special.stdtrit(df, level)) * se if se > 0 else 0.0


def _t_interval(estimate: float, se: float, df: float, level: float) -> Interval:
    half = _half_width(se, df, 0.5 + level / 2)
    return Interval(estimate, estimate - half, estimate + half, se, df)


def ratio_interval(process_log_ratios: Floats, level: float) -> Interval:
    """Student's t interval of a mean log ratio, on the log scale.

    process_log_ratios: [processes], each the mean over block pairs of log(treatment ÷ control).
    Works for any one-number-a-process quantity. Raises LeanRecError for no or non-finite values.
    """
    values = _finite(process_log_ratios, "log ratios")
    n = len(values)
    estimate = float(values.mean())
    if n == 1:
        return _t_interval(estimate, math.inf, 0, level)
    if np.all(values == values[0]):  # the sum behind a mean may round: exact counts stay exact
        return _t_interval(float(values[0]), 0.0, n - 1, level)
    return _t_interval(estimate, float(values.std(ddof=1)) / math.sqrt(n), n - 1, level)


def quality_interval(
    differences: Floats, replicates: npt.NDArray[np.float64], units: int, level: float
) -> Interval:
    """The interval of a quality difference over seeds and over test examples.

    differences: [seeds]. replicates: [seeds, resamples], the difference in each bootstrap resample
    of the `units` test units, the same resamples for every seed. The variance of the mean is the
    variance over seeds ÷ seeds plus the bootstrap variance of the mean over seeds; the interaction
    of the two is in both, so the sum errs on the wide side. The bootstrap's is enlarged by
    units ÷ (units − 1), which it lacks (Efron and Tibshirani 1993, §5). Degrees of freedom by
    Welch and Satterthwaite (Satterthwaite 1946), so that seeds which all agree leave those of the
    bootstrap. Raises LeanRecError for no or non-finite values, or shapes that do not agree.
    """
    values = _finite(differences, "quality differences")
    if replicates.ndim != 2 or len(replicates) != len(values) or replicates.shape[1] < 2:
        raise LeanRecError(
            f"Bootstrap replicates of shape {replicates.shape} do not fit {len(values)} seeds.",
            "The quality difference has no interval.",
            "Record the same number of replicates (at least 2) for every seed.",
        )
    _finite(replicates.ravel(), "bootstrap replicates")
    seeds = ratio_interval(values, level)
    if seeds.df == 0 or units < 2:
        return _t_interval(seeds.estimate, math.inf, 0, level)
    by_seed = seeds.se**2
    by_unit = float(replicates.mean(axis=0).var(ddof=1)) * units / (units - 1)
    total = by_seed + by_unit
    if total == 0:
        return _t_interval(seeds.estimate, 0.0, seeds.df, level)
    df_unit = min(replicates.shape[1], units) - 1
    # As shares of the total: the squares of tiny variances would underflow.
    df = 1 / ((by_seed / total) ** 2 / seeds.df + (by_unit / total) ** 2 / df_unit)
    return _t_interval(seeds.estimate, math.sqrt(total), df, level)


def minimum_effect_p(interval: Interval, margin: float) -> float:
    """p of H0 |θ| ≤ margin: is the effect larger than what does not matter?

    Both tails, at the edge of the null hypothesis where it is the hardest to refute (McCarthy and
    Smyth, "Testing significance relative to a fold-change threshold is a TREAT", 2009).
    """
    size = abs(interval.estimate)
    if interval.df <= 0:
        return 1.0
    if interval.se == 0:
        return float(size <= margin)
    far, near = (size + margin) / interval.se, (size - margin) / interval.se
    return float(special.stdtr(interval.df, -near) + special.stdtr(interval.df, -far))


def at_least_p(interval: Interval, threshold: float) -> float:
    """p of H0 θ < threshold, by the one-sided t; with −margin it is the test of non-inferiority."""
    if interval.df <= 0:
        return 1.0
    if interval.se == 0:
        return float(interval.estimate < threshold)
    return float(special.stdtr(interval.df, (threshold - interval.estimate) / interval.se))


def holm(p_values: Floats) -> npt.NDArray[np.float64]:
    """Adjusted p that bound the chance of any false claim in the family (Holm 1979)."""
    p = _probabilities(p_values)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def benjamini_hochberg(p_values: Floats) -> npt.NDArray[np.float64]:
    """Adjusted p that bound the expected share of false claims (Benjamini and Hochberg 1995)."""
    p = _probabilities(p_values)
    order = np.argsort(p, kind="stable")[::-1]
    steps = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def bounding_rank(n: int, percentile: float, confidence: float = 0.99) -> int:
    """The rank, from the top, of the one of n samples that bounds the percentile from above.

    The largest t with P(Binomial(n, 1 − percentile) ≤ t) ≤ 1 − confidence, the rule of early
    stopping in MLPerf LoadGen (mlcommons/inference, loadgen/early_stopping.cc); 0 where n samples
    are too few: fewer than 64 for p90, 662 for p99. The samples are taken to be independent.
    """
    above = 1 - percentile / 100
    t = int(np.floor(special.bdtrik(1 - confidence, n, above))) if n > 0 else 0
    while t >= 0 and special.bdtr(t, n, above) > 1 - confidence:  # bdtrik may round up
        t -= 1
    return max(t, 0)


def supported_percentile(n: int, confidence: float = 0.99) -> float | None:
    """The highest of `PERCENTILES` that n samples bear by `bounding_rank`; None for n below 11."""
    return next((q for q in PERCENTILES if bounding_rank(n, q, confidence) >= 1), None)


def tail_bound(values: Floats, percentile: float, confidence: float = 0.99) -> float:
    """A distribution-free upper bound of the percentile: the `bounding_rank`-th largest value.

    LoadGen's early-stopping estimate. Infinite where the samples are too few to bear any.
    """
    ordered = np.sort(_finite(values, "durations"))
    rank = bounding_rank(len(ordered), percentile, confidence)
    return float(ordered[len(ordered) - rank]) if rank >= 1 else math.inf


def _finite(values: Floats, what: str) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise LeanRecError(
            f"No statistics of {what}: {'none given' if array.size == 0 else 'not all finite'}.",
            "There is no effect and no verdict.",
            "Look for a failure among the run's warnings, and measure again.",
        )
    return array


def _probabilities(p_values: Floats) -> npt.NDArray[np.float64]:
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise LeanRecError("A p-value is not within 0…1.", "The family is not judged.", "")
    return p
