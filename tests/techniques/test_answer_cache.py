"""Caches of answers: right for every row, against a plain simulation, for as long as they may."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from techniques.base import TECHNIQUES, Context
from techniques.caching import answer_cache
from techniques.caching.answer_cache import AnswerCache
from techniques.caching.counters import caches
from techniques.sizes import deployed_bytes


class Counted(nn.Module):
    """Three times its ids and their sum with a number, and how many rows it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def forward(self, ids: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(len(ids))
        return ids * 3, ids.sum(1) + number


def request(*rows: int) -> tuple[Tensor, Tensor]:
    number = torch.tensor(rows, dtype=torch.int64)
    return torch.stack((number % 5, number), dim=1), number.float() / 2


def is_right(answer: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor]) -> bool:
    return all(map(torch.equal, answer, Counted()(*asked)))


batches = st.lists(st.lists(st.integers(0, 14), max_size=8), max_size=12)


@settings(max_examples=50)
@given(batches, st.integers(1, 10))
def test_every_row_is_right_and_held_as_the_policy_says(
    stream: list[list[int]], capacity: int
) -> None:
    cache, order = AnswerCache(Counted(), capacity), OrderedDict[int, None]()
    hits = distinct_hits = 0
    for rows in stream:
        assert is_right(cache(*request(*rows)), request(*rows))
        hits += sum(row in order for row in rows)
        found = set(rows) & order.keys()
        distinct_hits += len(found)
        assert (cache.counts.hits, cache.counts.distinct_hits) == (hits, distinct_hits)
        missing = set(rows) - order.keys()
        room = capacity - len(found)
        if len(missing) > room:
            return  # which of them stay is not said
        evictable = [row for row in order if row not in found]
        for row in evictable[: max(0, len(order) + len(missing) - capacity)]:
            del order[row]
        order |= dict.fromkeys(missing)
        for row in reversed(list(dict.fromkeys(reversed(rows)))):
            order.move_to_end(row)


@given(batches, st.integers(1, 6))
@settings(max_examples=30)
def test_it_is_right_though_hashes_collide(stream: list[list[int]], capacity: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_cache, "_hash", lambda keys: keys[:, 0] % 2)
        cache = AnswerCache(Counted(), capacity)
        for rows in stream:
            assert is_right(cache(*request(*rows)), request(*rows))
            assert len(cache.queue) <= capacity


def test_what_is_missing_is_computed_once_by_one_call() -> None:
    cache = AnswerCache(Counted(), 8)
    for rows in ((1, 2, 2, 1), (2, 3, 3), (3, 1)):
        cache(*request(*rows))
    assert cache.compute.asked == [2, 1]


def test_an_answer_that_is_too_old_is_computed_anew() -> None:
    cache, now = AnswerCache(Counted(), 2, seconds=10), [0.0]
    cache.clock = lambda: now[0]
    for time, rows, asked in ((0, 5, 1), (9, 5, 1), (10, 5, 2), (19, 5, 2), (21, 5, 3)):
        now[0] = float(time)
        assert is_right(cache(*request(rows)), request(rows))
        assert sum(cache.compute.asked) == asked
    assert (cache.counts.asked, cache.counts.hits) == (5, 2)
    cache(*request(6, 7))  # takes the other slot, and this one's
    assert len(cache.queue) == 2


def test_a_kept_answer_is_not_the_callers_tensor() -> None:
    cache = AnswerCache(Counted(), 4)
    for _ in range(3):
        answer = cache(*request(1, 2))
        assert is_right(answer, request(1, 2))
        answer[0].zero_()


def test_an_empty_request_and_a_full_one() -> None:
    cache = AnswerCache(Counted(), 2)
    assert cache(*request())[0].shape == (0, 2)
    assert is_right(cache(*request(1, 2, 3, 4)), request(1, 2, 3, 4))
    assert cache(*request())[1].shape == (0,)


