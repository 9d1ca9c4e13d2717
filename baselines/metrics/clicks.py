"""Metrics of click probabilities.

They read the columns ``score`` (float [n], a probability), ``label`` (0 or 1) and ``user``, and
are NaN where there are no rows, a score is not finite or only one class occurs.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

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
    """gAUC, weight: impressions. The mean of the users' AUCs, each by the user's number of rows.

    Users with one class only have no AUC and are left out, rows and all.
    """

    name = "gauc_impressions"

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


class CalibrationRatio(_Binary):
    """Σp / Σy: 1 is perfect, more is too many clicks promised. By popularity decile on `where`.

    Not among CTR_METRICS: neither direction is better, as `CalibrationError` is judged instead.
    """

    name = "calibration_ratio"

    def of(self, score: np.ndarray, label: np.ndarray, weight: np.ndarray, scored: Scored) -> float:
        seen = float(label @ weight)
        return float(score @ weight) / seen if seen > 0 else float("nan")


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


CTR_METRICS: tuple[QualityMetric, ...] = (
    Auc(), LogLoss(), NormalisedEntropy(), GroupAuc(), CalibrationError(),
)  # fmt: skip
