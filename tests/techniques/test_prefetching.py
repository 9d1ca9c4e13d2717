"""prefetch: the same answers whatever was told, and rows that are there when they are asked for."""

from __future__ import annotations

import gc
import itertools
import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.base import Batch
from techniques.base import TECHNIQUES, Context
from techniques.caching.eviction import LRU
from techniques.caching.prefetching import Prefetching
from techniques.caching.row_cache import RowCache, StoredEmbedding
from techniques.caching.row_store import RowStore

ROWS = 300


class Watched(RowStore):
    """Notes which rows were read, and by which thread."""

    def __init__(self, table: Tensor) -> None:
        super().__init__(table)
        self.reads: list[tuple[threading.Thread, list[int]]] = []

    def read(self, ids: np.ndarray) -> Tensor:
        if len(ids):
            self.reads.append((threading.current_thread(), ids.tolist()))
        return super().read(ids)

    def read_by_main(self) -> list[int]:
        main = threading.main_thread()
        return [i for thread, ids in self.reads if thread is main for i in ids]


class Twice(nn.Module):
    """Looks up one table twice and another once, as a model of histories does."""

    def __init__(self, first: StoredEmbedding, second: StoredEmbedding) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, ids: Tensor) -> Tensor:
        both = self.first(ids[:, 0]) + self.second(ids[:, 1])
        return (both * self.first(ids[:, 2])).sum(1)


def requests(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randint(ROWS, (16, 3), generator=generator),) for _ in range(count)]


def served(capacity: int) -> tuple[Prefetching, list[Watched], Twice]:
    tables = [torch.randn(ROWS, 4) for _ in range(2)]
    stores = [Watched(table) for table in tables]
    parts = [RowCache(s, LRU(capacity)) if capacity else StoredEmbedding(s) for s in stores]
    plain = Twice(*(StoredEmbedding(RowStore(table)) for table in tables))
    return Prefetching(Twice(*parts), requests(1)[0]), stores, plain


@pytest.mark.parametrize("capacity", [0, 5, 30, 200])
def test_answers_are_those_without_whatever_was_told(capacity: int) -> None:
    predictor, _, plain = served(capacity)
    never, asked = requests(8), requests(8)
    for i, batch in enumerate(asked):
        if i % 4:
            predictor.ahead(*(never[i] if i % 4 == 3 else asked[(i + 1) % 8]))
        assert torch.equal(predictor(*batch), plain(*batch))


@pytest.mark.parametrize("capacity", [0, 200])
def test_what_was_told_is_not_fetched_when_it_is_asked(capacity: int) -> None:
    predictor, stores, plain = served(capacity)
    first, second, third = requests(3)
    predictor.ahead(*second)
    predictor(*first)
    for store in stores:
        store.reads.clear()
    assert torch.equal(predictor(*second), plain(*second))
    assert [store.read_by_main() for store in stores] == [[], []]
    assert torch.equal(predictor(*third), plain(*third))
    assert all(store.read_by_main() for store in stores)


def test_a_cache_is_asked_what_it_lacks_once_the_current_request_has_its_rows() -> None:
    predictor, stores, _ = served(capacity=30)
    (batch,) = requests(1)
    twin = (batch[0].clone(),)
    predictor.ahead(*twin)
    predictor(*batch)  # its 16 ids of the second table are held now
    predictor(*twin)
    assert len(stores[1].reads) == 1


def test_its_thread_ends_with_it() -> None:
    predictor, _, _ = served(capacity=30)
    before = set(threading.enumerate())
    batches = requests(5)
    for batch, following in itertools.pairwise(batches):
        predictor.ahead(*following)
        predictor(*batch)
    (thread,) = set(threading.enumerate()) - before

    del predictor
    for _ in range(100):  # what it fetches last is held until it is there
        gc.collect()
        thread.join(timeout=0.1)
        if not thread.is_alive():
            break

    assert not thread.is_alive()


def test_an_id_of_no_row_is_the_same_error_when_it_was_told() -> None:
    predictor, _, _ = served(capacity=30)
    first, wrong = requests(1)[0], (torch.full((2, 3), ROWS),)
    predictor.ahead(*wrong)
    predictor(*first)
    with pytest.raises(IndexError):
        predictor(*wrong)
    predictor(*first)


def test_it_looks_ahead_for_the_cache_before_it_in_a_stack() -> None:
    model = nn.Sequential(nn.Embedding(ROWS, 4), nn.Flatten(), nn.Linear(12, 1)).eval()
    context = Context("ctr", torch.device("cpu"), 0, tuple(requests(1)))
    predictor = TECHNIQUES.make("prefetch").deploy(
        TECHNIQUES.make("lru-cache(rows=0.5)").deploy(model, context), context
    )
    (table,) = predictor.tables
    assert table.capacity == ROWS // 2
    (request,) = context.examples
    for _ in range(2):
        predictor.ahead(*request)
        assert torch.equal(predictor(*request), model(*request))
    assert table.counts.asked == 2 * 48
