"""Policies of a row cache that admit whatever is missing and evict for it: LRU and LFU."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from techniques.caching.recency import RecencyQueue, last_of_each
from techniques.caching.row_cache import Asked, Policy

COUNT_BITS, STAMP_BITS = 23, 40  # of an LFU key: touches of a row, then when it was last touched


class Evicting(Policy):
    """Admits what is missing and evicts for it."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.used = 0

    @abstractmethod
    def victims(self, hits: np.ndarray, count: int) -> np.ndarray:
        """`count` slots to evict, none of them among `hits`, which the batch reads."""

    def settle(self, asked: Asked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Free slots first, then victims."""
        room = self.capacity - len(asked.hits)
        admitted = np.arange(max(0, len(asked.missing) - room), len(asked.missing))
        free = np.arange(self.used, min(self.capacity, self.used + len(admitted)))
        leaving = self.victims(asked.hits, len(admitted) - len(free))
        self.used += len(free)
        slots = np.concatenate((free, leaving))
        self.touch_all(asked, admitted, slots)
        return admitted, slots, leaving

    @abstractmethod
    def touch_all(self, asked: Asked, admitted: np.ndarray, slots: np.ndarray) -> None:
        """Touch a batch's hits, and the `slots` that `asked.missing[admitted]` are in now."""

    def clear(self) -> None:
        """Forget everything."""
        self.used = 0


class LRU(Evicting):
    """The row touched longest ago goes."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.queue = RecencyQueue(capacity)

    def touch(self, ids: np.ndarray, slots: np.ndarray) -> int:
        """To the end of the queue."""
        return self.queue.touch(slots)

    def touch_all(self, asked: Asked, admitted: np.ndarray, slots: np.ndarray) -> None:
        """To the end of the queue; `victims` has taken the hits out of it."""
        self.queue.append(asked.latest(admitted, slots))

    def victims(self, hits: np.ndarray, count: int) -> np.ndarray:
        """From the front of the queue, once the batch's hits are out of it."""
        self.queue.remove(hits)
        return self.queue.pop(count)

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.queue.clear()


class LFU(Evicting):
    """The row touched the fewest times since it was admitted goes; of several, the one touched
    longest ago. Choosing victims takes time proportional to the capacity."""

    key: Tensor  # int64 [capacity], touches · 2^STAMP_BITS + the number of the last touch

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.register_buffer("key", torch.empty(capacity, dtype=torch.int64), False)
        self.clear()

    def touch(self, ids: np.ndarray, slots: np.ndarray) -> int:
        """Each time that a slot stands in the batch counts."""
        key = self.key.numpy()
        distinct = last_of_each(slots, np.empty(self.capacity, np.int32))
        touches = key >> STAMP_BITS
        np.add.at(touches, slots, 1)
        stamps = self.now + np.arange(len(distinct))
        most = np.int64(2**COUNT_BITS - 1)
        key[distinct] = (np.minimum(touches[distinct], most) << STAMP_BITS) + stamps
        self.now += len(distinct)
        return len(distinct)

    def touch_all(self, asked: Asked, admitted: np.ndarray, slots: np.ndarray) -> None:
        """As `touch`."""
        self.touch(asked.ids, asked.settled(admitted, slots))

    def victims(self, hits: np.ndarray, count: int) -> np.ndarray:
        """Those of the lowest keys. Their touches do not outlive them."""
        if not count:
            return np.empty(0, np.int64)
        key = self.key.numpy()[: self.used].copy()
        key[hits] = np.iinfo(np.int64).max
        chosen = np.argpartition(key, count - 1)[:count]
        self.key.numpy()[chosen] = 0
        return chosen

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.key.zero_()
        self.now = 0
