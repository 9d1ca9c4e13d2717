"""What caches can reach: the optimum of a stream, and what popularity alone predicts.

A *stream* is a sequence of batches of keys (int64 [N] each). A batch is looked up at once: its
hits are the keys that were held before it came. By request each look-up counts, by unique key each
distinct key of a batch once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize


@dataclass(frozen=True)
class HitRates:
    """Shares of what was looked up, 0…1; NaN where nothing was."""

    request: float
    unique: float


@dataclass(frozen=True)
class Hits:
    """Hits and look-ups of each batch of a stream, by request and by unique key: int64 [n]."""

    request_hits: np.ndarray
    requests: np.ndarray
    unique_hits: np.ndarray
    unique: np.ndarray

    def rates(self) -> HitRates:
        """Over all batches."""
        return HitRates(
            _share(self.request_hits.sum(), self.requests.sum()),
            _share(self.unique_hits.sum(), self.unique.sum()),
        )

    def of(self, batches: slice) -> Hits:
        """Of some of the batches."""
        return Hits(*(column[batches] for column in vars(self).values()))

    def and_of(self, other: Hits) -> Hits:
        """Of another stream, too."""
        both = zip(vars(self).values(), vars(other).values(), strict=True)
        return Hits(*map(np.concatenate, both))


def optimum(stream: Sequence[np.ndarray], capacity: int) -> Hits:
    """The most hits by unique key that a cache of `capacity` keys can have on `stream`.

    After each batch it holds those of the held keys and of the batch's that come again soonest,
    and none that never do. Source: Belady, "A study of replacement algorithms for a virtual-
    storage computer", IBM Systems Journal 5(2), 1966; a key may be served without being held.
    Its hits by request are not the most that there can be: another may hold one key of many
    look-ups where it holds two of few.
    """
    batches = [np.unique(batch, return_counts=True) for batch in stream]
    following = _next_batches([keys for keys, _ in batches])
    held, due = np.empty(0, np.int64), np.empty(0, np.int64)  # by rising key; when each comes again
    counted = []
    for (keys, counts), nexts in zip(batches, following, strict=True):
        hit = np.isin(keys, held, assume_unique=True)
        counted.append((counts[hit].sum(), counts.sum(), hit.sum(), len(keys)))
        rest = ~np.isin(held, keys, assume_unique=True)
        held, due = np.concatenate((held[rest], keys)), np.concatenate((due[rest], nexts))
        again = np.flatnonzero(due < len(batches))
        if len(again) > capacity:
            again = again[np.argpartition(due[again], capacity - 1)[:capacity]]
        held, due = held[again], due[again]
    return Hits(*np.array(counted, np.int64).reshape(-1, 4).T)


def _next_batches(batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each key of each batch (distinct), the number of the next batch with it; the number of
    batches where there is none."""
    if not batches:
        return []
    lengths = [len(keys) for keys in batches]
    number = np.repeat(np.arange(len(batches)), lengths)
    every = np.concatenate(batches)
    order = np.argsort(every, kind="stable")  # by key, and for each key by batch
    following = np.full(len(every), len(batches))
    same = np.flatnonzero(every[order[1:]] == every[order[:-1]])
    following[order[same]] = number[order[same + 1]]
    return np.split(following, np.cumsum(lengths)[:-1])


def zipf_probabilities(keys: int, exponent: float) -> np.ndarray:
    """P(key) ∝ (key + 1)^−exponent, key 0…keys−1: float64, of sum 1."""
    weight = np.arange(1, keys + 1, dtype=np.float64) ** -exponent
    return weight / weight.sum()


def che(probabilities: np.ndarray, capacity: int, batch_size: int = 1) -> HitRates:
    """What LRU hits of a stream of independent draws, by Che's approximation.

    A key is held if it came within the last T draws, where T is such that as many keys as there is
    room for came within T: C = Σ (1 − e^(−p T)). Source: Che, Tung and Wang, "Hierarchical Web
    Caching Systems: Modeling, Design and Experimental Results", IEEE JSAC 20(7), 2002. Batches
    change only what is counted: a key is in one of B draws with probability 1 − (1 − p)^B. It
    holds once the cache is full, while a batch's distinct keys are fewer than `capacity`.
    """
    p = probabilities[probabilities > 0]
    if capacity >= len(p):
        return HitRates(1.0, 1.0)
    high = 1.0
    while -np.expm1(-p * high).sum() < capacity:
        high *= 2
    time = optimize.brentq(lambda t: -np.expm1(-p * t).sum() - capacity, 0, high)
    return _of_held(p, -np.expm1(-p * time), batch_size)


def static(probabilities: np.ndarray, capacity: int, batch_size: int = 1) -> HitRates:
    """What the `capacity` most popular keys hit of a stream of independent draws: no cache that
    does not know what comes next can hit more of it by request."""
    held = np.zeros(len(probabilities))
    held[np.argsort(-probabilities, kind="stable")[:capacity]] = 1
    return _of_held(probabilities, held, batch_size)


def _of_held(p: np.ndarray, held: np.ndarray, batch_size: int) -> HitRates:
    """held: the probability that each key is."""
    comes = -np.expm1(batch_size * np.log1p(-np.minimum(p, 1 - 1e-15)))
    return HitRates(float(p @ held), float(comes @ held / comes.sum()))


def zipf_exponent(keys: np.ndarray) -> float:
    """The skew of a stream of keys (int [N]): the exponent of the Zipf law over its distinct keys,
    the most frequent first, that makes it likeliest; 0 for even use. NaN for fewer than two.

    Source: Clauset, Shalizi and Newman, "Power-Law Distributions in Empirical Data", SIAM Review
    51(4), 2009 (maximum likelihood, not a line through a log-log plot). Ranks are by the stream's
    own counts, so keys that came seldom make a short stream look a little more skewed.
    """
    counts = np.sort(np.unique(keys, return_counts=True)[1])[::-1]
    if len(counts) < 2:
        return float("nan")
    logs = np.log(np.arange(1, len(counts) + 1))
    mean = float(counts @ logs / counts.sum())

    def loss(exponent: float) -> float:
        return exponent * mean + float(np.log(np.exp(-exponent * logs).sum()))

    return float(optimize.minimize_scalar(loss, bounds=(0, 10), method="bounded").x)


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")
