"""A table of clicks, and own data sets of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from baselines.base import DATASETS, Dataset

ROLES = 'user="uid", item="iid", label="click", time="ts"'


def clicks(rows: int = 2000, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "uid": [f"ü{k}" for k in rng.integers(0, 40, rows)],
            "iid": rng.integers(0, 60, rows) + 2**40,
            "click": rng.integers(0, 2, rows),
            "ts": rng.permutation(rows) - 10**12,
            "device": rng.choice(["phone", "desk", None], rows),
            "price": rng.random(rows),
        }
    )


def own(path: Path, more: str = "") -> Dataset:
    return DATASETS.make(f'own(path="{path}", {ROLES}{more})').ctr()


def saved(path: Path, **change: object) -> str:
    """The spec of a table of clicks with some columns changed: Parquet, which keeps their kind."""
    frame = clicks()
    for column, new in change.items():
        frame[column] = new(frame) if callable(new) else new
    frame.to_parquet(path / "a.parquet")
    return f'own(path="{path}/a.parquet", {ROLES}, split="temporal")'
