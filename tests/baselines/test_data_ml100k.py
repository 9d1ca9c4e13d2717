"""MovieLens-100K: both publishers' forms on small files of their layout, and the real data."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal

from baselines.data import ml100k
from baselines.data.ml100k import CLICK, GENRES, events_of, read_grouplens, read_recbole
from baselines.data.views import ctr_dataset, retrieval_dataset
from baselines.errors import LeanRecError

# (id, title, year, what stands after the year, genres)
FILMS = [
    (1, "Toy Story", "1995", "", ("Animation", "Children's", "Comedy")),
    (2, "Misérables, Les", "1995", "", ("Drama", "Musical")),
    (3, "Land Before Time III (not 1994)", "1995", " (V)", ("Animation",)),
    (4, 'The "Quoted" Film', "1934", "", ("Crime", "Film-Noir", "Mystery", "Thriller")),
    (5, "unknown", "", "", ("unknown",)),
]
USERS = [
    (1, 17, "F", "student", "01234"),
    (2, 18, "M", "none", "T8H1N"),
    (3, 60, "F", "other", "99"),
]


def rated() -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(0)
    pairs = [(user, item) for user in (1, 2, 3) for item in range(1, 6)]
    rng.shuffle(pairs)
    return [(user, item, 1 + (user + item) % 5, 880_000_000 + 4000 * user) for user, item in pairs]


def lines(rows: list[tuple[object, ...]], separator: str, header: str = "") -> str:
    return "".join([header, *(separator.join(map(str, row)) + "\n" for row in rows)])


def grouplens() -> dict[str, bytes]:
    items = [
        (number, f"{title} ({year}){after}" if year else title, "01-Jan-1999", "", "http://x",
         *(int(genre in genres) for genre in GENRES))
        for number, title, year, after, genres in FILMS
    ]  # fmt: skip
    return {
        "u.data": lines(rated(), "\t").encode(),
        "u.item": lines(items, "|").encode("latin-1"),
        "u.user": lines(USERS, "|").encode(),
    }


def recbole() -> dict[str, bytes]:
    items = []
    for number, title, year, after, genres in FILMS:
        cut = (f"{title} ({year})", after.strip(" ()")) if after else (title, year or "unkonwn")
        items.append((number, *cut, " ".join(genres)))
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    item_head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    user_head = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    return {
        "ml-100k.inter": lines(rated(), "\t", head).encode(),
        "ml-100k.item": lines(items, "\t", item_head).encode(),
        "ml-100k.user": lines(USERS, "\t", user_head).encode(),
    }


def test_both_publishers_forms_give_the_same_frame():
    frame = read_grouplens(grouplens())
    pd.testing.assert_frame_equal(frame, read_recbole(recbole()), check_dtype=False)
    assert len(frame) == 15
    assert frame["item"].tolist() == [item for _, item, _, _ in rated()]
    frame = frame.sort_values(["user", "item"])
    first = frame.head(5)
    assert first["year"].tolist() == [1995, 1995, 1995, 1930, 0]
    assert first["genre_1"].tolist() == ["Animation", "Drama", "Animation", "Crime", "unknown"]
    assert first["genre_3"].tolist() == ["Comedy", "", "", "Mystery", ""]
    users = frame.iloc[::5]
    assert users["age"].tolist() == [0, 18, 56]
    assert users["zip"].tolist() == ["0", "T", "9"]
    assert users["hour"].tolist() == [pd.Timestamp(t, unit="s").hour for t in users["timestamp"]]


@pytest.mark.parametrize(
    ("publisher", "files"), [("GroupLens", grouplens()), ("RecBole", recbole())]
)
def test_a_local_folder_in_either_layout_is_read(tmp_path, monkeypatch, publisher, files):
    source = next(source for source in ml100k.SOURCES if source.publisher == publisher)
    (tmp_path / "ml-100k").mkdir()
    for name, content in files.items():
        (tmp_path / "ml-100k" / name).write_bytes(content)
    monkeypatch.setenv("LEANREC_DATA", str(tmp_path))
    with pytest.raises(LeanRecError, match=f"differs from the file that {publisher} publishes"):
        ml100k.ratings()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    small = dataclasses.replace(source, files=digests)
    monkeypatch.setattr(ml100k, "SOURCES", (small,))
    pd.testing.assert_frame_equal(ml100k.ratings(), read_grouplens(grouplens()), check_dtype=False)


def test_the_real_data_have_the_published_sizes(ml100k_ratings):
    assert len(ml100k_ratings) == 100_000
    assert ml100k_ratings["user"].nunique() == 943
    assert ml100k_ratings["item"].nunique() == 1682
    assert np.bincount(ml100k_ratings["rating"]).tolist() == [0, 6110, 11370, 27145, 34174, 21201]
    assert ml100k_ratings.groupby("user").size().min() == 20
    assert not ml100k_ratings.isna().any().any()


def test_clicks_of_the_real_data(ml100k_ratings):
    events = events_of(ml100k_ratings)
    data = ctr_dataset(events, threshold=CLICK)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [80_000, 10_000, 10_000]
    assert list(data.fields) == ["user", "item", *ml100k.FEATURES]
    clicks = sum(part.labels.sum() for part in (data.train, data.valid, data.test))
    assert clicks == 34174 + 21201
    assert (data.train.inputs[0] > 0).all()
    assert (data.test.inputs[0][:, 1] == 0).any()  # items that only test rows have
    assert set(data.test.segments) == {"popularity", "activity", "age", "gender"}
    assert set(data.test.segments["age"].tolist()) == set(ml100k.AGE_GROUPS)
    assert set(data.test.segments["popularity"].tolist()) == set(range(10))
    assert "rating ≥ 4" in data.protocol
    assert ctr_dataset(events, threshold=CLICK).digest == data.digest
    assert ctr_dataset(events, threshold=CLICK, seed=1).digest != data.digest


def test_the_ranking_task_of_the_real_data(ml100k_ratings):
    data = retrieval_dataset(events_of(ml100k_ratings))
    assert data.fields == {"user": 943, "item": 1682}
    per_item = np.bincount(torch.cat([p.items for p in (data.train, data.valid, data.test)]))
    expected = per_item - np.rint(0.75 * per_item)
    assert_array_equal(np.bincount(data.test.items, minlength=1682), expected)
    assert (np.bincount(data.train.items) > 0).all()
    assert len(data.valid) == pytest.approx(3750, rel=0.05)
    pairs = [p.users * 1682 + p.items for p in (data.train, data.valid, data.test)]
    assert len(torch.cat(pairs).unique()) == 100_000
    for word in ("75:25 stratified by item", "full ranking", "removed", "every rating"):
        assert word in data.protocol
