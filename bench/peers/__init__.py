"""Other libraries at the work that `leanrec speed` times, each where it is installed.

One module a library, imported only when it is timed; LeanRec depends on none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Protocol

from baselines.base import Dataset
from baselines.models.clicks import ClickBaseline


class ClickPeer(Protocol):
    """Another library's model of the same sizes on the rows of a data set, not yet trained."""

    def epoch(self) -> None:
        """Train for one epoch, by the library's own loop over its own loader; no evaluation."""

    def evaluate(self) -> float:
        """Score the test rows; their AUC by the library's own metric."""

    def fit(self) -> None:
        """Train to the library's own early stopping on the valid AUC; leaves the best weights."""


ClickLibrary = Callable[[ClickBaseline, Dataset, int], AbstractContextManager[ClickPeer]]
"""From a baseline, whose name and sizes are taken over, its data and a seed to the peer. What it
keeps on disk is gone when the context ends."""


TrainingLibrary = Callable[
    [str, Mapping[str, Any], int | None], AbstractContextManager[tuple[Callable[[], object], int]]
]
"""From a model's name, settings and how many batches (all if None) to the call that trains on them
and the number of rows that it goes through."""


def installed(package: str) -> bool:
    """Whether `package` can be imported; it is not imported."""
    return find_spec(package) is not None


def training_library() -> TrainingLibrary | None:
    """RecBole, None where it is not installed."""
    if not installed("recbole"):
        return None
    from bench.peers.recbole_models import recbole

    return recbole


def named(name: str, package: str) -> str:
    """The library's name, with the version of `package` where it is installed."""
    return f"{name} {version(package)}" if installed(package) else name


FUXICTR, RECBOLE = named("FuxiCTR", "fuxictr"), named("RecBole", "recbole")


def click_library() -> ClickLibrary | None:
    """FuxiCTR, None where it is not installed."""
    if not installed("fuxictr"):
        return None
    from bench.peers.fuxi import fuxictr

    return fuxictr
