"""Criteo's display advertising: 13 counts and 26 hashed categories of each impression.

Sources: the Kaggle challenge of 2014 (7 days in ``train.txt``) and the Terabyte click logs
(``day_0`` … ``day_23``). Terms: Criteo's, for research. Columns lie in files of
their own while they are read and used, so that memory holds a batch and not the text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from baselines.base import dataset
from baselines.data.events import Events
from baselines.data.tables import locate
from baselines.data.views import EventSource
from baselines.errors import LeanRecError

COUNTS = tuple(f"count_{k}" for k in range(13))
CATEGORIES = tuple(f"category_{k}" for k in range(26))
BATCH = 1 << 18  # rows held as text
SCHEMA = {"label": pl.Float32, **dict.fromkeys(COUNTS, pl.Float32),
          **dict.fromkeys(CATEGORIES, pl.String)}  # fmt: skip
MULTIPLIER, PRIME = 1_640_531_527, 4_294_967_291  # multiplicative hashing, Knuth, TAOCP 3, 6.4


@dataclass(frozen=True)
class Criteo(EventSource):
    """Impressions of ads; counts x become log(1 + max(x, 0)), categories are hashed.

    path: the folder of the files. buckets: of each category. min_count: rarer values count as
    missing. Neither users nor items are named.
    """

    path: str = ""
    buckets: int = 1 << 20
    min_count: int = 0

    def read(self, files: Sequence[Path], parts: Sequence[int] | None = None) -> Events:
        """The rows of `files` in turn, each file in one of `parts` where these are given."""
        sizes = []
        with tempfile.TemporaryFile() as ids, tempfile.TemporaryFile() as numbers:
            labels: list[np.ndarray] = []
            for path in files:
                start = len(labels)
                for batch in _batches(path, self.buckets):
                    labels.append(batch["label"].to_numpy())
                    batch.select(CATEGORIES).to_numpy().astype(np.int32).tofile(ids)
                    batch.select(COUNTS).to_numpy().astype(np.float32).tofile(numbers)
                sizes.append(sum(len(batch) for batch in labels[start:]))
            ids.flush()
            numbers.flush()
            label = np.concatenate(labels)
            codes = np.memmap(ids, np.int32, "c", shape=(len(label), len(CATEGORIES)))
            counts = np.memmap(numbers, np.float32, "c", shape=(len(label), len(COUNTS)))
        if self.min_count > 1:
            for k in range(len(CATEGORIES)):
                column = codes[:, k]
                common = np.bincount(column[column >= 0], minlength=self.buckets) >= self.min_count
                column[(column >= 0) & ~common[column]] = -1
        nobody = np.zeros(len(label), dtype=np.int64)
        rare = f", values seen less than {self.min_count} times missing" if self.min_count else ""
        return Events(
            self.name,
            f"{self.name}: log(1 + count), categories hashed to {self.buckets}{rare}.",
            nobody, nobody, label, np.arange(len(label)),
            categories={name: codes[:, k] for k, name in enumerate(CATEGORIES)},
            numbers={name: counts[:, k] for k, name in enumerate(COUNTS)},
            parts=None if parts is None else np.repeat(np.array(parts, np.int8), sizes),
            roles=(),
        )  # fmt: skip


@dataset("criteo-kaggle")
@dataclass(frozen=True)
class CriteoKaggle(Criteo):
    """Criteo Kaggle: 45,840,617 impressions of seven days, in order of time in ``train.txt``."""

    split: str = "temporal"

    def events(self) -> Events:
        """The rows in order; their time is their place."""
        url = "https://go.criteo.net/criteo-research-kaggle-display-advertising-challenge-dataset.tar.gz"
        return self.read(locate(self.name, self.path, ("train.txt",), url))


@dataset("criteo-1tb")
@dataclass(frozen=True)
class Criteo1TB(Criteo):
    """Criteo 1TB: 24 days of impressions; the last is test, the one before it valid."""

    split: str = "published"
    days: int = 24

    def events(self) -> Events:
        """The rows of the first `days` days."""
        if self.days < 3:
            raise LeanRecError(
                f"{self.days} days cannot be train, valid and test.", "Nothing was run.",
                "Give at least 3.",
            )  # fmt: skip
        files = tuple(f"day_{day}" for day in range(self.days))
        found = locate(
            self.name,
            self.path,
            files,
            "https://ailab.criteo.com/ressources (Criteo 1TB Click Logs)",
        )
        return self.read(found, [0] * (self.days - 2) + [1, 2])


def _batches(path: Path, buckets: int) -> Iterator[pl.DataFrame]:
    scan = pl.scan_csv(path, separator="\t", has_header=False, schema=SCHEMA, quote_char=None)
    value = pl.col(CATEGORIES).str.to_integer(base=16, dtype=pl.Int64)
    spread = value * MULTIPLIER % PRIME  # both below 2³², so that the product fits int64
    read = scan.with_columns(
        (pl.col(COUNTS).clip(0) + 1).log(), (spread % buckets).cast(pl.Int32).fill_null(-1)
    )
    try:
        yield from read.collect_batches(chunk_size=BATCH)
    except pl.exceptions.PolarsError as error:
        raise LeanRecError(
            f"{path} is not of the publisher's layout: {str(error).splitlines()[0]}",
            "Nothing was run.",
            "Its lines are a label, 13 counts and 26 hexadecimal categories, separated by tabs.",
        ) from error
