"""What a cache tells of itself: how often it was asked, and how often it had the answer."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from baselines.errors import LeanRecError


@dataclass
class CacheCounts:
    """asked: keys looked up. hits: those of them that were held when their batch came. distinct,
    distinct_hits: the same with a key counted once a batch, however often it stands in it.

    stream: where it is a list, the keys of every batch (int64 [N]) are added to it.
    """

    asked: int = 0
    hits: int = 0
    distinct: int = 0
    distinct_hits: int = 0
    stream: list[np.ndarray] | None = None

    def note(self, keys: np.ndarray, hits: int, distinct: int, distinct_hits: int) -> None:
        """Count one batch. keys: int64 [N]."""
        self.asked += len(keys)
        self.hits += hits
        self.distinct += distinct
        self.distinct_hits += distinct_hits
        if self.stream is not None:
            self.stream.append(keys.copy())

    def __add__(self, other: CacheCounts) -> CacheCounts:
        """Both together, without their streams."""
        names = ("asked", "hits", "distinct", "distinct_hits")
        return CacheCounts(*(getattr(self, name) + getattr(other, name) for name in names))


class Cache(nn.Module):
    """A module that keeps some of what it is asked for. capacity: how many keys it may hold."""

    capacity: int

    def __init__(self) -> None:
        super().__init__()
        self.counts = CacheCounts()

    @abstractmethod
    def clear(self) -> None:
        """Become what it was when it was made; the counts start anew."""


def caches(predictor: nn.Module) -> list[Cache]:
    """The caches in what is served, each once."""
    return [module for module in predictor.modules() if isinstance(module, Cache)]


def refuse_graphs() -> None:
    """Raises LeanRecError where torch compiles or exports its caller: what a cache does depends on
    what it holds, and a graph would do the same for ever."""
    if torch.compiler.is_compiling():
        raise LeanRecError(
            "A cache cannot be inside a compiled or exported graph.",
            "The predictor cannot be served so.",
            "Name what compiles or exports before the cache of answers, or leave one of them out.",
        )
