"""Splits and segments: shares, strata, ties."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baselines.data import columns
from baselines.data.events import Events
from baselines.data.filters import first_of_pairs
from baselines.data.segments import activity, declared, popularity
from baselines.data.splits import event_parts, random_parts, stratified_parts

groups = st.lists(st.integers(0, 8), min_size=1, max_size=200).map(
    lambda values: np.unique(values, return_inverse=True)[1]
)

LEAST, MOST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
TIME = st.integers(-2, 2) | st.sampled_from([LEAST, LEAST + 1, -(10**12), 10**15, MOST])
EVENTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), TIME), min_size=1)


def made(rows: list[tuple[int, int, int]], *, timed: bool = True, grouped: bool = False) -> Events:
    """Events of (user, item, time); grouped: by user, as most files are."""
    if grouped:
        rows = sorted(rows, key=lambda row: row[0])
    users, items, times = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    _, users = np.unique(users, return_inverse=True)
    return Events("made", "", users.astype(np.int32), items, times=times if timed else None)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", 4)


FEW_BLOCKS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW_BLOCKS
@given(EVENTS, st.booleans(), st.booleans())
def test_leave_one_out_holds_back_what_a_stable_sort_puts_last(small_blocks, rows, timed, grouped):
    events = made(rows, timed=timed, grouped=grouped)
    wanted = [0] * len(events)
    for user in range(6):
        of_user = [row for row in range(len(events)) if events.users[row] == user]
        if timed:
            of_user.sort(key=lambda row: events.times[row])
        if len(of_user) >= 3:
            wanted[of_user[-1]], wanted[of_user[-2]] = 2, 1
    parts, _ = event_parts(events, "leave-one-out", 0)
    assert parts.tolist() == wanted
    assert parts.dtype == np.int8


@FEW_BLOCKS
@given(EVENTS, st.booleans(), st.booleans(), st.data())
def test_of_equal_pairs_the_first_stays(small_blocks, rows, rising, some, data):
    rows = sorted(set(rows)) if rising else rows
    events = made(rows)
    among = st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))
    among = np.array(data.draw(among) if some else [True] * len(rows))
    seen, wanted = set(), []
    for pair, here in zip(zip(events.users, events.items, strict=True), among, strict=True):
        wanted.append(bool(here) and pair not in seen)
        seen |= {pair} if here else set()
    assert first_of_pairs(events, among).tolist() == wanted


@given(groups, st.integers(0, 9))
def test_groups_stay_together_in_the_shares_asked_for(rows, seed):
    parts = random_parts(rows, (0.5, 0.25, 0.25), seed)
    of_group = pd.Series(parts).groupby(rows)
    assert (of_group.nunique() == 1).all()
    counts = np.bincount(of_group.first(), minlength=3)
    count = len(of_group)
    np.testing.assert_array_equal(np.cumsum(counts), np.rint([count * 0.5, count * 0.75, count]))


@given(groups, st.integers(0, 9))
def test_each_stratum_is_dealt_in_the_same_shares(rows, seed):
    parts = stratified_parts(rows, (0.7125, 0.0375, 0.25), seed)
    for stratum in range(rows.max() + 1):
        size = (rows == stratum).sum()
        assert (parts[rows == stratum] == 2).sum() == size - round(0.75 * size)
        assert (parts[rows == stratum] == 0).sum() >= 1


def test_the_deal_follows_the_seed_alone():
    rows = np.arange(1000) % 7
    for deal in (random_parts, stratified_parts):
        first, again, other = (deal(np.sort(rows), (0.6, 0.2, 0.2), seed) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert deal is random_parts or (first != other).any()
    spread = stratified_parts(np.zeros(10_000, int), (0.5, 0.25, 0.25), 0)
    assert spread[:5000].mean() == pytest.approx(0.75, abs=0.05)


def test_popularity_deciles_hold_equal_training_rows():
    train = np.repeat(np.arange(100), np.arange(1, 101))
    deciles = popularity(train, np.arange(100)).numpy()
    assert (np.diff(deciles) >= 0).all()
    rows = np.bincount(deciles[train], minlength=10)
    np.testing.assert_allclose(rows, len(train) / 10, atol=100)


def test_equally_popular_items_share_a_decile_and_unknown_ones_are_rare():
    train = np.array([10**12] * 5 + [3] * 5 + [8])
    found = popularity(train, np.array([3, 10**12, 8, 77])).tolist()
    assert found[0] == found[1] > found[2] == found[3] == 0
    assert popularity(np.array([], int), np.array([1, 2])).tolist() == [0, 0]


def test_activity_terciles_hold_equal_numbers_of_users():
    train = np.repeat(np.arange(30), np.arange(1, 31) ** 2)
    assert np.bincount(activity(train, np.arange(30))).tolist() == [10, 10, 10]


def test_declared_groups_are_numbered_and_named():
    numbers, names = declared(pd.Series(["w", None, "m", "w"]))
    assert numbers.tolist() == [1, -1, 0, 1]
    assert names == {0: "m", 1: "w"}
    assert declared(pd.Series([25, 18]))[0].tolist() == [25, 18]
    assert declared(pd.Series([25, None]))[0].tolist() == [0, -1]
