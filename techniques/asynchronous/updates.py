"""Training and serving that do not wait for each other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from baselines.base import Asynchronous, Recipe
from techniques.asynchronous.double_buffer import DoubleBuffered
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

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train by workers."""
        how = Asynchronous(self.workers, self.staleness)
        return dataclasses.replace(recipe, asynchronous=how)


@technique("async-refresh")
@dataclass(frozen=True)
class AsyncRefresh(Technique):
    """New weights for what is served, learned beside it from what it was just asked.

    Source: double buffering; sparse deltas to serving replicas as in Liu et al., "Monolith: Real
    Time Recommendation System With Collisionless Embedding Table", ORSUM at RecSys 2022, section
    2.3. A trainer in a process of its own goes on by Adam at rate `lr`, a batch at a time, each
    event once; rows that no event touched stay as they are. The predictor is held twice, and the
    copies change places between two requests. Expect quality where tastes move, the more the
    shorter the period, at the price of a second copy and of a trainer's processor; nothing where
    the truth stands still, and a loss where `lr` follows noise.
    """

    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.003
    batch_size: Annotated[int, Field(ge=1)] = 128

    family = "asynchronous"
    requires = Requires(weights=True, devices=frozenset({"cpu"}))
    changes = frozenset({Change.SIZE})

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Hold the predictor twice."""
        return DoubleBuffered(predictor)

    def online(self, recipe: Recipe) -> Recipe:
        """Small steps on touched rows."""
        return dataclasses.replace(
            recipe, lr=self.lr, batch_size=self.batch_size, warmup_steps=0,
            sparse_embeddings=True, embedding_l2=0.0, asynchronous=None,
        )  # fmt: skip
