"""How often ids came lately, in a few bytes: a count-min sketch whose counts fade."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

HASHES = 4
MOST = 15  # what a counter counts up to
WIDTH = 2  # counters of each hash for each id that the sketch is for
SAMPLE = 10  # ids counted, for each that the sketch is for, before all counts are halved


class FadingSketch(nn.Module):
    """Estimates of frequency, never too low but for the cap of MOST and the halvings.

    Sources: Cormode and Muthukrishnan, "An Improved Data Stream Summary: The Count-Min Sketch and
    its Applications", Journal of Algorithms 55(1), 2005; Estan and Varghese, "New Directions in
    Traffic Measurement and Accounting", SIGCOMM 2002 (conservative update: of an id's counters
    only the lowest are raised); Einziger, Friedman and Manes, "TinyLFU", ACM Transactions on
    Storage 13(4), 2017 (halving all counts after every sample keeps the estimates fresh).
    """

    counters: Tensor  # uint8 [HASHES, a power of two]

    def __init__(self, size: int) -> None:
        """size: of the cache that asks it."""
        super().__init__()
        self.bits = max(1, (WIDTH * size - 1).bit_length())
        self.sample = SAMPLE * size
        counters = torch.empty(HASHES, 2**self.bits, dtype=torch.uint8)
        self.register_buffer("counters", counters, False)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.counters.zero_()
        self.counted = 0

    def add(self, ids: np.ndarray, times: np.ndarray) -> None:
        """Count distinct `ids` (int64 [m]) so many `times` (int64 [m]), all at once: estimates of
        before the batch are what they are added to. Then, where the sample is full, halve."""
        raised = np.minimum(self.estimate(ids) + times, MOST).astype(np.uint8)
        for row, at in zip(self.counters.numpy(), self._places(ids), strict=True):
            np.maximum.at(row, at, raised)
        self.counted += int(times.sum())
        while self.counted >= self.sample:
            self.counters >>= 1
            self.counted //= 2

    def estimate(self, ids: np.ndarray) -> np.ndarray:
        """How often each of `ids` (int64 [m]) came: uint8 [m]."""
        rows = zip(self.counters.numpy(), self._places(ids), strict=True)
        lowest: np.ndarray = np.minimum.reduce([row[at] for row, at in rows])
        return lowest

    def _places(self, ids: np.ndarray) -> list[np.ndarray]:
        """Where each hash counts each id. The hash multiplies by an odd number (Knuth) and mixes
        the upper half of the product, which is the better one, into the result."""
        wide = ids.astype(np.uint64)
        places = []
        for factor in _FACTORS:
            product = wide * factor
            product ^= product >> np.uint64(32)
            product *= _FACTORS[0]
            places.append((product >> np.uint64(64 - self.bits)).astype(np.int64))
        return places


_FACTORS = np.random.default_rng(0).integers(2**63, 2**64, HASHES, np.uint64) | np.uint64(1)
