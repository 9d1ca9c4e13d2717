"""KuaiRec: 12.5 million plays of short videos; its small matrix is nearly full.

Source: Gao et al. 2022, arXiv:2202.10842. Licence: CC BY-SA 4.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from baselines.base import dataset
from baselines.data.events import Events
from baselines.data.table_events import table_events
from baselines.data.tables import locate, opened
from baselines.data.views import EventSource


@dataset("kuairec")
@dataclass(frozen=True)
class KuaiRec(EventSource):
    """Plays; the rating is the watch ratio, and a video watched twice over is a click.

    path: the folder of the matrices. Times are read where every play has one.
    """

    threshold: float | None = 2.0
    path: str = ""
    matrix: Literal["big", "small"] = "big"

    def events(self) -> Events:
        """Plays in the file's order."""
        (path,) = locate(
            "kuairec", self.path, (f"{self.matrix}_matrix.csv",), "https://kuairec.com"
        )
        with opened(path) as (table, _):
            timed = "timestamp" in table.collect_schema() and not (
                table.select("timestamp").null_count().collect().item()
            )
            return table_events(
                table, f"kuairec-{self.matrix}", "user_id", "video_id", "watch_ratio",
                "timestamp" if timed else "",
            )  # fmt: skip
