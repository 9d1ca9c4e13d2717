"""Rows that the next request needs, fetched while the current one is computed."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from baselines.base import Batch
from techniques.base import Context, technique
from techniques.look_ups import LookUps
from techniques.row_cache import StoredEmbedding
from techniques.row_caching import Microseconds, RowStoring
from techniques.row_store import RowStore

AHEAD = 2  # requests whose rows are held or on their way: the current one and the next


@technique("prefetch")
@dataclass(frozen=True)
class Prefetch(RowStoring):
    """The next request's rows fetched from the store by a thread while the current one computes.

    Source: Patterson et al., "Informed Prefetching and Caching", SOSP 1995. Where requests queue,
    the next is known: `ahead` tells it. Expect the store's latency to vanish where a request
    computes longer than its rows take to come, and a rest where it does not; nothing where
    nobody tells what comes next, as when one request follows another's answer. Tables that a
    technique before this one has stored keep their cache, which the thread asks what is missing;
    others are stored alone. Rows on their way are memory beside the cache's.
    """

    store_microseconds: Microseconds = 0.0

    def embed(self, store: RowStore, counts: Tensor | None) -> StoredEmbedding:
        """The store alone."""
        return StoredEmbedding(store)

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Store what is not stored yet, and look ahead for all that is."""
        return Prefetching(super().deploy(predictor, context), context.examples[0])


@dataclass
class _Told:
    """A request told ahead; what was fetched for it: table number → (ids, rows) of its look-ups."""

    request: Batch
    fetched: dict[int, list[tuple[np.ndarray, Tensor]]] = field(default_factory=dict)
    thread: threading.Thread | None = None


class Prefetching(nn.Module):
    """Serves what `predictor` does, and sooner where it was told `ahead` what it would be asked.

    Its answers do not depend on what it was told: a row that is not there in time is fetched.
    """

    def __init__(self, predictor: nn.Module, example: Batch) -> None:
        """example: a request."""
        super().__init__()
        self.predictor = predictor
        self.tables = [m for m in predictor.modules() if isinstance(m, StoredEmbedding)]
        self._told: deque[_Told] = deque(maxlen=AHEAD)
        self._current: _Told | None = None
        self._look_ups = LookUps(predictor, self.tables, example, self._fetch)

    def ahead(self, *request: Tensor) -> None:
        """Begin to fetch what `request` needs, which will be asked next but for the current one."""
        told, before = _Told(request), self._told[-1].thread if self._told else None
        told.thread = threading.Thread(target=self._look_ahead, args=(told, before))
        told.thread.start()
        self._told.append(told)

    def forward(self, *request: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As the predictor."""
        for number, parts in self._fetched(request).items():
            ids, first = np.unique(np.concatenate([ids for ids, _ in parts]), return_index=True)
            rows = torch.cat([rows for _, rows in parts])
            self.tables[number].staged = ids, rows[torch.from_numpy(first)]
        answer: Tensor | tuple[Tensor, ...] = self.predictor(*request)
        for table in self.tables:
            table.staged = None
        return answer

    def _fetched(self, request: Batch) -> dict[int, list[tuple[np.ndarray, Tensor]]]:
        """What was fetched for `request`, once it is all there; nothing where nobody told."""
        for told in list(self._told):
            if all(a is b for a, b in zip(told.request, request, strict=True)):
                while self._told.popleft() is not told:
                    pass  # told, and not asked
                assert told.thread is not None
                told.thread.join()
                return told.fetched
        return {}

    def _look_ahead(self, told: _Told, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()  # one request after another, as they were told
        self._current = told
        self._look_ups(*told.request)

    def _fetch(self, number: int, ids: Tensor) -> Tensor:
        """Fetch what a table does not hold of `ids`. The zeros it returns lead to later look-ups;
        if these depended on them, their rows would be fetched when they are asked."""
        table = self.tables[number]
        if self._current is not None:
            absent = table.absent(ids.reshape(-1).numpy())
            found = self._current.fetched.setdefault(number, [])
            found.append((absent, table.store.read(absent)))
        return torch.zeros(*ids.shape, table.embedding_dim, dtype=table.store.dtype)
