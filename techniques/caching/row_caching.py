"""Embedding tables in a store outside memory, alone or with a cache of rows in front of it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.errors import LeanRecError
from techniques.base import Change, Context, Requires, Technique, technique
from techniques.caching.eviction import LFU, LRU
from techniques.caching.look_ups import LookUps
from techniques.caching.row_cache import Policy, RowCache, StoredEmbedding
from techniques.caching.row_store import RowStore
from techniques.caching.tiny_lfu import TinyLFU
from techniques.surgery import copy_with, exactly

FEWEST = 256  # rows of a table: smaller ones, such as those of positions, stay in memory
BLOCK = 8192  # rows of the train split that are looked at together

Share = Annotated[float, Field(gt=0, le=1)]
Microseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class RowStoring(Technique):
    """Every table of FEWEST rows or more in a store, read through what `embed` gives.

    store_microseconds: the emulated latency of the store, for each row read; 0 for a mapped file
    as fast as it is.
    """

    family = "caching"
    caches = True
    # The index of a sequence model is its table, and is served in memory anyhow.
    requires = Requires(
        tasks=frozenset({"ctr", "retrieval"}),
        devices=frozenset({"cpu"}),
        modules=(nn.Embedding,),
    )
    changes = frozenset({Change.SIZE})

    store_microseconds: Microseconds = 0.0

    @abstractmethod
    def embed(self, store: RowStore, counts: Tensor | None) -> StoredEmbedding:
        """What is to serve the rows of `store`. counts: as `counts` gives them for this table."""

    def counts(self, predictor: nn.Module, context: Context) -> list[Tensor | None]:
        """How often the train split looks up each row of each table, where `embed` needs it."""
        return [None] * len(_tables(predictor))

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because no table that is served has enough rows."""
        reason = super().reason_against(model, task, device)
        served = getattr(model, "user", model) if task == "retrieval" else model
        if reason is None and not _tables(served):
            return f"finds no table of {FEWEST} rows or more in what is served"
        return reason

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Store the tables; the copy shares all else with `predictor`.

        Raises LeanRecError where there is no room for the store.
        """
        seconds = self.store_microseconds * 1e-6
        counts = self.counts(predictor, context)
        tables = zip(_tables(predictor), counts, strict=True)
        return copy_with(
            predictor, {t: self.embed(RowStore(t.weight, seconds), c) for t, c in tables}
        )


def _tables(model: nn.Module) -> list[nn.Embedding]:
    tables = exactly(model, nn.Embedding)
    return [t for t in tables if t.num_embeddings >= FEWEST and t.max_norm is None]


@technique("stored-embedding")
@dataclass(frozen=True)
class StoredEmbeddings(RowStoring):
    """Embedding tables in a mapped file and no cache: what each cache is to be held against.

    Source: the POSIX standard, `mmap`. Every look-up reads the distinct rows of its batch. The
    system keeps what was read lately in its page cache, so without an emulated latency expect
    little more than the cost of finding the distinct ids. The tables leave the process's own
    memory; while there is room, the page cache holds them.
    """

    def embed(self, store: RowStore, counts: Tensor | None) -> StoredEmbedding:
        """The store alone."""
        return StoredEmbedding(store)


@dataclass(frozen=True)
class RowCaching(RowStoring):
    """A cache of the share `rows` of each table's rows."""

    changes = frozenset({Change.SIZE, Change.REPEATS})

    rows: Share = 0.1

    def embed(self, store: RowStore, counts: Tensor | None) -> StoredEmbedding:
        """A cache of the policy over the store."""
        return RowCache(store, self.policy(self.capacity(store.count)))

    def policy(self, capacity: int) -> Policy:
        """Which rows stay, of `capacity`."""
        return Policy(capacity)

    def capacity(self, count: int) -> int:
        """The rows held of a table of `count`."""
        return max(1, int(self.rows * count))


@technique("lru-cache")
@dataclass(frozen=True)
class LRUCache(RowCaching):
    """The rows looked up last in memory, the share `rows` of each table; the rest in a store.

    Source: Mattson et al., "Evaluation Techniques for Storage Hierarchies", IBM Systems Journal
    9(2), 1970. Answers are the model's to the bit. It pays where the store is slow and requests
    are skewed: its hit rate follows from the skew (Che's approximation, `bench.caching`) and it
    adapts at once when popularity moves. In front of a store as fast as memory it only costs. An
    id takes 4 bytes of index and a held row 16 beside its numbers.
    """

    def policy(self, capacity: int) -> LRU:
        """See `LRU`."""
        return LRU(capacity)


@technique("lfu-cache")
@dataclass(frozen=True)
class LFUCache(RowCaching):
    """The rows looked up most often since they came, the share `rows` of each table.

    Source: Mattson et al., "Evaluation Techniques for Storage Hierarchies", IBM Systems Journal
    9(2), 1970. Under steady popularity expect more hits than LRU has; rows that were popular once
    stay long after popularity has moved. Answers are the model's to the bit. Eviction takes time
    proportional to the rows held.
    """

    def policy(self, capacity: int) -> LFU:
        """See `LFU`."""
        return LFU(capacity)


@technique("tinylfu-cache")
@dataclass(frozen=True)
class TinyLFUCache(RowCaching):
    """The share `rows` of each table by W-TinyLFU: new rows must have come more often than old.

    Source: Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM
    Transactions on Storage 13(4), 2017. Frequency is estimated by a sketch of up to 16 bytes a
    held row that fades, so expect about LFU's hits under steady popularity without its long
    memory. Bookkeeping costs more than LRU's at every look-up. Answers are the model's to the bit.
    """

    def policy(self, capacity: int) -> TinyLFU:
        """See `TinyLFU`."""
        return TinyLFU(capacity)


@technique("static-hot-cache")
@dataclass(frozen=True)
class StaticHotCache(RowCaching):
    """The rows that the train split looks up most in memory for good, the share `rows` of each.

    Source: Adnan et al., "Accelerating Recommendation System Training by Leveraging Popular
    Choices", PVLDB 15(1), 2021, arXiv:2103.00686. No bookkeeping at a look-up, and the best hits
    that there are under popularity that never moves; when it moves, they are lost. Answers are the
    model's to the bit. Of rows that count the same, the first are held.
    """

    changes = frozenset({Change.SIZE})

    def embed(self, store: RowStore, counts: Tensor | None) -> RowCache:
        """The hottest rows, held from the start."""
        assert counts is not None
        capacity = self.capacity(store.count)
        hottest = counts.argsort(descending=True, stable=True)[:capacity].numpy()
        return RowCache(store, Policy(capacity), hottest)

    def counts(self, predictor: nn.Module, context: Context) -> list[Tensor | None]:
        """Of every row, by the train split. Raises LeanRecError where the context has none."""
        if context.train is None:
            raise LeanRecError(
                "static-hot-cache was given no train split.",
                "It cannot tell which rows are hot.",
                "Give the Context the split as `train`.",
            )
        tables = _tables(predictor)
        counts = [torch.zeros(table.num_embeddings, dtype=torch.int64) for table in tables]

        def count(number: int, ids: Tensor) -> Tensor:
            counts[number] += torch.bincount(ids.flatten(), minlength=len(counts[number]))
            rows: Tensor = tables[number](ids)
            return rows

        example = context.examples[0]
        look_ups = LookUps(predictor, tables, example, count)
        for counted in counts:
            counted.zero_()
        columns = context.train.inputs[: len(example)]  # a retriever is asked for users alone
        for block in zip(*(column.split(BLOCK) for column in columns), strict=True):
            look_ups(*block)
        return list(counts)
