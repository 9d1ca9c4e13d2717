"""Quality metrics. A metric is NaN where it is not defined; a weight of w counts a row w times."""

from baselines.metrics.clicks import CTR_METRICS, CalibrationRatio
from baselines.metrics.groups import GroupGap
from baselines.metrics.lists import LIST_METRICS
from baselines.metrics.rankings import RETRIEVAL_METRICS
from baselines.metrics.ranks import pessimistic_ranks

__all__ = [
    "CTR_METRICS",
    "LIST_METRICS",
    "RETRIEVAL_METRICS",
    "CalibrationRatio",
    "GroupGap",
    "pessimistic_ranks",
]
