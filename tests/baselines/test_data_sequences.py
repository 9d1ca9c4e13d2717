"""Windows, splits and their rules, against a plain loop over users."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.base import Split
from baselines.data.events import Events
from baselines.data.sequences import sequence_dataset
from baselines.errors import LeanRecError


def events_of(rows: list[tuple[int, int, int]]) -> Events:
    """(user, item, time) rows; ids are made codes without gaps."""
    user, item, time = np.array(rows, dtype=np.int64).T
    codes = [np.unique(column, return_inverse=True)[1] for column in (user, item)]
    return Events("made", "Made.", codes[0], codes[1], times=time, segments={"odd": codes[1] % 2})


def rows_of(split: Split) -> list[tuple[int, tuple[int, ...], int]]:
    """(user, history with padding, next item)."""
    (history,) = split.inputs
    columns = (split.users.tolist(), map(tuple, history.tolist()), split.items.tolist())
    return sorted(zip(*columns, strict=True))


def chains(events: Events) -> dict[int, list[tuple[int, int]]]:
    """The (time, item) of each user, in order of time, then of the publisher."""
    assert events.times is not None
    found: dict[int, list[tuple[int, int]]] = {}
    for row in zip(events.users, events.times, events.items, strict=True):
        found.setdefault(int(row[0]), []).append((int(row[1]), int(row[2])))
    return {user: sorted(chain, key=lambda event: event[0]) for user, chain in found.items()}


EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=60
)


@settings(max_examples=150)
@given(rows=EVENTS, length=st.integers(1, 5))
def test_leave_one_out_is_that_of_a_plain_loop(
    rows: list[tuple[int, int, int]], length: int
) -> None:
    # One user with enough events, so that every part has a row.
    events = events_of([*rows, *[(9, i, i) for i in range(4)]])
    data = sequence_dataset(events, length)
    pad = data.fields["item"]

    def row(user: int, items: list[int], at: int) -> tuple[int, tuple[int, ...], int]:
        before = items[max(0, at - length) : at]
        return user, (*[pad] * (length - len(before)), *before), items[at]

    expected: list[list[tuple[int, tuple[int, ...], int]]] = [[], [], []]
    for user, chain in chains(events).items():
        items = [item for _, item in chain]
        if len(items) >= 3:
            expected[2].append(row(user, items, len(items) - 1))
            expected[1].append(row(user, items, len(items) - 2))
            items = items[:-2]
        expected[0] += [row(user, items, at) for at in range(len(items) - 1, 0, -length)]
    for part, rows_expected in zip((data.train, data.valid, data.test), expected, strict=True):
        assert rows_of(part) == sorted(rows_expected)
    assert (data.test.segments["odd"] == data.test.items % 2).all()


@settings(max_examples=50)
@given(rows=EVENTS, length=st.integers(1, 5))
def test_every_train_event_but_a_users_first_is_a_target_once(
    rows: list[tuple[int, int, int]], length: int
) -> None:
    data = sequence_dataset(events_of([*rows, *[(9, i, i) for i in range(4)]]), length)
    targets = 0
    for _, history, _ in rows_of(data.train):
        targets += sum(item != data.fields["item"] for item in history)
    expected = sum(
        (len(c) - 2 if len(c) >= 3 else len(c)) - 1
        for c in chains(events_of([*rows, *[(9, i, i) for i in range(4)]])).values()
    )
    assert targets == expected


def test_a_temporal_split_parts_no_time_and_keeps_later_histories() -> None:
    events = events_of([(user, time % 5, time) for time in range(10) for user in range(2)])
    data = sequence_dataset(events, 20, "temporal", shares=(0.6, 0.2, 0.2))
    pad = data.fields["item"]
    lengths = [int((part.inputs[0] != pad).sum(1).max()) for part in (data.valid, data.test)]
    assert lengths == [7, 9]
    assert [len(part) for part in (data.train, data.valid, data.test)] == [2, 4, 4]
    assert "6:2:2" in data.protocol


def test_events_without_times_keep_their_order_and_cannot_be_split_by_time() -> None:
    events = Events("made", "Made.", np.zeros(4, np.int64), np.array([3, 1, 0, 2]))
    data = sequence_dataset(events, 3)
    assert rows_of(data.test) == [(0, (3, 1, 0), 2)]
    with pytest.raises(LeanRecError, match="no times"):
        sequence_dataset(events, 3, "temporal")


@pytest.mark.parametrize("count", [0, 2, 3])
def test_too_few_events_are_refused(count: int) -> None:
    events = Events("made", "Made.", np.zeros(count, np.int64), np.arange(count))
    with pytest.raises(LeanRecError, match="part has no user"):
        sequence_dataset(events, 3)


def test_a_history_of_nothing_is_refused() -> None:
    with pytest.raises(LeanRecError, match="holds nothing"):
        sequence_dataset(Events("made", "Made.", np.zeros(4, np.int64), np.arange(4)), 0)