@pytest.mark.parametrize(
    "kind", [torch.bool, torch.uint8, torch.int16, torch.int32, torch.float64, torch.bfloat16]
)
def test_rows_of_any_type_are_told_apart(kind: torch.dtype) -> None:
    class Same(nn.Module):
        def forward(self, column: Tensor) -> Tensor:
            return column.clone()

    cache, column = AnswerCache(Same(), 4), torch.tensor([[0, 1], [1, 0], [0, 0]]).to(kind)
    for _ in range(2):
        assert torch.equal(cache(column), column)
    assert cache.counts.hits == 3


def test_memory_is_taken_once() -> None:
    cache = AnswerCache(Counted(), 100)
    cache(*request(1))
    size = deployed_bytes(cache)
    for batch in torch.randint(10_000, (20, 64), generator=torch.Generator().manual_seed(0)):
        cache(*request(*batch.tolist()))
    assert deployed_bytes(cache) == size
    assert len(cache.queue) == 100


class Towers(nn.Module):
    """A retriever whose user tower is a layer over a table."""

    def __init__(self) -> None:
        super().__init__()
        self.user = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 4))

    def forward(self, users: Tensor) -> Tensor:
        return self.user(users)


def test_a_user_who_comes_back_is_not_computed() -> None:
    users = torch.tensor([3, 8, 3])
    context = Context("retrieval", torch.device("cpu"), 0, ((users,),))
    model, technique = Towers().eval(), TECHNIQUES.make("user-cache(users=4)")
    assert technique.reason_against(model, "retrieval", "cpu") is None
    served = technique.deploy(model, context)
    (cache,) = caches(served)
    assert cache.counts.asked == 0
    with torch.inference_mode():
        first, again = served(users), served(users)
    assert torch.equal(first, again)
    assert torch.allclose(first, model(users))
    assert (cache.counts.hits, cache.counts.distinct) == (3, 4)


def test_a_tower_that_is_a_table_has_nothing_to_save() -> None:
    model = nn.Module()
    model.user = nn.Embedding(4, 2)
    technique = TECHNIQUES.make("user-cache")
    assert "is a table" in str(technique.reason_against(model, "retrieval", "cpu"))
    assert "no user tower" in str(technique.reason_against(nn.Module(), "retrieval", "cpu"))


def test_states_of_histories_are_kept_by_the_whole_history() -> None:
    class Sums(nn.Module):
        def encode(self, history: Tensor) -> Tensor:
            return history.float().cumsum(1)[:, :, None]

    class Served(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Sums()

        def forward(self, history: Tensor) -> Tensor:
            return self.model.encode(history)[:, -1]

    history = torch.tensor([[1, 2, 3], [3, 2, 1], [1, 2, 4]])
    context = Context("sequence", torch.device("cpu"), 0, ((history,),))
    served = TECHNIQUES.make("user-cache").deploy(Served(), context)
    for _ in range(2):
        assert served(history).tolist() == [[6.0], [6.0], [7.0]]
    assert caches(served)[0].counts.distinct_hits == 3


def test_counts_tell_the_stream_where_asked() -> None:
    cache = AnswerCache(Counted(), 4)
    cache.counts.stream = []
    cache(*request(1, 2, 1))
    (keys,) = cache.counts.stream
    assert keys[0] == keys[2] != keys[1]
    assert keys.dtype == np.int64


class Total(nn.Module):
    """Sums of histories, and of those before them."""

    def forward(self, history: Tensor, earlier: Tensor) -> Tensor:
        return history.sum(1) + 100 * earlier.sum(1)


lengths = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8)


@settings(max_examples=50)
@given(lengths, st.integers(1, 6))
def test_histories_of_any_length_are_right(sizes: list[tuple[int, int]], capacity: int) -> None:
    """Zeros and ones alone, so that rows differ by their lengths and where the columns part."""
    cache, draw = AnswerCache(Total(), capacity), torch.Generator().manual_seed(0)
    for pair in sizes:
        columns = [torch.randint(2, (3, size), generator=draw) for size in pair]
        assert torch.equal(cache(*columns), Total()(*columns))
        held = cache.counts.hits
        assert torch.equal(cache(*columns), Total()(*columns))
        if capacity >= 3:
            assert cache.counts.hits == held + 3
