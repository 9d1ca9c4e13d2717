"""The batch policies of the row caches again, an id at a time and as plainly as can be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, OrderedDict

import numpy as np

from techniques.caching.sketch import FadingSketch


def by_last_place(ids: list[int]) -> list[int]:
    """The different ones, in the order of their last places."""
    return list(reversed(list(OrderedDict.fromkeys(reversed(ids)))))


class Simulated(ABC):
    """What a cache of `capacity` holds, and what it has hit."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.hits = self.distinct_hits = 0

    @property
    @abstractmethod
    def held(self) -> set[int]:
        """The ids that are held."""

    @abstractmethod
    def settle(self, ids: list[int], missing: list[int]) -> None:
        """Hold what is to be held after the batch. missing: by last place."""

    def look_up(self, ids: list[int]) -> None:
        """One batch."""
        held = self.held
        self.hits += sum(i in held for i in ids)
        self.distinct_hits += sum(i in held for i in set(ids))
        self.settle(ids, [i for i in by_last_place(ids) if i not in held])


class SimulatedLRU(Simulated):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.order: OrderedDict[int, None] = OrderedDict()

    @property
    def held(self) -> set[int]:
        return set(self.order)

    def settle(self, ids: list[int], missing: list[int]) -> None:
        hits = self.held & set(ids)
        room = self.capacity - len(hits)
        admitted = missing[max(0, len(missing) - room) :]
        evictable = [i for i in self.order if i not in hits]
        for i in evictable[: max(0, len(self.order) + len(admitted) - self.capacity)]:
            del self.order[i]
        self.order |= dict.fromkeys(admitted)
        for i in by_last_place(ids):
            if i in self.order:
                self.order.move_to_end(i)


class SimulatedLFU(Simulated):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.touches: Counter[int] = Counter()
        self.touched: dict[int, int] = {}
        self.now = 0

    @property
    def held(self) -> set[int]:
        return set(self.touched)

    def settle(self, ids: list[int], missing: list[int]) -> None:
        hits = self.held & set(ids)
        room = self.capacity - len(hits)
        admitted = missing[max(0, len(missing) - room) :]
        evictable = sorted(
            self.held - hits, key=lambda i: (self.touches[i], self.touched[i])
        )  # fmt: skip
        for i in evictable[: max(0, len(self.touched) + len(admitted) - self.capacity)]:
            del self.touched[i], self.touches[i]
        stay = hits | set(admitted)
        for i in by_last_place(ids):
            if i in stay:
                self.touches[i] += ids.count(i)
                self.touched[i] = self.now
                self.now += 1


class SimulatedTinyLFU(Simulated):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.window_room = max(1, capacity // 100)
        self.main_room = capacity - self.window_room
        self.window: OrderedDict[int, None] = OrderedDict()
        self.probation: OrderedDict[int, None] = OrderedDict()
        self.protected: OrderedDict[int, None] = OrderedDict()
        self.sketch = FadingSketch(capacity)

    @property
    def held(self) -> set[int]:
        return {*self.window, *self.probation, *self.protected}

    def often(self, i: int) -> int:
        return int(self.sketch.estimate(np.array([i]))[0])

    def settle(self, ids: list[int], missing: list[int]) -> None:
        times = Counter(ids)
        self.sketch.add(np.array(list(times)), np.array(list(times.values())))
        for i in by_last_place(ids):
            if i in self.window:
                self.window.move_to_end(i)
            elif i in self.probation or i in self.protected:
                self.probation.pop(i, None)
                self.protected.pop(i, None)
                self.protected[i] = None
        while len(self.protected) > int(0.8 * self.main_room):
            self.probation[self.protected.popitem(last=False)[0]] = None
        line = [*self.window, *missing]
        candidates = line[: max(0, len(line) - self.window_room)]
        self.window = OrderedDict.fromkeys(line[len(candidates) :])
        room = self.main_room - len(self.probation) - len(self.protected)
        victims = list(self.probation)
        winners = candidates[:room]
        for candidate, victim in zip(candidates[room:], victims, strict=False):
            if self.often(candidate) > self.often(victim):
                del self.probation[victim]
                winners.append(candidate)
        self.probation |= dict.fromkeys(winners)
