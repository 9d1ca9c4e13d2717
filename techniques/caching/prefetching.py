"""Rows that the next request needs, fetched while the current one is computed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from baselines.base import Batch
from techniques.base import Context, technique
from techniques.caching.look_ups import LookUps
from techniques.caching.row_cache import StoredEmbedding
from techniques.caching.row_caching import RowStoring
from techniques.caching.row_store import RowStore


@technique("prefetch")
@dataclass(frozen=True)
class Prefetch(RowStoring):
    """The next request's rows fetched from the store by a thread while the current one computes.

    Source: Patterson et al., "Informed Prefetching and Caching", SOSP 1995. Where requests queue,
    the next is known: `ahead` tells it. Expect the store's latency to vanish where a request
    computes longer than its rows take to come, and a rest where it does not; nothing where
    nobody tells what comes next, as when one request follows another's answer. Tables that a
    technique before this one has stored keep their cache, which the thread asks what is missing;
    others are stored alone. Rows on their way are memory beside the cache's, and finding them takes
    processor time beside the load's: where that is much, give the scenario two threads.
    """

    def embed(self, store: RowStore, counts: Tensor | None) -> StoredEmbedding:
        """The store alone."""
        return StoredEmbedding(store)

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Store what is not stored yet, and look ahead for all that is."""
        return Prefetching(super().deploy(predictor, context), context.examples[0])


@dataclass
class _Fetch:
    """What a thread fetches for a request: table number → (ids, rows) of each look-up."""

    request: Batch
    found: dict[int, list[tuple[np.ndarray, Tensor]]] = field(default_factory=dict)


class Prefetching(nn.Module):
    """Serves what `predictor` does, and sooner where it was told `ahead` what it would be asked.

    The thread starts once the current request has its own rows, so that it finds the caches as the
    next one will. Answers do not depend on what was told: what is not there is fetched.
    """

    def __init__(self, predictor: nn.Module, example: Batch) -> None:
        """example: a request."""
        super().__init__()
        self.predictor = predictor
        self.tables = [m for m in predictor.modules() if isinstance(m, StoredEmbedding)]
        self._next: Batch | None = None
        self._fetch: _Fetch | None = None
        self._coming: Future[None] | None = None
        self._pool: ThreadPoolExecutor | None = None  # its thread ends with it
        self._look_ups = LookUps(predictor, self.tables, example, self._read)
        self._left = 0  # look-ups that the current request has still to make
        for table in self.tables:
            table.register_forward_hook(self._looked_up)

    def ahead(self, *request: Tensor) -> None:
        """Say what will be asked after the request that comes now."""
        self._next = request

    def forward(self, *request: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As the predictor."""
        for number, parts in self._found(request).items():
            ids, first = np.unique(np.concatenate([ids for ids, _ in parts]), return_index=True)
            rows = torch.cat([rows for _, rows in parts])
            self.tables[number].staged = ids, rows[torch.from_numpy(first)]
        self._left = self._look_ups.count
        answer: Tensor | tuple[Tensor, ...] = self.predictor(*request)
        for table in self.tables:
            table.staged = None
        return answer

    def _found(self, request: Batch) -> dict[int, list[tuple[np.ndarray, Tensor]]]:
        """What was fetched for `request`, once it is all there; nothing where nobody told."""
        if self._fetch is None or self._coming is None:
            return {}
        coming, self._coming = self._coming, None
        coming.result()
        fetch, self._fetch = self._fetch, None
        told = all(a is b for a, b in zip(fetch.request, request, strict=True))
        return fetch.found if told else {}

    def _looked_up(self, *_: object) -> None:
        """After the last look-up of a request, begin to fetch for the next."""
        self._left -= 1
        if self._left == 0 and self._next is not None:
            self._fetch, self._next = _Fetch(self._next), None
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "prefetch")
            self._coming = self._pool.submit(self._look_ups, *self._fetch.request)

    def _read(self, number: int, ids: Tensor) -> Tensor:
        """Fetch what a table does not hold of `ids`. The zeros it returns lead to later look-ups;
        if these depended on them, their rows would be fetched when they are asked."""
        table = self.tables[number]
        if self._fetch is not None:
            absent = table.absent(ids.reshape(-1).numpy())
            self._fetch.found.setdefault(number, []).append((absent, table.store.read(absent)))
        return torch.zeros(*ids.shape, table.embedding_dim, dtype=table.store.dtype)
