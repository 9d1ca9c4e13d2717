"""Bring-your-own frames: what they become, and what is said of frames that cannot be used."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines.base import Dataset, Split
from baselines.data.frame import from_frame, interactions_from_frame
from baselines.errors import LeanRecError

ROLES = {"label": "click", "user": "user", "item": "item"}


def impressions(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user": rng.integers(0, 40, rows),
            "item": rng.integers(0, 60, rows),
            "page": rng.choice(["home", "«Übersicht»", 'a "quoted" page', ""], rows),
            "click": rng.integers(0, 2, rows),
            "time": np.arange(rows),
        }
    )


def parts(data: Dataset) -> tuple[Split, Split, Split]:
    return data.train, data.valid, data.test


def test_rows_are_split_8_1_1_and_encoded_in_the_order_of_fields():
    data = from_frame(impressions(), **ROLES, features=["page", "time"], name="mine")
    assert [len(part) for part in parts(data)] == [320, 40, 40]
    assert list(data.fields) == ["user", "item", "page", "time"]
    assert data.fields["page"] == 5
    for part in parts(data):
        (ids,) = part.inputs
        assert ids.dtype == torch.int64
        assert ids.shape == (len(part), 4)
        assert (ids < torch.tensor(list(data.fields.values()))).all()
        assert part.labels.dtype == torch.float32
    assert (data.train.inputs[0] > 0).all()
    assert (data.test.inputs[0][:, 3] == 0).all()  # no time of a test row is in train
    assert data.name == "mine"
    assert "8:1:1" in data.protocol


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    digests = [from_frame(impressions(), **ROLES, seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_segments_belong_to_the_test_rows_and_say_what_they_stand_for():
    frame = impressions().assign(plan=lambda f: np.where(f["user"] < 20, "free", "paid"))
    data = from_frame(frame, **ROLES, segments=["plan", "user"])
    assert set(data.test.segments) == {"popularity", "activity", "plan", "user"}
    assert all(len(numbers) == len(data.test) for numbers in data.test.segments.values())
    assert not data.train.segments
    paid = data.test.segments["user"] >= 20
    assert torch.equal(data.test.segments["plan"], paid.long())
    assert "plan 0 = free, 1 = paid" in data.protocol


@given(
    st.lists(
        st.one_of(st.text(max_size=5), st.integers(-(2**62), 2**62)), min_size=2, max_size=6,
        unique=True,
    )
)  # fmt: skip
def test_ids_of_any_kind_become_codes(ids):
    frame = impressions(200)
    frame["item"] = [ids[number % len(ids)] for number in frame["item"]]
    data = from_frame(frame, **ROLES)
    assert data.fields["item"] == len(ids) + 1
    codes = torch.cat([part.items for part in parts(data)])
    assert codes.min() == 0
    assert codes.max() == len(ids) - 1


def test_huge_ids_cost_no_table():
    frame = impressions()
    frame["user"] += 2**40
    assert (
        from_frame(frame, **ROLES).fields["user"]
        == from_frame(impressions(), **ROLES).fields["user"]
    )


def test_a_missing_feature_is_the_unknown_value():
    frame = impressions().assign(page=lambda f: f["page"].where(f["click"] == 1))
    data = from_frame(frame, **ROLES, features=["page"])
    for part in parts(data):
        assert torch.equal(part.inputs[0][:, 2] == 0, part.labels == 0)


def test_repeated_impressions_stay_together():
    frame = impressions(200).drop(columns="time")
    data = from_frame(pd.concat([frame] * 3), **ROLES, features=["page"])
    rows = [
        set(map(tuple, torch.column_stack((part.users, part.items, part.labels)).tolist()))
        for part in parts(from_frame(pd.concat([frame] * 3), **ROLES))
    ]
    assert sum(len(part) for part in parts(data)) == 600
    assert not rows[0] & rows[2]
    assert not rows[0] & rows[1]


def test_a_threshold_makes_clicks_of_ratings():
    frame = impressions().assign(click=lambda f: f["time"] % 5 + 1)
    data = from_frame(frame, **ROLES, threshold=4)
    assert sum(part.labels.sum() for part in parts(data)) == 160
    with pytest.raises(LeanRecError, match=r"neither 0 nor 1.*threshold"):
        from_frame(frame, **ROLES)


def with_labels(**at: object) -> pd.DataFrame:
    frame = impressions().astype({"click": object})
    for row, value in at.items():
        frame.loc[int(row[1:]), "click"] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "roles", "message"),
    [
        (impressions(), {"user": "usr"}, r"no column 'usr'.*Did you mean 'user'\?.*item, page"),
        (impressions(), {"features": ["it's \"new\""]}, "no column"),
        (impressions().rename(columns={"page": "item"}), {}, "several columns called 'item'"),
        (impressions(), {"item": "user"}, "both user and item"),
        (impressions(), {"features": ["click"]}, "label 'click' is among the features"),
        (impressions().head(0), {}, "no rows"),
        (with_labels(r7=np.nan, r9=None), {}, "2 of 400 labels .* row 7"),
        (with_labels(r3="yes"), {}, "row 3 is 'yes'"),
        (with_labels(r3=np.inf), {}, "finite"),
        (impressions().assign(click=1), {}, "one class only"),
        (impressions(5), {}, "with 5 rows"),
        (impressions().assign(item=[["a list"]] * 400), {}, "'item' holds values"),
        (impressions().replace({"user": {7: None}}), {}, "rows have no 'user', the first is row"),
    ],
)  # fmt: skip
def test_a_frame_that_cannot_be_used_is_refused_with_its_cause(frame, roles, message):
    with pytest.raises(LeanRecError, match=f"(?s){message}"):
        from_frame(frame, **{**ROLES, **roles})


def test_interactions_are_split_within_each_item_and_count_once():
    frame = impressions(2000)[["user", "item"]]
    data = interactions_from_frame(pd.concat([frame, frame]), user="user", item="item")
    pairs = torch.cat([torch.stack(part.inputs, 1) for part in parts(data)])
    assert len(pairs) == len(frame.drop_duplicates())
    assert len(pairs.unique(dim=0)) == len(pairs)
    assert data.fields == {"user": 40, "item": 60}
    assert set(data.train.items.tolist()) == set(range(60))
    assert len(data.test) == pytest.approx(len(pairs) / 4, abs=30)
    assert 0 < len(data.valid) < len(data.test)


def test_users_that_were_never_trained_on_are_not_judged():
    frame = impressions(2000)[["user", "item"]]
    rare = pd.DataFrame({"user": range(100, 130), "item": 3})  # one interaction each
    data = interactions_from_frame(pd.concat([frame, rare]), user="user", item="item")
    trained = set(data.train.users.tolist())
    assert set(data.test.users.tolist()) <= trained
    assert set(data.valid.users.tolist()) <= trained


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (impressions().drop(columns="item"), "no column 'item'"),
        (impressions(0), "no rows"),
        (impressions(1), "the valid part has no rows"),
        (impressions().assign(item=None), "no 'item'"),
    ],
)
def test_interactions_that_cannot_be_used_are_refused(frame, message):
    with pytest.raises(LeanRecError, match=message):
        interactions_from_frame(frame, user="user", item="item")
