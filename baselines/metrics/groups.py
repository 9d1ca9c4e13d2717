"""How unequally a metric falls on the groups of a segment."""

from __future__ import annotations

import numpy as np

from baselines.base import QualityMetric, Scored


class GroupGap(QualityMetric):
    """The best group's value of `metric` less the worst's, over the groups of `segment`.

    Groups in which the metric is not defined are left out; NaN where fewer than two remain or the
    rows have no such segment.
    """

    direction = "lower"

    def __init__(self, metric: QualityMetric, segment: str) -> None:
        self.metric, self.segment = metric, segment
        self.name = f"{metric.name}_gap[{segment}]"
        self.unit = metric.unit

    def __call__(self, scored: Scored, weight: np.ndarray | None = None) -> float:
        groups = scored.segments.get(self.segment, np.empty(0))
        masks = [groups == group for group in np.unique(groups)]
        found = [
            self.metric(scored.where(mask), None if weight is None else weight[mask])
            for mask in masks
        ]
        values = [value for value in found if np.isfinite(value)]
        return max(values) - min(values) if len(values) > 1 else float("nan")
