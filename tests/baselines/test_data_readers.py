"""Readers of the publishers' layouts, on small files that are written here."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from baselines.base import DATASETS
from baselines.data import amazon, tables
from baselines.errors import LeanRecError


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [(u, i) for u in range(1, 31) for i in rng.choice(50, 12, replace=False) * 3 + 1],
        columns=["userId", "movieId"],
    )
    frame["rating"] = rng.integers(1, 6, len(frame))
    frame["timestamp"] = rng.integers(10**9, 2 * 10**9, len(frame))
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    movies = pd.DataFrame({"movieId": np.arange(50) * 3 + 1})
    movies["title"] = 'A, "film" (1999)'
    movies["genres"] = "Drama|War"
    movies.to_csv(tmp_path / "movies.csv", index=False)
    for name, table in (("ratings.dat", frame), ("movies.dat", movies)):
        lines = ["::".join(map(str, row)) for row in table.itertuples(index=False)]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="latin-1")
    return tmp_path


def test_both_layouts_of_movielens_give_the_same_events(ratings):
    csv = DATASETS.make(f'ml-25m(path="{ratings}")').events()
    dat = DATASETS.make(f'ml-1m(path="{ratings}")').events()
    for name in ("users", "items", "ratings", "times"):
        assert_array_equal(getattr(csv, name), getattr(dat, name))
    assert csv.texts == dat.texts
    assert csv.texts[0] == 'A, "film" (1999). Drama War'
    assert set(csv.of_items["genre_3"]) == {-1}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ratings_read_in_pieces_are_the_same(ratings, monkeypatch, end):
    source = DATASETS.make(f'ml-25m(path="{ratings}")')
    whole = source.events()
    text = (ratings / "ratings.csv").read_text()
    monkeypatch.setattr(tables, "PIECE", 50)
    for changed in (text, "\n" + text, "\ufeff" + text, text.removesuffix("\n")):
        (ratings / "ratings.csv").write_text(changed, encoding="utf-8", newline=end)
        for name in ("users", "items", "ratings", "times"):
            assert_array_equal(getattr(source.events(), name), getattr(whole, name))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,,4,5", "has empty values"),
        ("1,2,4", "has empty values"),
        ("", "has empty values"),
        ("1,x,4,5", "could not parse `x`"),
        ("1,3000000000,4,5", "could not parse `3000000000`"),
        ("1,2,4,5,6", "more fields"),
    ],
)
def test_a_bad_line_in_a_late_piece_is_told(ratings, monkeypatch, line, message):
    monkeypatch.setattr(tables, "PIECE", 50)
    with (ratings / "ratings.csv").open("a") as file:
        file.write(line + "\n1,2,3,4\n")
    with pytest.raises(LeanRecError, match=message):
        DATASETS.make(f'ml-25m(path="{ratings}")').events()


def test_leave_one_out_holds_back_the_last_two_events_of_each_user(ratings):
    data = DATASETS.make(f'ml-25m(path="{ratings}", split="leave-one-out")').retrieval()
    frame = pd.read_csv(ratings / "ratings.csv")
    items = {value: code for code, value in enumerate(sorted(frame["movieId"].unique()))}
    ordered = frame.sort_values(["userId", "timestamp"]).groupby("userId")["movieId"]
    assert data.test.items.tolist() == [items[i] for i in ordered.nth(-1)]
    assert data.valid.items.tolist() == [items[i] for i in ordered.nth(-2)]


def test_a_temporal_split_never_goes_back_in_time(ratings):
    source = DATASETS.make(f'ml-25m(path="{ratings}", split="temporal 7:2:1")')
    data = source.ctr()
    assert [len(part) for part in (data.train, data.valid, data.test)] == [252, 72, 36]
    assert "7:2:1" in data.protocol


def test_the_test_rows_of_a_temporal_split_are_in_the_order_of_time(ratings):
    data = DATASETS.make(f'ml-25m(path="{ratings}", split="temporal 7:2:1")').ctr()
    frame = pd.read_csv(ratings / "ratings.csv").sort_values("timestamp", kind="stable")
    users = {value: code for code, value in enumerate(sorted(frame["userId"].unique()))}
    last = frame.tail(len(data.test))
    assert data.test.users.tolist() == [users[user] for user in last["userId"]]
    assert data.test.labels.tolist() == (last["rating"] >= 4).astype(float).tolist()
    trained = np.bincount(data.train.items.numpy(), minlength=50)[data.test.items.numpy()]
    popularity = data.test.segments["popularity"].numpy()
    assert (popularity[trained == trained.max()] >= popularity.max()).all()
    assert (popularity[trained == trained.min()] <= popularity.min()).all()
    assert data.ordered
    assert not DATASETS.make(f'ml-25m(path="{ratings}")').ctr().ordered


def test_cold_items_are_never_trained_on(ratings):
    data = DATASETS.make(f'ml-25m(path="{ratings}", split="cold-items")').retrieval()
    assert not set(data.test.items.tolist()) & set(data.train.items.tolist())


def test_filters_together_leave_what_a_loop_leaves(ratings):
    frame = pd.read_csv(ratings / "ratings.csv")
    frame = pd.concat([frame, frame[:150].assign(rating=5)])
    frame.to_csv(ratings / "ratings.csv", index=False)
    left = frame[frame["rating"] >= 3].drop_duplicates(["userId", "movieId"])
    rare = pd.Series(True)
    while rare.any():
        counts = [left[c].map(left[c].value_counts()) for c in ("userId", "movieId")]
        rare = (counts[0] < 6) | (counts[1] < 4)
        left = left[~rare]
    spec = f'ml-25m(path="{ratings}", min_rating=3, min_user=6, min_item=4)'
    data = DATASETS.make(spec).retrieval()
    users, items = (left[c].rank(method="dense").astype(int) - 1 for c in ("userId", "movieId"))
    parts = (data.train, data.valid, data.test)
    found = {pair for p in parts for pair in zip(p.users.tolist(), p.items.tolist(), strict=True)}
    assert found == set(zip(users, items, strict=True))
    assert 0 < len(found) < (frame["rating"] >= 3).sum() - 100


def test_a_core_keeps_enough_events_of_each_user_and_item(ratings):
    data = DATASETS.make(f'ml-25m(path="{ratings}", min_user=6, min_item=6, split="8:1:1")')
    data = data.ctr()
    for ids in ("users", "items"):
        whole = np.concatenate([getattr(p, ids) for p in (data.train, data.valid, data.test)])
        assert np.bincount(whole).min() >= 6
    assert "k-core" in data.protocol


CONTEXT = ("daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")


def test_both_layouts_of_frappe_keep_the_publishers_parts(tmp_path):
    rng = np.random.default_rng(0)
    for form in ("csv", "libsvm"):
        (tmp_path / form).mkdir()
    for name, rows in (("train", 70), ("valid", 20), ("test", 10)):
        ids = rng.integers(0, 5, (rows, 10)) + np.arange(10) * 10
        labels = np.arange(rows) % 2
        frame = pd.DataFrame(ids, columns=["user", "item", *CONTEXT])
        frame.insert(0, "label", labels)
        frame.to_csv(tmp_path / "csv" / f"{name}.csv", index=False)
        lines = [
            f"{2 * label - 1} " + " ".join(f"{value}:1" for value in row)
            for label, row in zip(labels, ids, strict=True)
        ]
        (tmp_path / "libsvm" / f"{name}.libsvm").write_text("\n".join(lines) + "\n")
    csv, libsvm = (
        DATASETS.make(f'frappe(path="{tmp_path}/{form}")').ctr() for form in ("csv", "libsvm")
    )
    assert [len(part) for part in (csv.train, csv.valid, csv.test)] == [70, 20, 10]
    assert list(csv.fields) == ["user", "item", *CONTEXT]
    assert csv.digest == libsvm.digest
    assert set(csv.test.labels.tolist()) == {0, 1}


def criteo_lines(rows: int, seed: int = 0, values: int = 2**32) -> str:
    rng = np.random.default_rng(seed)
    lines = [
        "\t".join([str(k % 2), *([""] * 6), *map(str, rng.integers(-2, 50, 7)),
                   *(f"{v:08x}" for v in rng.integers(0, values, 25)), ""])
        for k in range(rows)
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def test_criteo_is_read_in_order_and_names_nobody(tmp_path):
    (tmp_path / "train.txt").write_text(criteo_lines(1000))
    source = DATASETS.make(f'criteo-kaggle(path="{tmp_path}", buckets=100)')
    data = source.ctr()
    assert [len(part) for part in (data.train, data.valid, data.test)] == [800, 100, 100]
    assert len(data.fields) == 26
    assert max(data.fields.values()) == 101
    assert (data.train.inputs[0][:, 25] == 0).all()
    assert len(data.numeric) == 13
    with pytest.raises(LeanRecError, match="neither users nor items"):
        source.retrieval()


def test_the_last_days_of_criteo_are_valid_and_test(tmp_path):
    for day, rows in enumerate((60, 50, 40, 30)):
        (tmp_path / f"day_{day}").write_text(criteo_lines(rows, seed=day))
    data = DATASETS.make(f'criteo-1tb(path="{tmp_path}", days=4)').ctr()
    assert [len(part) for part in (data.train, data.valid, data.test)] == [110, 40, 30]
    count = pd.read_csv(tmp_path / "day_3", sep="\t", header=None)[7].to_numpy()
    logs = np.log(np.maximum(count, 0) + 1)
    slope, shift = np.polyfit(logs, data.test.inputs[1][:, 6], 1)  # the counts, standardised
    np.testing.assert_allclose(data.test.inputs[1][:, 6], slope * logs + shift, atol=1e-5)
    with pytest.raises(LeanRecError, match=r"no day_4, .*day_23"):
        DATASETS.make(f'criteo-1tb(path="{tmp_path}")').ctr()
    with pytest.raises(LeanRecError, match="at least 3"):
        DATASETS.make(f'criteo-1tb(path="{tmp_path}", days=2)').ctr()


def test_rare_categories_of_criteo_count_as_missing(tmp_path):
    (tmp_path / "train.txt").write_text(criteo_lines(400, values=60))
    path = f'path="{tmp_path}"'
    every, common = (
        DATASETS.make(f"criteo-kaggle({path}{more})").events() for more in ("", ", min_count=7")
    )
    for name, codes in every.categories.items():
        values, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
        rare = (counts[place] < 7) & (codes >= 0)
        assert rare.any() or name == "category_25"
        assert_array_equal(common.categories[name], np.where(rare, -1, codes))
        assert len(values) <= 60
    assert "seen less than 7 times missing" in common.source


@pytest.mark.parametrize("line", ["1\t2\t3", "x" + "\t" * 39, "1" + "\tzz" * 39])
def test_lines_that_are_not_criteos_are_refused(tmp_path, line):
    (tmp_path / "train.txt").write_text(f"{line}\n" * 5)
    with pytest.raises(LeanRecError, match="not of the publisher's layout"):
        DATASETS.make(f'criteo-kaggle(path="{tmp_path}")').ctr()


def reviews() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "reviewerID": [f"A{k}" for k in rng.integers(0, 20, 400)],
            "asin": [f"B{k:03}" for k in rng.integers(0, 30, 400)],
            "overall": rng.integers(1, 6, 400).astype(float),
            "unixReviewTime": rng.permutation(400) + 10**9,
        }
    )


def test_every_layout_of_amazon_gives_the_same_sequences(tmp_path):
    frame = reviews()
    frame.to_csv(tmp_path / "r.csv", index=False, header=False)
    said = frame.assign(reviewText='so "good"\n', helpful=[[0, 1]] * 400, summary=None)
    said = said[["reviewText", *frame.columns, "helpful", "summary"]]
    lines = said.to_json(orient="records", lines=True).encode()
    (tmp_path / "r.json").write_bytes(lines)
    (tmp_path / "r.json.gz").write_bytes(gzip.compress(lines))
    codes = frame.assign(
        **{c: pd.factorize(frame[c], sort=True)[0] + 1 for c in ("reviewerID", "asin")}
    ).sort_values("unixReviewTime")
    users = codes.groupby("reviewerID")["asin"].agg(lambda items: " ".join(map(str, items)))
    (tmp_path / "r.txt").write_text("".join(f"{u} {items}\n" for u, items in users.items()))
    json, *others = (
        DATASETS.make(f'amazon(path="{tmp_path}/r.{form}")')
        for form in ("json", "json.gz", "csv", "txt")
    )
    clicks, found = json.ctr(), json.sequences(5)
    assert sum(int(p.labels.sum()) for p in (clicks.train, clicks.valid, clicks.test)) == int(
        (frame["overall"] >= 4).sum()
    )
    for other in others:
        data = other.sequences(5)
        for a, b in zip((found.train, found.test), (data.train, data.test), strict=True):
            assert_array_equal(a.inputs[0], b.inputs[0])
            assert_array_equal(a.items, b.items)


@pytest.mark.parametrize("form", ["json", "json.gz", "csv"])
def test_reviews_are_the_same_read_in_one_block_and_in_many(tmp_path, form, monkeypatch):
    frame = reviews()
    if form == "csv":
        frame.to_csv(tmp_path / "r.csv", index=False, header=False)
    else:
        frame.to_json(tmp_path / f"r.{form}", orient="records", lines=True)
    source = DATASETS.make(f'amazon(path="{tmp_path}/r.{form}")')
    whole = source.events()
    assert_array_equal(whole.users, pd.factorize(frame["reviewerID"], sort=True)[0])
    monkeypatch.setattr(amazon, "BLOCK", 7)
    parted = source.events()
    for name in ("users", "items", "ratings", "times"):
        assert_array_equal(getattr(whole, name), getattr(parted, name))


@pytest.mark.slow
def test_reading_reviews_holds_numbers_and_no_texts(tmp_path):
    """Peak of a process over its start; the ids as words alone would take 60 bytes a review."""
    count, path = 1_000_000, tmp_path / "r.json.gz"
    line = '{"reviewerID":"A%013d","asin":"B%09d","text":"%s","overall":5,"unixReviewTime":%d}'
    some = [line % (k * 7919 % 50_000, k % 5_000, "so " * 9, k) for k in range(count // 20)]
    with gzip.open(path, "wb", 1) as file:
        for _ in range(20):
            file.write(("\n".join(some) + "\n").encode())
    script = """
