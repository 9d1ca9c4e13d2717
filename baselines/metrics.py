"""Quality metrics of the two tasks, and the ranks that full-ranking metrics read.

CTR metrics read the columns ``score`` (float [n], a probability), ``label`` (0 or 1) and ``user``.
Retrieval metrics read one row per (user, relevant item): ``rank`` (1-based, in the full list
without what the user has seen, ties against the item), ``relevant`` (how many relevant items the
user has) and ``user``. Each is NaN where it is not defined: no rows, a score that is not finite,
or one class only. A weight of w counts a row w times.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from baselines.base import QualityMetric, Scored

CLIP = 1e-7  # probabilities are kept so far from 0 and 1


class _Binary(QualityMetric):
    """A metric of probabilities against labels: the checks and the conversion to float64."""

    def __call__(self, scored: Scored, weight: np.ndarray | None = None) -> float:
        score = np.asarray(scored.columns["score"], dtype=np.float64)
        label = np.asarray(scored.columns["label"], dtype=np.float64)
        rows = np.ones(len(label)) if weight is None else np.asarray(weight, dtype=np.float64)
        if not rows.sum() > 0 or not np.isfinite(score).all():
            return float("nan")
        return self.of(score, label, rows, scored)

    @abstractmethod
    def of(self, score: np.ndarray, label: np.ndarray, weight: np.ndarray, scored: Scored) -> float:
        """The metric of float64 columns of n rows, of which some count."""


class Auc(_Binary):
    """Area under the ROC curve: P(a positive outscores a negative) + half of P(they tie)."""

    name = "auc"

    def of(self, score: np.ndarray, label: np.ndarray, weight: np.ndarray, scored: Scored) -> float:
        order = np.argsort(score)
        area, pairs, _ = _grouped_areas(score, label, weight, np.zeros(len(score)), order)
        return float(area[0] / pairs[0]) if pairs[0] > 0 else float("nan")


class GroupAuc(_Binary):
    """gAUC: the mean of the users' AUCs, each weighted by the user's number of rows.

    Users with one class only have no AUC and are left out, rows and all.
    """

    name = "gauc"

    def of(self, score: np.ndarray, label: np.ndarray, weight: np.ndarray, scored: Scored) -> float:
        user = scored.columns["user"]
        area, pairs, rows = _grouped_areas(score, label, weight, user, np.lexsort((score, user)))
        defined = pairs > 0
        if not defined.any():
            return float("nan")
        return float(np.average(area[defined] / pairs[defined], weights=rows[defined]))


class LogLoss(_Binary):
    """Mean binary cross-entropy in nats, probabilities clipped to [1e-7, 1 − 1e-7]."""

    name = "logloss"
    unit = "nats"
    direction = "lower"

    def of(self, score: np.ndarray, label: np.ndarray, weight: np.ndarray, scored: Scored) -> float:
        p = np.clip(score, CLIP, 1 - CLIP)
        return float(-np.average(label * np.log(p) + (1 - label) * np.log1p(-p), weights=weight))


class NormalisedEntropy(LogLoss):
    """NE: logloss over the entropy of the evaluated rows' own base rate.

    1 is what predicting the base rate for every row reaches. Source: He et al. 2014, Practical
    Lessons from Predicting Clicks on Ads at Facebook, section 3.
    """

    name = "ne"
    unit = ""

    def of(self, score: np.ndarray, label: np.ndarray, weight: np.ndarray, scored: Scored) -> float:
        rate = float(np.average(label, weights=weight))
        if not 0 < rate < 1:
            return float("nan")
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        return float(super().of(score, label, weight, scored) / entropy)


class CalibrationError(_Binary):
    """|ln(Σp / Σy)|: how far the sum of predictions is from the clicks seen; 0 is perfect."""

    name = "calibration_error"
    direction = "lower"

    def of(self, score: np.ndarray, label: np.ndarray, weight: np.ndarray, scored: Scored) -> float:
        predicted, seen = float(score @ weight), float(label @ weight)
        if predicted <= 0 or seen <= 0:
            return float("nan")
        return abs(float(np.log(predicted / seen)))


def _grouped_areas(
    score: np.ndarray, label: np.ndarray, weight: np.ndarray, group: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per group, in sorted order: the area (pairs won, ties half), all pairs, the weight of rows.

    `order` sorts the rows by group, then by score.
    """
    score, group = score[order], group[order]
    positive = (weight * label)[order]
    negative = (weight * (1 - label))[order]
    new_group = np.r_[True, group[1:] != group[:-1]]
    starts = np.flatnonzero(new_group | np.r_[True, score[1:] != score[:-1]])  # runs of ties
    of_run = (np.cumsum(new_group) - 1)[starts]
    won, lost = np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)
    total_won, total_lost = np.bincount(of_run, won), np.bincount(of_run, lost)
    below = np.cumsum(lost) - lost - (np.cumsum(total_lost) - total_lost)[of_run]
    area = np.bincount(of_run, won * (below + lost / 2))
    return area, total_won * total_lost, total_won + total_lost


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
        self.name = f"{type(self).name}@{k}"  # type: ignore[misc]


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


CTR_METRICS: tuple[QualityMetric, ...] = (
    Auc(), LogLoss(), NormalisedEntropy(), GroupAuc(), CalibrationError(),
)  # fmt: skip
RETRIEVAL_METRICS: tuple[QualityMetric, ...] = (Ndcg(), HitRate(), Recall(), ReciprocalRank())


def pessimistic_ranks(
    scores: Tensor, seen: tuple[Tensor, Tensor], relevant: tuple[Tensor, Tensor]
) -> Tensor:
    """Ranks of relevant items in the full list of each row: int64 [number of relevant pairs].

    scores: [B, I], compared in float32; NaN ranks last. seen, relevant: pairs of index tensors
    (row, item), disjoint; what a row has seen leaves its list, its other relevant items stay.
    rank = the number of listed items with at least the item's score, itself included, so ties
    count against it and the order of ids never matters.
    """
    low = float("-inf")
    listed = scores.float().nan_to_num(nan=low, posinf=float("inf"), neginf=low)
    hidden = torch.zeros(listed.shape, dtype=torch.bool, device=listed.device)
    hidden[seen] = True
    listed = listed.masked_fill(hidden, low)
    length, hidden_count = listed.shape[1], hidden.sum(1)
    row = relevant[0]
    order = torch.argsort(row, stable=True)
    counts = torch.bincount(row, minlength=len(listed))
    place = torch.empty_like(row)  # of each pair among the pairs of its row
    place[order] = (
        torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row[order]]
    )
    wanted = listed.new_full((len(listed), int(counts.max()) if len(row) else 0), low)
    wanted[row, place] = listed[relevant]
    lower = torch.searchsorted(listed.sort(1).values, wanted)[row, place]
    # An item at -inf stands among the hidden ones; all that is listed counts against it.
    return torch.where(listed[relevant] == low, length - hidden_count[row], length - lower)
