"""Frappe: 288,609 uses and non-uses of apps in their context, ten fields.

Source: Baltrunas et al. 2015, arXiv:1505.03014; parts 7:2:1 as He and Chua 2017 (libsvm) and BARS
(Frappe_x1, CSV) publish them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from baselines.base import dataset
from baselines.data.events import Events
from baselines.data.sources import local_folder
from baselines.data.table_events import table_events
from baselines.data.tables import opened
from baselines.data.views import EventSource
from baselines.errors import LeanRecError

CONTEXT = ("daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")


@dataset("frappe")
@dataclass(frozen=True)
class Frappe(EventSource):
    """Uses of apps. path: a folder with train, valid and test as ``.csv`` or ``.libsvm``."""

    split: str = "published"
    path: str = ""

    def events(self) -> Events:
        """User, app and eight fields of context; labels of 1 and −1 (libsvm) become 1 and 0."""
        root = Path(self.path).expanduser() if self.path else (local_folder() or Path()) / "frappe"
        if not root.is_dir():
            raise LeanRecError(
                f"frappe is not here: no folder {root}.",
                "Nothing was run.",
                "Set LEANREC_DATA to the folder above frappe/train.csv, or give path=…; it is at "
                "https://huggingface.co/datasets/reczoo/Frappe_x1.",
            )
        with opened(root) as (table, parts):
            columns = table.collect_schema().names()
            if columns[-1] == "field_9":
                names = dict(zip(columns, ("label", "user", "item", *CONTEXT), strict=True))
                named = table.rename(names).with_columns(pl.col("label").clip(0, 1))
            else:
                named = table
            return table_events(named, "frappe", "user", "item", "label", "", CONTEXT, parts=parts)