import resource, sys
from baselines.data.amazon import Amazon
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
events = Amazon(path=sys.argv[1]).events()
print(len(events), peak() - before)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    rows, grown = map(int, ran.stdout.split())
    assert rows == count
    assert grown < 100 * count


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.json", b"", "no reviews|layout"),
        ("r.json", b'{"reviewerID": "A", "asin": "B", "overall": 5.0}\n', "reviews without"),
        ("r.json", b'{"reviewerID": "A", \n', "layout"),
        ("r.json.gz", gzip.compress(b"{}\n" * 99)[:20], "layout"),
        ("r.csv", b"A,B,good,1\n", "layout"),
        ("r.csv", b"A,B,5,\n", "reviews without"),
        ("r.txt", b"1 2 3\n4\n", "a user and items"),
        ("r.txt", b"1 two\n", "a user and items"),
        ("r.txt", b"", "a user and items"),
    ],
)
def test_reviews_that_are_not_amazons_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LeanRecError, match=message):
        DATASETS.make(f'amazon(path="{tmp_path}/{name}")').sequences(3)


def test_both_matrices_of_kuairec_are_read_and_times_where_every_play_has_one(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user_id": rng.integers(0, 20, 600), "video_id": rng.integers(0, 50, 600),
            "play_duration": 9, "video_duration": 7, "time": "2020-07-05 00:08:23.438",
            "date": 20200705, "timestamp": rng.permutation(600) + 1593878903.438,
            "watch_ratio": rng.random(600) * 4,
        }
    )  # fmt: skip
    frame.to_csv(tmp_path / "big_matrix.csv", index=False)
    frame["timestamp"] = frame["timestamp"].where(frame.index != 5)
    frame.to_csv(tmp_path / "small_matrix.csv", index=False)
    big, small = (
        DATASETS.make(f'kuairec(path="{tmp_path}", matrix="{matrix}", split="8:1:1")')
        for matrix in ("big", "small")
    )
    assert big.ctr(history=3).train.inputs[1].shape[1] == 3
    clicks = small.ctr()
    assert int(clicks.train.labels.sum() + clicks.valid.labels.sum() + clicks.test.labels.sum()) \
        == int((frame["watch_ratio"] >= 2).sum())  # fmt: skip
    with pytest.raises(LeanRecError, match="kuairec-small has no times"):
        small.ctr(history=3)


@pytest.mark.parametrize("spec", ["ml-25m", "ml-1m", "criteo-kaggle", "criteo-1tb", "kuairec",
                                  "frappe", "amazon-beauty"])  # fmt: skip
def test_absent_data_are_named_with_their_publisher(tmp_path, monkeypatch, spec):
    monkeypatch.setenv("LEANREC_DATA", str(tmp_path))
    with pytest.raises(LeanRecError, match=r"not here.*http"):
        DATASETS.make(spec).ctr()
