"""Random draws that cost nothing for ids that are not drawn: Zipf ids and hashed latent values."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment and multipliers
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def zipf(count: int, ids: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` ids from 0…ids−1 with P(id) ∝ (id + 1)^−exponent: int64 [count].

    Id order is popularity order, 0 the most popular. exponent ≥ 0. Time and memory are in `count`
    alone. Source: rejection-inversion, Hörmann and Derflinger 1996, ACM TOMACS 6(3).
    """
    rise = 1.0 - exponent

    def integral(x: np.ndarray | float) -> np.ndarray:  # of x^−exponent, from 1
        log = np.log(x)
        return log if rise == 0 else np.expm1(rise * log) / rise

    def inverse(area: np.ndarray | float) -> np.ndarray:
        return np.exp(area if rise == 0 else np.log1p(rise * area) / rise)

    low, high = integral(1.5) - 1.0, integral(ids + 0.5)
    sure = 2.0 - inverse(integral(2.5) - 2.0**-exponent)
    drawn = np.empty(count, dtype=np.int64)
    missing = np.arange(count)
    while len(missing):
        area = high + rng.random(len(missing)) * (low - high)
        x = inverse(area)
        rank = np.clip(np.rint(x), 1, ids)
        accepted = (rank - x <= sure) | (area >= integral(rank + 0.5) - rank**-exponent)
        drawn[missing[accepted]] = rank[accepted].astype(np.int64) - 1
        missing = missing[~accepted]
    return drawn


def uniforms(seed: int, stream: int, ids: np.ndarray) -> np.ndarray:
    """A fixed value in (0, 1) for each id of a stream, with no state: float64 like `ids`.

    Counter-based: SplitMix64's finaliser over (seed, stream), then over the id. Source: Steele,
    Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators.
    """
    key = _mix(
        _mix(np.array([seed], np.uint64) + _GOLDEN) + np.array([stream], np.uint64) * _GOLDEN
    )
    bits = _mix(key + (ids.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normals(seed: int, stream: int, ids: np.ndarray) -> np.ndarray:
    """As `uniforms`, standard normal."""
    return ndtri(uniforms(seed, stream, ids))


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
