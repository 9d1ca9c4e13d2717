"""Readers of the publishers' layouts and of own tables, on small files that are written here."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from baselines.base import DATASETS, Dataset
from baselines.errors import LeanRecError

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


def test_cold_items_are_never_trained_on(ratings):
    data = DATASETS.make(f'ml-25m(path="{ratings}", split="cold-items")').retrieval()
    assert not set(data.test.items.tolist()) & set(data.train.items.tolist())


def test_a_core_keeps_enough_events_of_each_user_and_item(ratings):
    data = DATASETS.make(f'ml-25m(path="{ratings}", min_user=6, min_item=6, split="8:1:1")')
    data = data.ctr()
    for ids in ("users", "items"):
        whole = np.concatenate([getattr(p, ids) for p in (data.train, data.valid, data.test)])
        assert np.bincount(whole).min() >= 6
    assert "k-core" in data.protocol


@pytest.mark.parametrize("form", ["csv", "tsv", "csv.gz", "parquet"])
def test_every_form_of_an_own_table_gives_the_same_rows(tmp_path, form):
    frame = clicks()
    frame.to_csv(tmp_path / "plain.csv", index=False)
    path = tmp_path / f"table.{form}"
    if form == "parquet":
        frame.to_parquet(path)
    elif form == "csv.gz":
        text = "\ufeff" + frame.to_csv(index=False, lineterminator="\r\n")
        path.write_bytes(gzip.compress(text.encode()))
    else:
        frame.to_csv(path, index=False, sep="\t" if form == "tsv" else ",")
    more = ', categorical=["device"], numeric=["price"], split="temporal"'
    plain, other = own(tmp_path / "plain.csv", more), own(path, more)
    assert list(other.fields) == ["user", "item", "device"]
    for a, b in zip(plain.test.inputs, other.test.inputs, strict=True):
        assert_array_equal(a, b)
    assert (other.train.inputs[0][:, 2] == 0).any()  # a missing device
    assert other.train.inputs[1].mean().item() == pytest.approx(0, abs=1e-5)


def test_a_toml_file_holds_the_parameters(tmp_path):
    clicks().to_csv(tmp_path / "clicks.csv", index=False)
    toml = tmp_path / "clicks.toml"
    toml.write_text('path="clicks.csv"\n' + ROLES.replace(", ", "\n"), encoding="utf-8")
    data = DATASETS.make(f'own(path="{toml}")')
    assert data.ctr().digest == own(tmp_path / "clicks.csv").digest
    toml.write_text('path="clicks.csv"\nusr="uid"')
    with pytest.raises(LeanRecError, match="usr"):
        data.ctr()


def test_a_history_holds_earlier_items_only(tmp_path):
    clicks().to_csv(tmp_path / "clicks.csv", index=False)
    spec = f'own(path="{tmp_path}/clicks.csv", {ROLES}, split="temporal")'
    data = DATASETS.make(spec).ctr(history=3)
    _, history = data.test.inputs
    frame = clicks().sort_values("ts", kind="stable")
    last = frame.iloc[-1]
    earlier = frame[frame["uid"] == last["uid"]]["iid"].tolist()[-4:-1]
    row = int(frame.index[-1])
    place = sorted(frame.index[-200:]).index(row)
    numbers = {value: k + 1 for k, value in enumerate(sorted(frame["iid"].unique()))}
    assert history[place].tolist() == [numbers[i] for i in earlier]
    assert int(history.max()) <= data.fields["item"]


def test_frappe_keeps_the_publishers_parts(tmp_path):
    rng = np.random.default_rng(0)
    for name, rows in (("train", 70), ("valid", 20), ("test", 10)):
        lines = [
            f"{k % 2 * 2 - 1} " + " ".join(f"{10 * f + rng.integers(5)}:1" for f in range(10))
            for k in range(rows)
        ]
        (tmp_path / f"{name}.libsvm").write_text("\n".join(lines) + "\n")
    data = DATASETS.make(f'frappe(path="{tmp_path}")').ctr()
    assert [len(part) for part in (data.train, data.valid, data.test)] == [70, 20, 10]
    assert len(data.fields) == 10
    assert set(data.test.labels.tolist()) == {0, 1}


def test_criteo_is_read_in_order_and_names_nobody(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        "\t".join([str(k % 2), *([""] * 6), *map(str, rng.integers(-2, 50, 7)),
                   *(f"{v:08x}" for v in rng.integers(0, 2**32, 25)), ""])
        for k in range(1000)
    ]  # fmt: skip
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    source = DATASETS.make(f'criteo-kaggle(path="{tmp_path}", buckets=100)')
    data = source.ctr()
    assert [len(part) for part in (data.train, data.valid, data.test)] == [800, 100, 100]
    assert len(data.fields) == 26
    assert max(data.fields.values()) == 101
    assert (data.train.inputs[0][:, 25] == 0).all()
    assert len(data.numeric) == 13
    with pytest.raises(LeanRecError, match="neither users nor items"):
        source.retrieval()


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"uid": "usr"}, "", "no column 'uid'.*Did you mean"),
        ({"click": lambda f: 1}, "", "one class only"),
        ({"click": lambda f: f["ts"]}, "", "neither 0 nor 1"),
        ({"click": lambda f: f["click"].where(f.index != 7)}, "", "missing"),
        ({"uid": lambda f: f["uid"].where(f.index != 7)}, "", "no 'uid', the first is row 7"),
        ({"ts": lambda f: "soon"}, "", "should hold times; row 0 is 'soon'"),
        ({}, ', numeric=["device"]', "should hold numbers"),
        ({}, ', split="by moon"', "is no split"),
        ({}, ', split="published"', "without train, valid and test files"),
        ({}, ", min_user=3000", "no event passes"),
    ],
)
def test_bad_tables_are_refused_with_their_cause(tmp_path, change, more, message):
    frame = clicks()
    for column, new in change.items():
        frame = frame.assign(**{column: new}) if callable(new) else frame.rename(columns=change)
    frame.to_csv(tmp_path / "clicks.csv", index=False)
    with pytest.raises(LeanRecError, match=f"(?s){message}"):
        own(tmp_path / "clicks.csv", more)


@pytest.mark.parametrize("spec", ["ml-25m", "ml-1m", "criteo-kaggle", "criteo-1tb", "kuairec",
                                  "frappe", "amazon-beauty"])  # fmt: skip
def test_absent_data_are_named_with_their_publisher(tmp_path, monkeypatch, spec):
    monkeypatch.setenv("LEANREC_DATA", str(tmp_path))
    with pytest.raises(LeanRecError, match=r"not here.*http"):
        DATASETS.make(spec).ctr()
