"""Row caches against plain simulations of their policies; to the bit, within their bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cache_policies import Simulated, SimulatedLFU, SimulatedLRU, SimulatedTinyLFU
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.data.draws import zipf
from techniques.caching.eviction import LFU, LRU
from techniques.caching.recency import RecencyQueue, last_of_each
from techniques.caching.row_cache import Policy, RowCache, StoredEmbedding
from techniques.caching.row_store import RowStore
from techniques.caching.sketch import MOST, SAMPLE, FadingSketch
from techniques.caching.tiny_lfu import TinyLFU
from techniques.sizes import deployed_bytes

ROWS = 24
TABLE = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
POLICIES: list[tuple[type[Policy], type[Simulated]]] = [
    (LRU, SimulatedLRU),
    (LFU, SimulatedLFU),
    (TinyLFU, SimulatedTinyLFU),
]
streams = st.lists(st.lists(st.integers(0, ROWS - 1), max_size=40), max_size=12)


def held(cache: RowCache) -> set[int]:
    return set(torch.nonzero(cache.slot_of >= 0).flatten().tolist())


@pytest.mark.parametrize(("policy", "simulated"), POLICIES)
@settings(max_examples=50)
@given(stream=streams, capacity=st.integers(1, ROWS))
def test_a_cache_does_what_its_policy_says(
    policy: type[Policy], simulated: type[Simulated], stream: list[list[int]], capacity: int
) -> None:
    cache, plain = RowCache(RowStore(TABLE), policy(capacity)), simulated(capacity)
    for batch in stream:
        ids = torch.tensor(batch, dtype=torch.int64)
        assert torch.equal(cache(ids), TABLE[ids])
        plain.look_up(batch)
        assert held(cache) == plain.held
        assert len(held(cache)) <= capacity
        assert (cache.counts.hits, cache.counts.distinct_hits) == (plain.hits, plain.distinct_hits)
    assert cache.counts.asked == sum(map(len, stream))
    assert cache.counts.distinct == sum(len(set(batch)) for batch in stream)


@pytest.mark.parametrize(("policy", "simulated"), POLICIES)
@pytest.mark.parametrize("size", [1, 7, 300])
def test_a_skewed_stream_is_hit_as_in_simulation(
    policy: type[Policy], simulated: type[Simulated], size: int
) -> None:
    table = torch.randn(1000, 2)
    ids = zipf(1500, 1000, 1.05, np.random.default_rng(0))
    cache, plain = RowCache(RowStore(table), policy(100)), simulated(100)
    for batch in np.split(ids, range(size, len(ids), size)):
        cache(torch.from_numpy(batch))
        plain.look_up(batch.tolist())
    assert cache.counts.hits == plain.hits > 0


@pytest.mark.parametrize("policy", [Policy, LRU, LFU, TinyLFU])
def test_a_clear_cache_is_as_it_was(policy: type[Policy]) -> None:
    cache = RowCache(RowStore(TABLE), policy(5), np.array([3, 1]))
    stream = torch.randint(ROWS, (30, 4), generator=torch.Generator().manual_seed(0))

    def run() -> tuple[int, set[int]]:
        for batch in stream:
            cache(batch)
        return cache.counts.hits, held(cache)

    assert policy is not Policy or held(cache) == {1, 3}
    first = run()
    cache.clear()
    assert cache.counts.asked == 0
    assert run() == first


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 0)])
def test_any_shape_and_type_comes_back_to_the_bit(dtype: torch.dtype, shape: tuple) -> None:
    table = TABLE.to(dtype)
    ids = torch.randint(ROWS, shape)
    for module in (StoredEmbedding(RowStore(table)), RowCache(RowStore(table), LRU(4))):
        for kind in (torch.int32, torch.int64):
            rows = module(ids.to(kind))
            assert rows.dtype == dtype
            assert torch.equal(rows, table[ids])
        assert torch.equal(module.weight, table)


@pytest.mark.parametrize("wrong", [-1, ROWS])
def test_an_id_of_no_row_is_an_error_as_it_is_of_a_table(wrong: int) -> None:
    for module in (StoredEmbedding(RowStore(TABLE)), RowCache(RowStore(TABLE), LRU(4))):
        with pytest.raises(IndexError, match="0…23"):
            module(torch.tensor([3, wrong]))
        assert torch.equal(module(torch.tensor([3])), TABLE[3:4])


def test_what_was_answered_does_not_change_with_the_cache() -> None:
    cache = RowCache(RowStore(TABLE), LRU(2))
    rows = cache(torch.tensor([0, 1]))
    kept = rows.clone()
    rows.mul_(2)  # a caller may write into its answer, too
    cache(torch.tensor([5, 6, 7]))
    assert torch.equal(cache(torch.tensor([0, 1])), kept)


@pytest.mark.parametrize("policy", [LRU, LFU, TinyLFU])
def test_a_cache_takes_the_same_memory_whatever_it_was_asked(policy: type[Policy]) -> None:
    table = torch.randn(5000, 64)
    cache = RowCache(RowStore(table), policy(500))
    size = deployed_bytes(cache)
    assert size < 0.2 * table.nbytes
    for batch in torch.randint(5000, (20, 700)):
        cache(batch)
    assert deployed_bytes(cache) == size
    assert deployed_bytes(StoredEmbedding(RowStore(table))) == 0


def test_staged_rows_are_read_instead_of_the_store() -> None:
    cache = RowCache(RowStore(TABLE), LRU(4))
    cache.staged = np.array([2, 9]), torch.full((2, 3), 7.0)
    assert cache(torch.tensor([9, 1, 2])).tolist() == [[7.0] * 3, TABLE[1].tolist(), [7.0] * 3]


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=20))
def test_a_queue_is_in_the_order_of_touches(touches: list[list[int]]) -> None:
    queue, plain = RecencyQueue(10), []
    for number, slots in enumerate(touches):
        distinct = queue.touch(np.array(slots, np.int64))
        assert distinct == len(set(slots))
        last = list(reversed(list(dict.fromkeys(reversed(slots)))))
        plain = [s for s in plain if s not in slots] + last
        assert len(queue) == len(plain)
        assert queue.oldest(len(plain) // 2).tolist() == plain[: len(plain) // 2]
        if number % 3 == 2 and plain:
            assert queue.pop(1).tolist() == plain[:1]
            queue.remove(np.array(plain[-1:] if len(plain) > 1 else [], np.int64))
            plain = plain[1:-1]
        assert queue.holds(np.arange(10)).tolist() == [s in plain for s in range(10)]


@given(st.lists(st.integers(0, 5)))
def test_last_places(keys: list[int]) -> None:
    found = last_of_each(np.array(keys, np.int64), np.zeros(6, np.int32))
    assert found.tolist() == list(reversed(list(dict.fromkeys(reversed(keys)))))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60))
def test_a_sketch_is_never_too_low(ids: list[int]) -> None:
    sketch = FadingSketch(1000)  # no halving so soon
    for i in ids:
        sketch.add(np.array([i]), np.array([1]))
    for i in set(ids):
        assert sketch.estimate(np.array([i]))[0] >= min(ids.count(i), MOST)


def test_a_sketch_tells_the_frequent_from_the_rare() -> None:
    sketch, ids = FadingSketch(1000), np.arange(500) * 7919
    sketch.add(ids, np.ones(500, np.int64))
    sketch.add(ids[:50], np.full(50, 9))
    assert sketch.estimate(ids[:50]).min() == 10
    assert np.mean(sketch.estimate(ids[50:]) == 1) > 0.9


def test_a_sketch_fades() -> None:
    sketch, one = FadingSketch(10), np.array([4])
    sketch.add(one, np.array([8]))
    for other in range(100, 100 + SAMPLE * 10):
        sketch.add(np.array([other]), np.array([1]))
    assert sketch.estimate(one)[0] <= 5
    assert sketch.counted < SAMPLE * 10
