"""What was computed for a row of a request, kept for when the same row is asked again.

A call is one batch: its rows are looked up together and what is missing is computed by one call,
each distinct row once. Then all count as touched, in the order in which they last stand in the
batch; the ones touched longest ago go, none of the batch's. Of more missing rows than there is
room for, some are answered and not kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from baselines.base import Batch
from techniques.caching.counters import Cache, CacheCounts, refuse_graphs
from techniques.caching.recency import RecencyQueue, last_of_each

_ODD = np.random.default_rng(0).integers(2**63, 2**64, 2, np.uint64) | np.uint64(1)
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an item


class AnswerCache(Cache):
    """Serves what `compute` does, row by row, and keeps the answers of up to `capacity` rows.

    A row is known by all its inputs, to the bit; a hash only finds it, and of two rows of the same
    hash one is not kept. A history that is cut or padded to another length is another row. What was
    kept answers for `seconds`, by `clock`, and is computed anew then. Memory is taken at the first
    call, when the size of an answer is known, and more for keys when longer rows come.
    """

    keys: Tensor  # int64 [capacity, words of the longest row], shorter ones after zeros
    hashes: Tensor  # int64 [capacity]
    order: Tensor  # int64 [capacity], the slots in use by rising hash
    expires: Tensor  # float64 [capacity]

    def __init__(self, compute: nn.Module, capacity: int, seconds: float = math.inf) -> None:
        """compute: from columns of B rows to an answer of B rows, or a tuple of such."""
        super().__init__()
        self.compute, self.capacity, self.seconds = compute, capacity, seconds
        self.clock: Callable[[], float] = time.monotonic
        self.queue = RecencyQueue(capacity)
        self.used = self.parts = 0
        self.single = True

    def clear(self) -> None:
        """Forget all answers, and start the counts anew."""
        self.queue.clear()
        self.used = 0
        self.counts = CacheCounts()

    def forward(self, *request: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As `compute`; a kept row is what was answered then.

        Raises LeanRecError where torch compiles it.
        """
        refuse_graphs()
        rows, now = self._find(_words(request)), self.clock()
        live = rows.slots >= 0
        if self.used:
            live &= self.expires.numpy()[rows.slots] > now
        known, miss = np.flatnonzero(live), np.flatnonzero(~live)
        hits = last_of_each(rows.slots[known], np.empty(self.capacity, np.int32))
        first, place, alike = _distinct(rows.at(miss))
        self.counts.note(rows.hashes, len(known), len(hits) + len(first), len(hits))
        if self.parts and not len(miss):
            self.queue.touch(rows.slots)
            return self._joined([part[torch.from_numpy(rows.slots)] for part in self._kept()])
        asked = miss[first]
        answer = self.compute(*(c.index_select(0, torch.from_numpy(asked)) for c in request))
        parts = (answer,) if isinstance(answer, Tensor) else answer
        if not self.parts:
            self._make_room(rows.keys.shape[1], parts, isinstance(answer, Tensor))
        given = []
        for kept, part in zip(self._kept(), parts, strict=True):
            whole = part.new_empty(len(live), *part.shape[1:])
            whole[torch.from_numpy(known)] = kept[torch.from_numpy(rows.slots[known])]
            whole[torch.from_numpy(miss)] = part[torch.from_numpy(place)]
            given.append(whole)
        if alike:
            slots = rows.slots.copy()
            slots[miss] = self._keep(rows.at(asked), hits, parts, now)[place]
            self.queue.touch(slots[np.flatnonzero(slots >= 0)])
        return self._joined(given)

    def _find(self, words: np.ndarray) -> _Rows:
        """What is known of rows; words: int64 [B, words]."""
        hashed, keys = _hash(words), self._fitted(words)
        rows = _Rows(keys, hashed, np.full(len(keys), -1), np.zeros(len(keys), bool))
        if self.used:
            hashes, order = self.hashes.numpy(), self.order.numpy()[: self.used]
            at = np.searchsorted(hashes[: self.used], hashed, sorter=order)
            found = order[np.minimum(at, self.used - 1)]
            same = np.flatnonzero(hashes[found] == hashed)
            equal = (self.keys.numpy()[found[same]] == keys[same]).all(1)
            rows.slots[same[equal]] = found[same[equal]]
            rows.taken[same[~equal]] = True
        return rows

    def _fitted(self, words: np.ndarray) -> np.ndarray:
        """`words` as wide as the keys, which get wider where they have to be."""
        if not self.parts:
            return words
        more = words.shape[1] - self.keys.shape[1]
        if more > 0:
            with torch.inference_mode(False):
                self.keys = nn.functional.pad(self.keys, (more, 0))
        return np.pad(words, ((0, 0), (-more, 0))) if more < 0 else words

    def _keep(
        self, rows: _Rows, hits: np.ndarray, parts: Sequence[Tensor], now: float
    ) -> np.ndarray:
        """Hold distinct rows and their answers: in the slot where one had gone stale, in a free
        one, or in a victim's, which is none of `hits`. Returns their slots, −1 where not held."""
        to, stale = rows.slots, rows.slots[rows.slots >= 0]
        fresh = np.flatnonzero((to < 0) & ~rows.taken)
        fresh = fresh[max(0, len(fresh) - (self.capacity - len(hits) - len(stale))) :]
        free = np.arange(self.used, min(self.capacity, self.used + len(fresh)))
        self.queue.remove(np.concatenate((hits, stale)))
        to[fresh] = np.concatenate((free, self.queue.pop(len(fresh) - len(free))))
        self.used += len(free)
        kept = np.flatnonzero(to >= 0)
        self.keys.numpy()[to[kept]] = rows.keys[kept]
        self.hashes.numpy()[to[kept]] = rows.hashes[kept]
        self.expires.numpy()[to[kept]] = now + self.seconds
        for held, part in zip(self._kept(), parts, strict=True):
            held[torch.from_numpy(to[kept])] = part.detach()[torch.from_numpy(kept)]
        self.order.numpy()[: self.used] = np.argsort(self.hashes.numpy()[: self.used])
        return to

    def _make_room(self, words: int, parts: Sequence[Tensor], single: bool) -> None:
        held = {"keys": torch.int64, "hashes": torch.int64, "order": torch.int64}
        with torch.inference_mode(False):  # so that it can be written in any mode
            for name, kind in {**held, "expires": torch.float64}.items():
                shape = (self.capacity, words) if name == "keys" else (self.capacity,)
                self.register_buffer(name, torch.empty(shape, dtype=kind), False)
            for i, part in enumerate(parts):
                room = torch.empty(self.capacity, *part.shape[1:], dtype=part.dtype)
                self.register_buffer(f"part{i}", room, False)
        self.parts, self.single = len(parts), single

    def _kept(self) -> list[Tensor]:
        return [self.get_buffer(f"part{i}") for i in range(self.parts)]

    def _joined(self, parts: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
        return parts[0] if self.single else tuple(parts)


@dataclass
class _Rows:
    """Rows of a request: keys, int64 [B, words]; hashes, int64 [B]; slots, int64 [B], −1 where a
    row is not held; taken, bool [B], where another row of its hash is."""

    keys: np.ndarray
    hashes: np.ndarray
    slots: np.ndarray
    taken: np.ndarray

    def at(self, index: np.ndarray) -> _Rows:
        """Some of them, copied."""
        return _Rows(*(column[index] for column in vars(self).values()))


def _words(request: Batch) -> np.ndarray:
    """All that is said of each row, and the sizes of what columns hold of it: int64 [B, words]."""
    sizes = [size for column in request for size in column.shape[1:]]
    parts = [torch.tensor(sizes, dtype=torch.int64).expand(len(request[0]), len(sizes))]
    for column in request:
        flat = column.reshape(len(column), math.prod(column.shape[1:])).contiguous()
        parts.append(flat.view(_WORDS[column.element_size()]).to(torch.int64))
    return torch.cat(parts, dim=1).numpy()


def _hash(keys: np.ndarray) -> np.ndarray:
    """int64 [B] of int64 [B, words], by a polynomial in an odd number, its upper half mixed in."""
    powers = np.cumprod(np.full(keys.shape[1], _ODD[0]))
    mixed = (keys.view(np.uint64) * powers).sum(axis=1, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(32)
    mixed *= _ODD[1]
    mixed ^= mixed >> np.uint64(29)
    return mixed.view(np.int64)


def _distinct(rows: _Rows) -> tuple[np.ndarray, np.ndarray, bool]:
    """The first places of distinct rows, and which of them each row is like.

    False where two rows of a hash are not alike; every row then stands for itself.
    """
    _, first, place = np.unique(rows.hashes, return_index=True, return_inverse=True)
    if (rows.keys == rows.keys[first][place]).all():
        return first, place, True
    every = np.arange(len(rows.keys))
    return every, every, False
