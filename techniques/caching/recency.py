"""Slots in the order in which they were last touched, many at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass
class _Span:
    """Where the log's entries begin and end, and how many slots are in the queue. An object of its
    own: to set an attribute of a module takes torch a microsecond."""

    head: int = 0
    tail: int = 0
    size: int = 0


class RecencyQueue(nn.Module):
    """Some of the slots 0…capacity−1, from the one touched longest ago to the latest.

    A log of touches: a slot's latest entry counts, earlier ones are stale. What is taken from the
    front passes the stale ones for good, and a full log is packed; so a touch costs O(1) in the
    long run, whatever the capacity. Takes 16 bytes a slot.
    """

    log: Tensor  # int32 [3 · capacity], slots
    place: Tensor  # int32 [capacity], where in the log a slot's latest entry is; −1: not in here

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.register_buffer("log", torch.empty(3 * capacity, dtype=torch.int32), False)
        self.register_buffer("place", torch.empty(capacity, dtype=torch.int32), False)
        self.clear()

    def clear(self) -> None:
        """Hold nothing."""
        self.place.fill_(-1)
        self.span = _Span()

    def __len__(self) -> int:
        return self.span.size

    def holds(self, slots: np.ndarray) -> np.ndarray:
        """Which of `slots` are in here: bool, of the same shape."""
        held: np.ndarray = self.place.numpy()[slots] >= 0
        return held

    def touch(self, slots: np.ndarray) -> int:
        """Put `slots` (int [N]) to the end, in the order of their last places in it.

        Those that are not in here join. Returns how many different ones there were.
        """
        place = self.place.numpy()
        before = place[slots]
        last = last_places(slots, place)
        self.span.size -= int(np.count_nonzero(before[last] >= 0))
        self.append(slots[last])
        return len(last)

    def append(self, slots: np.ndarray) -> None:
        """Put `slots` to the end, in their order; all different, and none is in here."""
        place, span = self.place.numpy(), self.span
        if span.tail + len(slots) > len(self.log):
            place[slots] = -1  # which `touch` has left otherwise; so they are not packed
            self._pack()
        stop = span.tail + len(slots)
        self.log.numpy()[span.tail : stop] = slots
        place[slots] = np.arange(span.tail, stop, dtype=np.int32)
        span.tail, span.size = stop, span.size + len(slots)

    def remove(self, slots: np.ndarray) -> None:
        """Take out `slots`, all different and in here."""
        self.place.numpy()[slots] = -1
        self.span.size -= len(slots)

    def oldest(self, count: int) -> np.ndarray:
        """The `count` slots at the front, oldest first; there are so many. They stay."""
        return self._front(count)[0]

    def pop(self, count: int) -> np.ndarray:
        """As `oldest`, and they leave."""
        slots, self.span.head = self._front(count)
        self.remove(slots)
        return slots

    def _front(self, count: int) -> tuple[np.ndarray, int]:
        """The oldest `count` slots, and where in the log the entries after them begin."""
        log, place, span = self.log.numpy(), self.place.numpy(), self.span
        width = 2 * count
        while True:
            stop = min(span.head + width, span.tail)
            entries = log[span.head : stop]
            live = np.flatnonzero(place[entries] == np.arange(span.head, stop, dtype=np.int32))
            if len(live) >= count:
                first, end = live[:count], span.head + (int(live[count - 1]) + 1 if count else 0)
                span.head += int(live[0]) if count else 0  # what is stale is passed for good
                return entries[first].astype(np.int64), end
            width *= 2

    def _pack(self) -> None:
        """Move the entries that count to the front of the log."""
        log, place, span = self.log.numpy(), self.place.numpy(), self.span
        entries = log[span.head : span.tail]
        live = entries[place[entries] == np.arange(span.head, span.tail, dtype=np.int32)]
        log[: len(live)] = live
        place[live] = np.arange(len(live), dtype=np.int32)
        span.head, span.tail = 0, len(live)


def last_places(keys: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """Where in `keys` (int [N]) each different one stands last: int64, rising.

    scratch: an int32 array that keys index; what they index is overwritten. No sort: of several
    assignments to one place NumPy keeps the last.
    """
    order = np.arange(len(keys), dtype=np.int32)
    scratch[keys] = order
    return np.flatnonzero(scratch[keys] == order)


def last_of_each(keys: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """The different ones of `keys` (int [N]), in the order of their last places; as above."""
    return keys[last_places(keys, scratch)]
