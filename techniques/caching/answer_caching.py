"""Vectors of users, and whole answers, kept for when they are asked for again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.base import Batch
from techniques.base import Change, Context, Requires, Technique, technique
from techniques.caching.answer_cache import AnswerCache
from techniques.caching.counters import caches
from techniques.surgery import copy_with

Count = Annotated[int, Field(ge=1)]


@technique("user-cache")
@dataclass(frozen=True)
class UserCache(Technique):
    """The vectors of `users` users, or states of histories, kept for when they come again.

    Source: Gim et al., "Prompt Cache", MLSys 2024, arXiv:2311.04934, for the general idea that the
    state of a context met before need not be computed again. A user is known by all that the tower
    is given: one who has taken something since is another. It pays where the tower or encoder costs
    more than the look-up, as a transformer over a history does, and users come back before others
    push them out; it never pays for a tower that is a table. Vectors are computed for the missing
    users alone, so the last bits may be those of another batch size.
    """

    users: Count = 1024
    family = "caching"
    caches = True
    requires = Requires(tasks=frozenset({"retrieval", "sequence"}), devices=frozenset({"cpu"}))
    changes = frozenset({Change.SIZE, Change.REPEATS})

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because no vector of a user is computed."""
        reason = super().reason_against(model, task, device)
        tower = getattr(model, "user", None)
        if reason is None and task == "retrieval" and tower is None:
            return "finds no user tower"
        if reason is None and type(tower) is nn.Embedding:
            return "finds a user tower that is a table: there is nothing to save"
        return reason

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Put the cache in the tower's place; the copy shares all else with `predictor`."""
        part: Any = predictor.user if context.task == "retrieval" else predictor.model
        kind = AnswerCache if context.task == "retrieval" else LastStates
        served = copy_with(predictor, {part: kind(part, self.users)})
        return made_ready(served, context.examples[0])


class LastStates(nn.Module):
    """Takes a sequence model's place where only the state after a history is read."""

    def __init__(self, model: nn.Module, users: int) -> None:
        super().__init__()
        self.cache = AnswerCache(_LastState(model), users)

    def encode(self, history: Tensor) -> Tensor:
        """history: int64 [B, L]. Returns the state after each, [B, 1, d]."""
        states: Tensor = self.cache(history)
        return states[:, None]


class _LastState(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, history: Tensor) -> Tensor:
        states: Tensor = self.model.encode(history)
        return states[:, -1]


@technique("result-cache")
@dataclass(frozen=True)
class ResultCache(Technique):
    """Whole answers to `answers` rows of requests, kept for `seconds`.

    Source: Baeza-Yates et al., "The Impact of Caching on Search Engines", SIGIR 2007. A row is
    known by all its inputs. Expect the cost of a look-up for what was asked before, and that cost
    beside the model's for all else: it pays where the same question comes again within `seconds`,
    which rows of logged impressions seldom do and users who reload a page do. An answer may be as
    old as `seconds`; a model that changes in place is not noticed before. A retriever's answer is
    a score for every item, so `answers` of them take much memory.
    """

    answers: Count = 1024
    seconds: Annotated[float, Field(gt=0)] = 60.0
    family = "caching"
    caches = True
    requires = Requires(devices=frozenset({"cpu"}))
    changes = frozenset({Change.SIZE, Change.REPEATS})

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Serve from the cache what is in it."""
        served = AnswerCache(predictor, self.answers, self.seconds)
        return made_ready(served, context.examples[0])


@torch.inference_mode()
def made_ready(predictor: nn.Module, example: Batch) -> nn.Module:
    """`predictor`, its caches empty and their memory taken."""
    predictor(*example)
    for cache in caches(predictor):
        cache.clear()
    return predictor
