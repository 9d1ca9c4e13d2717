"""W-TinyLFU, for batches: who comes newly must have been asked for more often than who leaves."""

from __future__ import annotations

import numpy as np

from techniques.caching.recency import RecencyQueue, last_of_each
from techniques.caching.row_cache import Asked, Policy
from techniques.caching.sketch import FadingSketch

WINDOW, PROTECTED = 0.01, 0.8  # of the capacity; of what is not the window


class TinyLFU(Policy):
    """A small LRU window, and a main part of two LRU segments that only the frequent enter.

    Source: Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM
    Transactions on Storage 13(4), 2017, without the doorkeeper.

    A batch is settled so: the sketch counts its ids. Hits in the window go to the window's end,
    hits in probation or the protected segment to the protected end; what the protected segment
    has too much goes from its front to the end of probation. Then the missing ids line up after
    the window's rows; those at the front for which the window has no room are the candidates. They
    fill the main part while it has room. After that the i-th candidate meets the i-th row of
    probation, oldest first, and takes its place, at the end of probation, if the sketch has seen
    it more often; otherwise the candidate leaves, as do all without a row to meet.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.window_room = max(1, int(WINDOW * capacity))
        self.main_room = capacity - self.window_room
        self.protected_room = int(PROTECTED * self.main_room)
        self.window, self.probation, self.protected = (RecencyQueue(capacity) for _ in range(3))
        self.sketch = FadingSketch(capacity)
        self.used = 0

    def clear(self) -> None:
        """Forget everything."""
        for part in (self.window, self.probation, self.protected, self.sketch):
            part.clear()
        self.used = 0

    def touch(self, ids: np.ndarray, slots: np.ndarray) -> int:
        """A batch that missed nothing."""
        self._count(ids)
        return self._hit(slots)

    def _count(self, ids: np.ndarray) -> None:
        distinct, times = np.unique(ids, return_counts=True)
        self.sketch.add(distinct, times)

    def _hit(self, slots: np.ndarray) -> int:
        in_window = self.window.holds(slots)
        hits = self.window.touch(slots[in_window])
        others = slots[~in_window]
        on_probation = others[self.probation.holds(others)]
        self.probation.remove(last_of_each(on_probation, np.empty(self.capacity, np.int32)))
        hits += self.protected.touch(others)
        demoted = self.protected.pop(max(0, len(self.protected) - self.protected_room))
        self.probation.touch(demoted)
        return hits

    def settle(self, asked: Asked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As the class says."""
        self._count(asked.ids)
        self._hit(asked.slots[asked.slots >= 0])
        missing = asked.missing
        surplus = max(0, len(self.window) + len(missing) - self.window_room)
        old = self.window.pop(min(surplus, len(self.window)))
        new = np.arange(surplus - len(old))  # of `missing`: candidates at once
        ids = np.concatenate((asked.id_of[old], missing[new]))
        wins, beaten = self._duel(ids, asked.id_of)
        old_wins, new_wins = wins[: len(old)], wins[len(old) :]
        admitted = np.concatenate((new[new_wins], np.arange(len(new), len(missing))))
        leaving = np.concatenate((beaten, old[~old_wins]))
        unused = self.used + np.arange(len(admitted) - len(leaving))
        self.used += len(unused)
        slots = np.concatenate((leaving, unused))
        won = len(admitted) - (len(missing) - len(new))
        self.probation.touch(np.concatenate((old[old_wins], slots[:won])))
        self.window.touch(slots[won:])
        return admitted, slots, leaving

    def _duel(self, ids: np.ndarray, id_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the candidates `ids` enter the main part, and the slots of who goes for them."""
        room = self.main_room - len(self.probation) - len(self.protected)
        wins = np.arange(len(ids)) < room
        rows = self.probation.oldest(min(len(self.probation), max(0, len(ids) - room)))
        pairs = slice(room, room + len(rows))
        wins[pairs] = self.sketch.estimate(ids[pairs]) > self.sketch.estimate(id_of[rows])
        beaten = rows[wins[pairs]]
        self.probation.remove(beaten)
        return wins, beaten
