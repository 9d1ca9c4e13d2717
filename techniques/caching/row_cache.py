"""Embedding rows held in front of a store; policies say which of them stay.

Batch policy of every cache here. A look-up is one batch: its ids are looked up together, and the
distinct ones that are missing are fetched by one read. Then every id of the batch counts as
touched, in the order in which they last stand in it. LRU and LFU evict nothing that the batch has
touched; of more missing ids than there is room for, they admit the last ones, and the others are
served without. With batches of one id these are the policies of the textbooks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from techniques.caching.counters import Cache, refuse_graphs
from techniques.caching.recency import last_of_each, last_places
from techniques.caching.row_store import RowStore


class StoredEmbedding(Cache):
    """Takes the place of an `nn.Embedding` at inference: every look-up reads the store.

    staged: rows that were fetched ahead, by rising id (int64 [m], [m, d]); they are read first.
    """

    capacity = 0

    def __init__(self, store: RowStore) -> None:
        super().__init__()
        self.store = store
        self.num_embeddings, self.embedding_dim = store.count, store.dim
        self.staged: tuple[np.ndarray, Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        """The whole table [n, d], for code that reads an embedding's weight itself."""
        return self.store.read(np.arange(self.num_embeddings))

    def clear(self) -> None:
        """Start the counts anew; there is nothing else to forget."""
        self.counts = type(self.counts)()

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int32 or int64 [...], in 0…n−1. Returns [..., d], the table's rows to the bit.

        Raises IndexError for other ids, LeanRecError where torch compiles it.
        """
        refuse_graphs()
        flat = ids.reshape(-1).numpy()
        if len(flat) and flat.view(f"u{flat.itemsize}").max() >= self.num_embeddings:
            raise IndexError(f"an id is not in 0…{self.num_embeddings - 1}")
        rows = self.look_up(flat)
        return rows.view(*ids.shape, self.embedding_dim)

    def look_up(self, ids: np.ndarray) -> Tensor:
        """ids: int [N]. Returns [N, d]."""
        distinct, place = np.unique(ids, return_inverse=True)
        self.counts.note(ids, 0, len(distinct), 0)
        return self.fetch(distinct).index_select(0, torch.from_numpy(place))

    def absent(self, ids: np.ndarray) -> np.ndarray:
        """Which of `ids` a look-up would fetch, were it now: rising, each once."""
        return _rising(ids)

    def fetch(self, ids: np.ndarray) -> Tensor:
        """Rows of distinct ids (int [m]) that are not held: staged ones, or from the store."""
        if self.staged is None:
            return self.store.read(ids)
        known, ahead = self.staged
        at = np.searchsorted(known, ids)
        found = np.append(known, -1)[at] == ids
        rows = ahead.new_empty(len(ids), self.embedding_dim)
        rows[found] = ahead[at[found]]
        rows[~found] = self.store.read(ids[~found])
        return rows

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.num_embeddings}, {self.embedding_dim}, capacity={self.capacity}"


def _rising(ids: np.ndarray) -> np.ndarray:
    """The different ones of `ids`, rising. A sort is faster here than NumPy's own, which hashes."""
    ordered = np.sort(ids)
    return ordered[np.flatnonzero(np.diff(ordered, prepend=-1))]


