"""MovieLens 1M, 10M, 20M, 25M, 32M and latest-small in GroupLens' own layout.

Source: Harper and Konstan 2015, The MovieLens Datasets. Terms: research; not to be redistributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl

from baselines.base import dataset
from baselines.data.columns import coded
from baselines.data.events import Events
from baselines.data.tables import locate, read_csv
from baselines.data.views import EventSource
from baselines.errors import LeanRecError

PUBLISHER = "https://grouplens.org/datasets/movielens/"
COLUMNS = {"userId": pl.Int32, "movieId": pl.Int32, "rating": pl.Float32, "timestamp": pl.Int64}
GENRES = 3  # categories genre_1 … of a film, in the publisher's order


@dataclass(frozen=True)
class MovieLens(EventSource):
    """Ratings of films; a rating of 4 or more is a click. Texts: title and genres.

    path: the folder of the files, where it is not below LEANREC_DATA.
    """

    path: str = ""
    threshold: float | None = 4.0

    files: ClassVar[tuple[str, str]] = ("ratings.csv", "movies.csv")

    def events(self) -> Events:
        """Ratings in the file's order, with up to three genres of the film."""
        ratings, movies = locate(self.name, self.path, self.files, PUBLISHER)
        is_dat = ratings.suffix == ".dat"
        columns = _read_dat(ratings) if is_dat else read_csv(ratings, COLUMNS)
        users, _ = coded(columns.pop("userId"), reuse=True)
        items, numbers = coded(columns.pop("movieId"), reuse=True)
        texts, genres = _films(movies, numbers)
        return Events(
            self.name, f"{self.name}.", users, items, columns.pop("rating"),
            columns.pop("timestamp"),
            of_items={f"genre_{k + 1}": codes for k, codes in enumerate(genres)},
            texts=texts,
        )  # fmt: skip


def _read_dat(path: Path) -> dict[str, np.ndarray]:
    wide = {"userId": pl.Int32, "a": pl.String, "movieId": pl.Int32, "b": pl.String,
            "rating": pl.Float32, "c": pl.String, "timestamp": pl.Int64}  # fmt: skip
    try:
        frame = (
            pl.scan_csv(path, separator=":", has_header=False, schema=wide, quote_char=None)
            .select(list(COLUMNS))
            .collect(engine="streaming")
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LeanRecError(
            f"{path} is not of the publisher's layout: {str(error).splitlines()[0]}",
            "Nothing was run.",
            "Its lines should be user::item::rating::time.",
        ) from error
    if not len(frame) or any(frame.null_count().row(0)):
        raise LeanRecError(
            f"{path} has no rows or empty values.", "Nothing was run.", "Get it anew."
        )
    return {name: frame.drop_in_place(name).to_numpy() for name in COLUMNS}


def _films(path: Path, numbers: np.ndarray) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Texts of the films `numbers`, and GENRES columns of genre codes, −1 where there is none."""
    if path.suffix == ".dat":
        content = path.read_bytes()
        try:
            lines = content.decode("utf-8")
        except UnicodeDecodeError:
            lines = content.decode("latin-1")
        parts = pl.Series("line", lines.splitlines()).str.split_exact("::", 2).struct.unnest()
        parts.columns = ["movieId", "title", "genres"]
        frame = parts.with_columns(pl.col("movieId").cast(pl.Int64))
    else:
        frame = pl.read_csv(path, schema_overrides={"movieId": pl.Int64})
    film = (
        pl.DataFrame({"movieId": numbers.astype(np.int64)})
        .join(frame, on="movieId", how="left", maintain_order="left")
        .with_columns(pl.col("title", "genres").fill_null(""))
    )
    plain = pl.col("genres").str.replace("(no genres listed)", "", literal=True)
    film = film.with_columns(plain.str.split("|").alias("list"))
    texts = film.select(
        (pl.col("title") + ". " + plain.str.replace_all("|", " ", literal=True)).str.strip_chars()
    ).to_series()
    names = film["list"].explode().drop_nulls().unique().sort()
    names = names.filter(names != "")
    place = pl.DataFrame({"genre": names, "code": np.arange(len(names))})
    genres = []
    for k in range(GENRES):
        kth = film.select(pl.col("list").list.get(k, null_on_oob=True).alias("genre"))
        code = kth.join(place, on="genre", how="left", maintain_order="left")["code"]
        genres.append(code.fill_null(-1).cast(pl.Int64).to_numpy())
    return tuple(texts.to_list()), genres


@dataset("ml-1m")
@dataclass(frozen=True)
class ML1M(MovieLens):
    """MovieLens-1M: 1,000,209 ratings of 3,706 films by 6,040 users."""

    files: ClassVar[tuple[str, str]] = ("ratings.dat", "movies.dat")


@dataset("ml-10m")
@dataclass(frozen=True)
class ML10M(MovieLens):
    """MovieLens-10M: 10,000,054 ratings by 69,878 users."""

    files: ClassVar[tuple[str, str]] = ("ratings.dat", "movies.dat")


@dataset("ml-20m")
@dataclass(frozen=True)
class ML20M(MovieLens):
    """MovieLens-20M: 20,000,263 ratings by 138,493 users."""


@dataset("ml-25m")
@dataclass(frozen=True)
class ML25M(MovieLens):
    """MovieLens-25M: 25,000,095 ratings by 162,541 users."""


@dataset("ml-32m")
@dataclass(frozen=True)
class ML32M(MovieLens):
    """MovieLens-32M: 32,000,204 ratings by 200,948 users."""


@dataset("ml-latest-small")
@dataclass(frozen=True)
class MLLatestSmall(MovieLens):
    """MovieLens latest-small: about 100,000 ratings by some 600 users (it changes over years)."""
