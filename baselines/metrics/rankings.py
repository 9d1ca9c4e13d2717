"""Metrics of ranks: where the relevant items stand in the full list.

They read one row per (user, relevant item): ``rank`` (1-based, in the full list without what the
user has seen, ties against the item), ``relevant`` (how many relevant items the user has) and
``user``.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from baselines.base import QualityMetric, Scored


class _PerUser(QualityMetric):
    """A mean over users of what the ranks of their relevant items are worth."""

    def __call__(self, scored: Scored, weight: np.ndarray | None = None) -> float:
        user = scored.columns["user"]
        if len(user) == 0:
            return float("nan")
        _, first, code = np.unique(user, return_index=True, return_inverse=True)
        users = np.ones(len(first)) if weight is None else np.asarray(weight, float)[first]
        if not users.sum() > 0:
            return float("nan")
        rank = np.asarray(scored.columns["rank"], dtype=np.float64)
        values = self.per_user(rank, scored.columns["relevant"][first], code)
        return float(np.average(values, weights=users))

    @abstractmethod
    def per_user(self, rank: np.ndarray, relevant: np.ndarray, user: np.ndarray) -> np.ndarray:
        """The value of each user; `rank` and `user` have a row per item, `relevant` per user."""


class _At(_PerUser):
    """A metric of the first `k` places of the list."""

    def __init__(self, k: int = 10) -> None:
        self.k = k
        self.name = f"{type(self).name}@{k}"


class Ndcg(_At):
    """nDCG@k with binary gain: Σ 1/log2(1 + rank) over its value for min(|R|, k) first places.

    On a segment's rows, the part of it that the segment's items earn. Source: Järvelin and
    Kekäläinen 2002.
    """

    name = "ndcg"

    def per_user(self, rank: np.ndarray, relevant: np.ndarray, user: np.ndarray) -> np.ndarray:
        gain = np.where(rank <= self.k, 1 / np.log2(1 + rank), 0.0)
        ideal = np.cumsum(1 / np.log2(np.arange(2, self.k + 2)))
        return np.bincount(user, gain) / ideal[np.minimum(relevant, self.k).astype(int) - 1]


class HitRate(_At):
    """HR@k: the share of users with at least one relevant item in the first k places."""

    name = "hr"

    def per_user(self, rank: np.ndarray, relevant: np.ndarray, user: np.ndarray) -> np.ndarray:
        return (np.bincount(user, rank <= self.k) > 0).astype(np.float64)


class Recall(_At):
    """Recall@k: the share of a user's |R| relevant items in the first k places.

    On a segment's rows, the part of it that the segment's items make up.
    """

    name = "recall"

    def per_user(self, rank: np.ndarray, relevant: np.ndarray, user: np.ndarray) -> np.ndarray:
        return np.bincount(user, rank <= self.k) / relevant


class ReciprocalRank(_PerUser):
    """MRR: the mean of 1 / rank of the user's best-ranked relevant item, over the full list."""

    name = "mrr"

    def per_user(self, rank: np.ndarray, relevant: np.ndarray, user: np.ndarray) -> np.ndarray:
        best = np.zeros(len(relevant))
        np.maximum.at(best, user, 1 / rank)
        return best


RETRIEVAL_METRICS: tuple[QualityMetric, ...] = (Ndcg(), HitRate(), Recall(), ReciprocalRank())