@dataclass(frozen=True)
class Asked:
    """One batch, to be settled by a policy.

    ids: int [N]. slots: int64 [N], −1 where an id is missing. miss: int64, the places of these.
    hits: the distinct slots that were hit, and missing: the distinct missing ids [m], in the order
    of their last places, which are last_hits and last_missing. place: of each of `miss` among
    `missing`. id_of: the id that each slot of the cache holds.
    """

    ids: np.ndarray
    slots: np.ndarray
    miss: np.ndarray
    hits: np.ndarray
    last_hits: np.ndarray
    missing: np.ndarray
    last_missing: np.ndarray
    place: np.ndarray
    id_of: np.ndarray

    def latest(self, admitted: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The distinct slots of all look-ups in the order of their last places, once
        `missing[admitted]` are in `slots`."""
        last = np.full(len(self.ids), -1)
        last[self.last_hits] = self.hits
        last[self.last_missing[admitted]] = slots
        return last[np.flatnonzero(last >= 0)]

    def settled(self, admitted: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The slots of all look-ups, in order, once `missing[admitted]` are in `slots`."""
        new = np.full(len(self.missing), -1)
        new[admitted] = slots
        after = self.slots.copy()
        after[self.miss] = new[self.place]
        return after if len(admitted) == len(new) else after[np.flatnonzero(after >= 0)]


class Policy(nn.Module):
    """Which rows a cache of `capacity` slots holds."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def touch(self, ids: np.ndarray, slots: np.ndarray) -> int:
        """A batch that missed nothing; ids, slots: int [N]. Returns how many different ones."""
        return len(last_of_each(slots, np.empty(self.capacity, np.int32)))

    def settle(self, asked: Asked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A batch that missed something.

        Returns (which of `asked.missing` are admitted, rising; the slots that they take; the slots
        whose rows leave); a row that leaves may make room for one that is admitted. All int64.
        """
        nothing = np.empty(0, np.int64)
        return nothing, nothing, nothing

    def clear(self) -> None:
        """Forget everything."""


class RowCache(StoredEmbedding):
    """Up to `policy.capacity` rows of the store in memory, chosen by `policy`.

    Beside rows and policy it takes 4 bytes for each id of the table and each slot.
    """

    slot_of: Tensor  # int32 [n], −1 where a row is not held
    id_of: Tensor  # int32 [capacity]
    table: Tensor  # [capacity, d]
    held: Tensor  # int32, ids that are in it from the start

    def __init__(self, store: RowStore, policy: Policy, held: np.ndarray | None = None) -> None:
        """held: distinct ids, at most `policy.capacity`."""
        super().__init__(store)
        self.policy, self.capacity = policy, policy.capacity
        always = np.empty(0, np.int32) if held is None else held.astype(np.int32)
        tensors = {
            "slot_of": torch.empty(store.count, dtype=torch.int32),
            "id_of": torch.empty(self.capacity, dtype=torch.int32),
            "table": torch.empty(self.capacity, store.dim, dtype=store.dtype),
            "held": torch.from_numpy(always),
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, False)
        self.clear()

    def clear(self) -> None:
        """Hold what was held from the start, and start the counts anew."""
        super().clear()
        self.policy.clear()
        self.slot_of.fill_(-1)
        if len(held := self.held.numpy()):
            self._admit(held, np.arange(len(held)), self.store.read(held))

    def absent(self, ids: np.ndarray) -> np.ndarray:
        """As `StoredEmbedding.absent`."""
        return _rising(ids[self.slot_of.numpy()[ids] < 0])

    def look_up(self, ids: np.ndarray) -> Tensor:
        """ids: int [N]. Returns [N, d]."""
        slots = self.slot_of.numpy()[ids].astype(np.int64)
        rows = self.table.index_select(0, torch.from_numpy(np.maximum(slots, 0)))
        miss = np.flatnonzero(slots < 0)
        if not len(miss):
            distinct = self.policy.touch(ids, slots)
            self.counts.note(ids, len(ids), distinct, distinct)
            return rows
        missing, last_missing, place = self._distinct(ids[miss])
        fetched = self.fetch(missing)
        rows.index_copy_(
            0, torch.from_numpy(miss), fetched.index_select(0, torch.from_numpy(place))
        )
        hit = np.flatnonzero(slots >= 0)
        last = last_places(slots[hit], np.empty(self.capacity, np.int32))
        last_hits = hit[last]
        hits = slots[last_hits]
        self.counts.note(ids, len(ids) - len(miss), len(hits) + len(missing), len(hits))
        id_of = self.id_of.numpy()
        asked = Asked(
            ids, slots, miss, hits, last_hits, missing, miss[last_missing], place, id_of
        )  # fmt: skip
        admitted, new, leaving = self.policy.settle(asked)
        self.slot_of.numpy()[id_of[leaving]] = -1
        if len(admitted) < len(missing):
            missing, fetched = missing[admitted], fetched[torch.from_numpy(admitted)]
        self._admit(missing, new, fetched)
        return rows

    def _admit(self, ids: np.ndarray, slots: np.ndarray, rows: Tensor) -> None:
        self.slot_of.numpy()[ids] = slots
        self.id_of.numpy()[slots] = ids
        self.table.index_copy_(0, torch.from_numpy(slots), rows)

    def _distinct(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The different ones of missing ids [M], in the order of their last places; these places;
        and the place of each of the M among the different ones. Their entries of `slot_of` are
        scratch meanwhile."""
        scratch = self.slot_of.numpy()
        last = last_places(ids, scratch)
        distinct = ids[last]
        scratch[distinct] = np.arange(len(distinct), dtype=np.int32)
        place = scratch[ids]
        scratch[distinct] = -1
        return distinct, last, place
