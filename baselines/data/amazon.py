"""Amazon reviews: 5-core JSON lines, ratings CSV, and one user a line.

Sources: McAuley et al. 2015, arXiv:1506.04757 (JSON, CSV); Kang and McAuley 2018, arXiv:1808.09781
(one user a line: the user, then items in order of time). Terms: research.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl

from baselines.base import dataset
from baselines.data.columns import BLOCK
from baselines.data.events import Events
from baselines.data.sources import local_folder
from baselines.data.tables import codes_of, locate
from baselines.data.views import EventSource
from baselines.errors import LeanRecError

PUBLISHER = "https://cseweb.ucsd.edu/~jmcauley/datasets.html"
JSON = {"reviewerID": pl.String, "asin": pl.String, "overall": pl.Float32,
        "unixReviewTime": pl.Int64}  # fmt: skip


@dataset("amazon")
@dataclass(frozen=True)
class Amazon(EventSource):
    """Reviews of one category of goods; a rating of 4 or more is a click.

    path: a file, absolute or below LEANREC_DATA: ``*.json`` or ``*.json.gz`` (one review a line),
    ``*.csv`` (user,item,rating,time without a header), else text of one user a line.
    """

    path: str = "amazon/reviews.json"
    threshold: float | None = 4.0

    def events(self) -> Events:
        """Events in the file's order; those of one user a line have their place as time."""
        path = Path(self.path).expanduser()
        path = path if path.is_absolute() else (local_folder() or Path()) / path
        (path,) = locate(path.parent.name, str(path.parent), (path.name,), PUBLISHER)
        suffixes = path.suffixes
        if ".json" in suffixes:
            scan = pl.scan_ndjson(path, schema=JSON)
        elif ".csv" in suffixes:
            scan = pl.scan_csv(path, has_header=False, schema=dict(JSON))
        else:
            return _one_user_a_line(path, self.name)
        try:
            frame = _columns(scan)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise LeanRecError(
                f"{path} is not of the publisher's layout: {str(error).splitlines()[0]}",
                "Nothing was run.",
                "Give JSON lines, a CSV of user,item,rating,time, or text of one user a line.",
            ) from error
        if not len(frame) or any(frame.null_count().row(0)):
            raise LeanRecError(
                f"{path} has no reviews, or reviews without {', '.join(JSON)}.",
                "Nothing was run.",
                "Get it anew from the publisher.",
            )
        users, items, ratings, times = (frame.drop_in_place(name) for name in JSON)
        return Events(
            self.name, f"Amazon reviews, {path.name}.", _codes(users), _codes(items),
            ratings.to_numpy(), times.to_numpy(),
        )  # fmt: skip


@dataset("amazon-beauty")
@dataclass(frozen=True)
class AmazonBeauty(Amazon):
    """Amazon Beauty, 5-core: 22,363 users, 12,101 items, 198,502 events; one user a line."""

    path: str = "amazon-beauty/Beauty.txt"


def _columns(scan: pl.LazyFrame) -> pl.DataFrame:
    """The columns of JSON, read block by block: 20 bytes a review and each word once."""
    words = [
        pl.col(name).cast(pl.Categorical(pl.Categories.random())) for name in ("reviewerID", "asin")
    ]
    blocks = chain([pl.DataFrame(schema=JSON)], scan.collect_batches(chunk_size=BLOCK))
    return pl.concat([block.with_columns(words) for block in blocks])


def _codes(words: pl.Series) -> np.ndarray:
    """As `codes_of` gives them, of a column without gaps that holds each word once."""
    numbers, known = words.to_physical().to_numpy(), words.unique()
    table = np.empty(int(numbers.max()) + 1, np.int32)
    table[known.to_physical().to_numpy()] = codes_of(known.cast(pl.String))[0]
    return table[numbers]


def _one_user_a_line(path: Path, name: str) -> Events:
    lines = pl.Series("line", path.read_text(encoding="utf-8-sig").splitlines(), dtype=pl.String)
    words = lines.str.strip_chars().str.split(" ")
    sizes = words.list.len().to_numpy().astype(np.int64)
    flat = words.explode().cast(pl.Int64, strict=False)
    if not len(flat) or flat.null_count() or (sizes < 2).any():
        raise LeanRecError(
            f"{path} has a line that is not a user and items, all whole numbers.",
            "Nothing was run.",
            "Its lines should be: user item item …",
        )
    first = np.cumsum(sizes) - sizes
    is_item = np.ones(len(flat), dtype=bool)
    is_item[first] = False
    numbers = flat.to_numpy()
    place = np.arange(len(flat)) - np.repeat(first, sizes)
    users = codes_of(pl.Series(np.repeat(numbers[first], sizes)[is_item]))[0]
    items = codes_of(pl.Series(numbers[is_item]))[0]
    return Events(name, f"Amazon reviews, {path.name}.", users, items, times=place[is_item])
