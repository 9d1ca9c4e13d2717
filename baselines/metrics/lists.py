"""Metrics of the lists that users are shown, beyond whether they hit.

They read one row per (user, relevant item), and of each user the first: ``user``, ``top`` (int64
[n, k], the first k items of the user's list, −1 where there are fewer), ``top_popularity``
(float64 [n, k], how often each was taken in training) and ``profile_popularity`` (float64 [n], the
same of what the user took, on average). The size of the catalogue is in the rules.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from baselines.base import QualityMetric, Scored


class _Lists(QualityMetric):
    """A metric of the first `k` items of each user's list, every user a weight."""

    def __init__(self, k: int = 10) -> None:
        self.k = k
        self.name = f"{type(self).name}@{k}"

    def __call__(self, scored: Scored, weight: np.ndarray | None = None) -> float:
        _, first = np.unique(scored.columns["user"], return_index=True)
        users = np.ones(len(first)) if weight is None else np.asarray(weight, float)[first]
        first, users = first[users > 0], users[users > 0]
        return self.of(scored, first, users) if len(first) else float("nan")

    @abstractmethod
    def of(self, scored: Scored, first: np.ndarray, weight: np.ndarray) -> float:
        """The metric; first: the row of each user that counts, weight: how often it does."""

    def exposure(self, scored: Scored, first: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """How often each item of the catalogue is listed: float64 [I]; empty where not known."""
        if scored.rules is None or not scored.rules.catalogue:
            return np.empty(0)
        top = scored.columns["top"][first, : self.k]
        listed = top >= 0
        weights = np.broadcast_to(weight[:, None], top.shape)[listed]
        return np.bincount(top[listed], weights, scored.rules.catalogue)


class Coverage(_Lists):
    """The share of the catalogue that is in at least one user's first k items."""

    name = "coverage"

    def of(self, scored: Scored, first: np.ndarray, weight: np.ndarray) -> float:
        shown = self.exposure(scored, first, weight)
        return float((shown > 0).mean()) if len(shown) else float("nan")


class Gini(_Lists):
    """The Gini coefficient of how often items are listed, items never listed included.

    0 where all are listed equally often, 1 − 1/I where one item has every place of I items'
    lists. Σ(2r − I − 1)·x_r / (I·Σx) over the counts x in rising order, r from 1.
    """

    name = "gini"
    direction = "lower"

    def of(self, scored: Scored, first: np.ndarray, weight: np.ndarray) -> float:
        shown = np.sort(self.exposure(scored, first, weight))
        if not shown.sum() > 0:
            return float("nan")
        items = len(shown)
        rank = np.arange(1, items + 1)
        return float((2 * rank - items - 1) @ shown / (items * shown.sum()))


class AveragePopularity(_Lists):
    """The mean over users of how often, on average, their first k items were taken in training."""

    name = "popularity"
    unit = "interactions"
    direction = "lower"

    def of(self, scored: Scored, first: np.ndarray, weight: np.ndarray) -> float:
        mean, defined = _row_means(scored.columns["top_popularity"][first, : self.k])
        if not defined.any():
            return float("nan")
        return float(np.average(mean[defined], weights=weight[defined]))


class PopularityLift(_Lists):
    """How much more popular lists are than what their users took: the mean over users of the
    list's average popularity over that of the profile's, less 1. Users without a profile are left
    out. Source: Abdollahpouri et al. 2020, "The Connection Between Popularity Bias, Calibration,
    and Fairness in Recommendation", RecSys, equation 4, over all users as one group.
    """

    name = "popularity_lift"
    direction = "lower"

    def of(self, scored: Scored, first: np.ndarray, weight: np.ndarray) -> float:
        mean, defined = _row_means(scored.columns["top_popularity"][first, : self.k])
        profile = scored.columns["profile_popularity"][first]
        defined &= profile > 0
        if not defined.any():
            return float("nan")
        weight = weight[defined]
        before = np.average(profile[defined], weights=weight)
        return float(np.average(mean[defined], weights=weight) / before - 1)


def _row_means(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each row's numbers that are not NaN, and whether there is one."""
    count = np.isfinite(values).sum(1)
    return np.nansum(values, axis=1) / np.maximum(count, 1), count > 0


LIST_METRICS: tuple[QualityMetric, ...] = (
    Coverage(), Gini(), AveragePopularity(), PopularityLift(),
)  # fmt: skip
