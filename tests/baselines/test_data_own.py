"""Own tables: every form, in memory and out of it, and the rules for odd data."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from own_tables import ROLES, clicks, own, saved

from baselines.base import DATASETS
from baselines.data import columns, tables
from baselines.errors import LeanRecError


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
    numbers = {value: k + 1 for k, value in enumerate(sorted(frame["iid"].unique()))}
    assert history[-1].tolist() == [numbers[i] for i in earlier]
    assert int(history.max()) <= data.fields["item"]


def test_a_table_is_the_same_in_memory_and_out_of_it(tmp_path, monkeypatch):
    frame = clicks().assign(age=lambda f: f["price"].round(1), past=lambda f: f["iid"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    lines = [f"{k % 2} " + " ".join(f"{k * f % 101}:1" for f in (2, 3)) for k in range(200)]
    (tmp_path / "a.libsvm").write_text("\n".join(lines) + "\n")
    more = ', categorical=["device", "age"], numeric=["price", "ts"], sequence="past"'
    made = [DATASETS.make(f'own(path="{tmp_path}/a.{form}", {ROLES}{more})')
            for form in ("csv", "csv.gz")]  # fmt: skip
    hashed = 'label="label", categorical=["field_0", "field_1"]'
    made.append(DATASETS.make(f'own(path="{tmp_path}/a.libsvm", {hashed})'))

    def digests() -> list[str]:
        kept = [source.ctr(history).digest for source, history in zip(made, (3, 3, 0), strict=True)]
        return [*kept, made[0].retrieval().digest]

    inside = digests()
    monkeypatch.setattr(tables, "LIMIT", 0)
    monkeypatch.setattr(columns, "LIMIT", 0)
    monkeypatch.setattr(columns, "BLOCK", 64)
    assert digests() == inside
    assert inside[0] != inside[2]
    assert len(list(tmp_path.iterdir())) == 3  # nothing is left beside the tables


def test_a_folder_of_three_tables_is_the_published_split(tmp_path, monkeypatch):
    frame = clicks()
    ends = {"train": (0, 1500), "valid": (1500, 1700), "test": (1700, 2000)}
    for name, (start, end) in ends.items():
        frame[start:end].to_csv(tmp_path / f"{name}.csv", index=False)
    more = ', categorical=["device"], split="published"'
    data = own(tmp_path, more)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [1500, 200, 300]
    monkeypatch.setattr(tables, "LIMIT", 0)
    assert own(tmp_path, more).digest == data.digest
    for name in ends:
        zipped = gzip.compress((tmp_path / f"{name}.csv").read_bytes())
        (tmp_path / "zipped").mkdir(exist_ok=True)
        (tmp_path / "zipped" / f"{name}.csv.gz").write_bytes(zipped)
    assert_array_equal(own(tmp_path / "zipped", more).test.inputs[0], data.test.inputs[0])
    (tmp_path / "valid.csv").write_text("uid,other\n1,2\n")
    with pytest.raises(LeanRecError, match="cannot be read as a table"):
        own(tmp_path, more)
    (tmp_path / "valid.csv").write_text(",".join(frame.columns) + "\n")
    with pytest.raises(LeanRecError, match="the valid part has no rows"):
        own(tmp_path, more)
    (tmp_path / "valid.csv").unlink()
    with pytest.raises(LeanRecError, match="has no train, valid and test files"):
        own(tmp_path, more)


def test_other_views_are_the_same_with_histories_and_without(tmp_path):
    clicks().assign(past=lambda f: f["iid"]).to_csv(tmp_path / "a.csv", index=False)
    more = ", min_user=2"
    plain, with_past = (
        DATASETS.make(f'own(path="{tmp_path}/a.csv", {ROLES}{more}{past})')
        for past in ("", ', sequence="past"')
    )
    assert plain.retrieval().digest == with_past.retrieval().digest
    assert plain.sequences(5).digest == with_past.sequences(5).digest


def test_interactions_need_no_label(tmp_path):
    clicks().to_csv(tmp_path / "a.csv", index=False)
    source = DATASETS.make(f'own(path="{tmp_path}/a.csv", user="uid", item="iid")')
    assert len(source.retrieval().train)
    assert len(source.sequences(5).train)
    with pytest.raises(LeanRecError, match="no ratings or labels"):
        source.ctr()


def test_histories_need_items_to_be_named(tmp_path):
    clicks().to_csv(tmp_path / "a.csv", index=False)
    spec = f'own(path="{tmp_path}/a.csv", user="uid", label="click", sequence="device")'
    with pytest.raises(LeanRecError, match="no column of items is named"):
        DATASETS.make(spec).ctr()


def test_ids_are_the_same_as_floats_as_whole_numbers_and_of_any_size(tmp_path):
    rows = {
        kind: DATASETS.make(saved(tmp_path, iid=ids)).retrieval()
        for kind, ids in {
            "small": lambda f: f["iid"] - 2**40,
            "float": lambda f: (f["iid"] - 2**40).astype(float),
            "huge": lambda f: f["iid"],
            "negative": lambda f: f["iid"] - 2**62,
            "unsigned": lambda f: f["iid"].astype("uint64") + np.uint64(2**63),
        }.items()
    }
    items = rows["small"].test.items
    for data in rows.values():
        assert torch.equal(data.test.items, items)
        assert data.fields["item"] == 60


@pytest.mark.parametrize("form", ["csv", "tsv.gz"])
@pytest.mark.parametrize(
    ("of", "distinct"),
    [
        (lambda k: f"{k:04d}", 60),
        (lambda k: f"{k // 2:0{4 * (k % 2)}d}", 60),  # 0, 0000, 1, 0001, …
        (lambda k: k + 2**40, 60),
        (lambda k: k + 2**64, 60),
        (lambda k: k - 30, 60),
        (lambda k: [f"-{k}", f"{k}"][k % 2], 60),
        (lambda k: f"{k // 3}.{k % 3}", 60),
        (lambda k: [f"{k // 2}", f"{k // 2}.0"][k % 2], 60),
        (lambda k: k if k < 59 else "x", 60),
        (lambda k: k // 2, 30),
    ],
)  # fmt: skip
def test_ids_of_a_text_file_are_what_stands_there(tmp_path, form, of, distinct):
    frame = clicks().assign(iid=lambda f: [of(k - 2**40) for k in f["iid"]])
    frame["past"] = frame["iid"]
    path = tmp_path / f"a.{form}"
    frame.to_csv(path, index=False, sep="\t" if "tsv" in form else ",")
    spec = f'own(path="{path}", {ROLES}, categorical=["past"], sequence="past", split="temporal")'
    source = DATASETS.make(spec)
    events = source.events()
    assert len(set(events.items)) == distinct
    assert_array_equal(pd.factorize(events.items)[0], pd.factorize(frame["iid"].astype(str))[0])
    assert_array_equal(events.categories["past"], events.items)
    assert_array_equal(events.histories.values, events.items)
    assert source.retrieval().fields["item"] == distinct


def test_whole_numbers_in_text_are_in_the_order_of_numbers(tmp_path):
    frame = clicks()
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    text, numbers = (own(tmp_path / f"a.{form}") for form in ("csv", "parquet"))
    assert torch.equal(text.train.inputs[0], numbers.train.inputs[0])


def test_an_item_of_a_history_is_not_another_that_has_zeros_in_front(tmp_path):
    frame = clicks().assign(past=lambda f: [f"{k}|0{k}" for k in f["iid"]])
    frame.to_csv(tmp_path / "a.csv", index=False)
    source = DATASETS.make(f'own(path="{tmp_path}/a.csv", {ROLES}, sequence="past")')
    events = source.events()
    found = events.histories.values.reshape(-1, 2)
    assert_array_equal(found[:, 0], events.items)
    assert (found[:, 1] == -1).all()


def test_texts_of_a_text_file_are_what_stands_there(tmp_path):
    frame = clicks().assign(title=lambda f: [f"{k % 60:03d}" for k in f["iid"] - 2**40])
    frame.to_csv(tmp_path / "a.csv", index=False)
    source = DATASETS.make(f'own(path="{tmp_path}/a.csv", {ROLES}, text="title")')
    assert source.retrieval().texts == tuple(f"{k:03d}" for k in range(60))


def test_three_files_of_one_table_agree_on_what_an_id_is(tmp_path):
    frame = clicks().assign(iid=lambda f: f["iid"] - 2**40)
    ids = frame["iid"].astype(str)
    ids[1700:] = ids[1700:].str.zfill(2)
    ends = {"train": (0, 1500), "valid": (1500, 1700), "test": (1700, 2000)}
    for name, (start, end) in ends.items():
        frame.assign(iid=ids)[start:end].to_csv(tmp_path / f"{name}.csv", index=False)
    unknown = own(tmp_path, ', split="published"').test.inputs[0][:, 1] == 0
    assert_array_equal(unknown, frame["iid"][1700:] < 10)


@pytest.mark.parametrize("times", [lambda f: f["ts"] - 2**62, lambda f: f["ts"] + 2**62,
                                   lambda f: f["ts"] * 2.0**20,
                                   lambda f: pd.to_datetime(f["ts"] + 10**12, unit="s"),
                                   lambda f: (f["ts"]).astype(str)])  # fmt: skip
def test_only_the_order_of_times_counts(tmp_path, times):
    plain, other = (
        (source.ctr(3).digest, source.sequences(4).digest)
        for source in (DATASETS.make(saved(tmp_path, ts=ts)) for ts in (lambda f: f["ts"], times))
    )
    assert plain == other


def test_a_time_beyond_64_bits_is_refused(tmp_path):
    clicks().assign(ts=lambda f: f["ts"].astype(object) + 2**64).to_csv(tmp_path / "a.csv")
    with pytest.raises(LeanRecError, match=r"should hold times; row 0 is \d{20}"):
        own(tmp_path / "a.csv")


def test_repeated_rows_count_as_impressions_and_in_sequences_and_once_as_interactions(tmp_path):
    for name, times in (("once", 1), ("twice", 2)):
        pd.concat([clicks()] * times).to_csv(tmp_path / f"{name}.csv", index=False)
    once, twice = (
        DATASETS.make(f'own(path="{tmp_path}/{name}.csv", {ROLES})') for name in ("once", "twice")
    )
    assert sum(len(p) for p in (twice.ctr().train, twice.ctr().valid, twice.ctr().test)) == 4000
    assert torch.equal(once.retrieval().test.items, twice.retrieval().test.items)
    data = twice.sequences(100)
    counts = clicks()["uid"].value_counts().sort_index()
    lengths = (data.test.inputs[0] != data.fields["item"]).sum(1)
    assert lengths.tolist() == np.minimum(counts * 2 - 1, 100).tolist()


def test_users_with_one_event_only_train_and_have_no_sequence(tmp_path):
    lone = clicks()[:50].assign(uid=[f"ž{k}" for k in range(50)])
    pd.concat([clicks(), lone]).to_csv(tmp_path / "a.csv", index=False)
    data = DATASETS.make(f'own(path="{tmp_path}/a.csv", {ROLES}, split="leave-one-out")')
    pairs, rows = data.retrieval(), data.sequences(5)
    users = set(range(40, 90))
    assert users <= set(pairs.train.users.tolist())
    for part in (pairs.valid, pairs.test, rows.train, rows.valid, rows.test):
        assert not users & set(part.users.tolist())


def test_missing_features_are_the_unknown_value_and_the_mean(tmp_path):
    holes = {"price": lambda f: f["price"].where(f["click"] == 1, np.nan),
             "device": lambda f: f["price"].where(f["click"] == 1, np.nan)}  # fmt: skip
    spec = saved(tmp_path, **holes)[:-1] + ', categorical=["device"], numeric=["price"])'
    data = DATASETS.make(spec).ctr()
    ids, numbers = data.train.inputs
    assert torch.equal(ids[:, 2] == 0, data.train.labels == 0)
    assert (numbers[data.train.labels == 0] == 0).all()
    assert numbers[data.train.labels == 1].mean().item() == pytest.approx(0, abs=1e-5)


def test_a_random_split_of_few_categories_parts_rows_by_their_numbers(tmp_path):
    frame = pd.concat([clicks(500)] * 2)
    frame.to_csv(tmp_path / "a.csv", index=False)
    roles = 'label="click", categorical=["device"], numeric=["price"]'
    data = DATASETS.make(f'own(path="{tmp_path}/a.csv", {roles})').ctr()
    parts = [set(part.inputs[1][:, 0].tolist()) for part in (data.train, data.valid, data.test)]
    assert [len(part) for part in parts] == [400, 50, 50]
    assert len(set.union(*parts)) == 500
