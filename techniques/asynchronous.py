"""Training and serving that do not wait for each other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from baselines.base import Asynchronous, Recipe
from techniques.base import Change, Context, Requires, Technique, technique


@technique("async-ps")
@dataclass(frozen=True)
class AsyncPs(Technique):
    """Worker processes compute gradients on weights that a server updates meanwhile.

    Source: Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter
    Server", NIPS 2013. A worker may run ahead of the slowest by `staleness` steps; with 0 they go
    in rounds. Each gradient is a whole batch's and is applied alone, so a training takes as many
    steps as one process does. Of embedding tables only the rows that a batch touched are sent.
    Expect a gain where computing a gradient takes longer than applying it and processors are left
    over, as with large batches and small tables; none where one process keeps all of them busy, or
    where Adam walks through large dense tables. Stale gradients cost quality as workers, staleness
    and the rate grow. Only staleness 0 gives the same model for the same seed.
    """

    workers: Annotated[int, Field(ge=1, le=64)] = 2
    staleness: Annotated[int, Field(ge=0)] = 4

    family = "asynchronous"
    requires = Requires(weights=True, devices=frozenset({"cpu"}))
    changes = frozenset({Change.NUMERICS})

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train by workers."""
        how = Asynchronous(self.workers, self.staleness)
        return dataclasses.replace(recipe, asynchronous=how)
