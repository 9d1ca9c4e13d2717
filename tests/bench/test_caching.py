"""The optimum by hand and above every policy; predictions against streams that were drawn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.data.draws import zipf
from bench.caching import (
    HitRates,
    che,
    optimum,
    static,
    zipf_exponent,
    zipf_probabilities,
)
from techniques.caching.eviction import LFU, LRU
from techniques.caching.row_cache import Policy, RowCache
from techniques.caching.row_store import RowStore
from techniques.caching.tiny_lfu import TinyLFU

KEYS = 6


def arrays(*batches: list[int]) -> list[np.ndarray]:
    return [np.array(batch, np.int64) for batch in batches]


@pytest.mark.parametrize(
    ("batches", "capacity", "request_hits", "unique_hits"),
    [
        # Belady's own kind of case: 2 is given up for 0 and 1, which come again sooner.
        ([[0], [1], [2], [0], [1], [2]], 2, 2, 2),
        ([[0], [1], [2], [0], [1], [2]], 3, 3, 3),
        ([[0, 0, 1], [0, 0, 2], [1]], 1, 2, 1),  # held is 0, or 1: as many keys, not look-ups
        ([[0, 1, 2], [0, 1, 2]], 2, 2, 2),
        ([[0], [1], [2]], 2, 0, 0),
        ([[], [4], [], [4]], 1, 1, 1),
        ([[4], [4]], 0, 0, 0),
    ],
)
def test_the_optimum_worked_by_hand(
    batches: list[list[int]], capacity: int, request_hits: int, unique_hits: int
) -> None:
    hits = optimum(arrays(*batches), capacity)
    found = hits.rates()
    assert found.unique == unique_hits / sum(len(set(b)) for b in batches)
    assert found.request == request_hits / sum(map(len, batches))
    first, rest = hits.of(slice(0, 2)), hits.of(slice(2, None))
    assert first.requests.sum() == len(batches[0]) + len(batches[1])
    assert first.and_of(rest).rates() == found


def test_the_optimum_of_nothing_is_not_a_number() -> None:
    for stream in ([], arrays([], [])):
        assert math.isnan(optimum(stream, 3).rates().unique)


streams = st.lists(st.lists(st.integers(0, KEYS - 1), max_size=5), min_size=1, max_size=6)


@settings(max_examples=40)
@given(streams, st.integers(1, 3))
def test_the_optimum_is_the_best_of_all_that_there_is(
    batches: list[list[int]], capacity: int
) -> None:
    sets = [frozenset(batch) for batch in batches]
    states = {frozenset[int](): 0}  # what may be held → the most hits until then
    for batch in sets:
        after: dict[frozenset[int], int] = {}
        for held, hits in states.items():
            known = held | batch
            for size in range(min(capacity, len(known)) + 1):
                for kept in map(frozenset, itertools.combinations(known, size)):
                    best = max(after.get(kept, 0), hits + len(batch & held))
                    after[kept] = best
        states = after
    unique = sum(map(len, sets))
    if unique:
        assert optimum(arrays(*batches), capacity).rates().unique == max(states.values()) / unique


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 19), max_size=12), max_size=12), st.integers(1, 20))
def test_no_policy_surpasses_the_optimum(batches: list[list[int]], capacity: int) -> None:
    best = optimum(arrays(*batches), capacity).rates().unique
    for policy in (LRU, LFU, TinyLFU):
        counts = run(policy(capacity), arrays(*batches), 20).counts
        assert not counts.distinct or counts.distinct_hits / counts.distinct <= best


def run(policy: Policy, stream: list[np.ndarray], keys: int) -> RowCache:
    cache = RowCache(RowStore(torch.zeros(keys, 1)), policy)
    for batch in stream:
        cache(torch.from_numpy(batch))
    return cache


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 32, 256])
@pytest.mark.parametrize("exponent", [0.6, 1.05])
def test_lru_hits_what_che_predicts(exponent: float, size: int) -> None:
    keys, capacity, draws = 2000, 400, 200 * 256 if size > 1 else 12_000
    ids = zipf(draws, keys, exponent, np.random.default_rng(0))
    stream = np.split(ids, range(size, draws, size))
    cache = run(LRU(capacity), stream[: len(stream) // 3], keys)
    before = cache.counts
    cache.counts = type(before)()
    for batch in stream[len(stream) // 3 :]:
        cache(torch.from_numpy(batch))
    predicted = che(zipf_probabilities(keys, exponent), capacity, size)
    counts = cache.counts
    assert counts.hits / counts.asked == pytest.approx(predicted.request, abs=0.02)
    assert counts.distinct_hits / counts.distinct == pytest.approx(predicted.unique, abs=0.02)


def test_che_of_even_use_is_the_share_that_is_held() -> None:
    even = zipf_probabilities(1000, 0)
    for found in (che(even, 250), static(even, 250), che(even, 250, 8)):
        assert found.request == pytest.approx(0.25)
        assert found.unique == pytest.approx(0.25)
    assert che(even, 1000) == HitRates(1, 1)


def test_static_hits_the_most_popular() -> None:
    found = static(np.array([0.1, 0.6, 0.3]), 1)
    assert found.request == pytest.approx(0.6)
    batched = static(np.array([0.1, 0.6, 0.3]), 1, batch_size=2)
    comes = [1 - 0.9**2, 1 - 0.4**2, 1 - 0.7**2]
    assert batched.unique == pytest.approx(comes[1] / sum(comes))


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.2])
def test_the_exponent_of_a_zipf_stream_is_found(exponent: float) -> None:
    ids = zipf(200_000, 500, exponent, np.random.default_rng(0))
    assert zipf_exponent(ids * 17) == pytest.approx(exponent, abs=0.05)


def test_the_exponent_of_one_key_is_not_a_number() -> None:
    assert math.isnan(zipf_exponent(np.array([3, 3])))
