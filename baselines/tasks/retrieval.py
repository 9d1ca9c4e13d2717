"""Retrieval: find the items a user will take, judged by a full ranking of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.base import Batch, Dataset, QualityMetric, Scored, Split, Task
from baselines.errors import LeanRecError
from baselines.metrics import RETRIEVAL_METRICS
from baselines.metrics.ranks import top
from baselines.tasks.ranking import ByQuery, full_ranking
from baselines.tasks.sampling import draw_requests

ANSWER = 100  # items in an answer
REDRAWS = 4


class Retriever(nn.Module):
    """What is served: the user tower, and the vectors of all items computed beforehand.

    The item tower itself is not served, so a technique that shrinks it leaves the index as it
    is. A user's own history is not removed from the answer.
    """

    index: Tensor

    def __init__(self, model: nn.Module, items: int) -> None:
        super().__init__()
        user, item = (getattr(model, tower, None) for tower in ("user", "item"))
        if not (isinstance(user, nn.Module) and isinstance(item, nn.Module)):
            raise LeanRecError(
                f"{type(model).__name__} has no submodules 'user' and 'item'.",
                "Retrieval serves the one over an index made by the other.",
                "Give the model two towers of these names, each from ids to vectors.",
            )
        self.user = user
        device = next((t.device for t in chain(model.parameters(), model.buffers())), None)
        with torch.no_grad():
            self.register_buffer("index", item(torch.arange(items, device=device)))

    def forward(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """users: int64 [B]. Returns the scores of all I items, float32 [B, I], and the ids of
        the best ANSWER items, best first, int64 [B, min(ANSWER, I)]."""
        all_scores = (self.user(users) @ self.index.T).float()
        return all_scores, top(all_scores, ANSWER)[1]


@dataclass(frozen=True)
class Retrieval(Task):
    """For models with submodules `user` and `item` from ids to vectors, and a forward pass from
    (users [B], items [K]) to both; the score of a pair is the inner product of its vectors.

    objective "sampled-softmax": −log of the positive's share of the softmax over itself and
    `negatives` items, uniformly drawn and shared by the batch; a negative that is the row's own
    positive is left out. Uniform sampling needs no correction by the items' probabilities.
    objective "bpr": −log σ(score of the positive − score of one item drawn uniformly for it).

    A training batch is (users [B], positives [B], negatives), the last [N] or, for BPR, [B].
    """

    name = "retrieval"

    objective: Literal["sampled-softmax", "bpr"] = "sampled-softmax"
    negatives: int = 512

    @property
    def metrics(self) -> tuple[QualityMetric, ...]:
        """nDCG@10 first."""
        return RETRIEVAL_METRICS

    def batches(
        self, split: Split, batch_size: int, generator: torch.Generator, device: torch.device
    ) -> Iterator[Batch]:
        """Every interaction once, in an order drawn from `generator`, with fresh negatives.

        The catalogue is every item up to the highest id of the split. A BPR negative that the
        user has taken is drawn again, at most REDRAWS times.
        """
        items = int(split.items.max()) + 1
        pairs = (split.users * items + split.items).sort().values
        for rows in torch.randperm(len(split), generator=generator).split(batch_size):
            users, positives = split.users[rows], split.items[rows]
            if self.objective == "bpr":
                negatives = torch.randint(items, (len(rows),), generator=generator)
                for _ in range(REDRAWS):
                    taken = _contains(pairs, users * items + negatives)
                    fresh = torch.randint(items, (len(rows),), generator=generator)
                    negatives = torch.where(taken, fresh, negatives)
            else:
                negatives = torch.randint(items, (self.negatives,), generator=generator)
            yield tuple(t.to(device, non_blocking=True) for t in (users, positives, negatives))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of the batch's positives, computed in float32 from the model's vectors."""
        users, positives, negatives = batch
        user, item = model(users, torch.cat((positives, negatives)))
        user, item = user.float(), item.float()
        positive, negative = item.split((len(positives), len(negatives)))
        own = (user * positive).sum(1)
        if self.objective == "bpr":
            return -functional.logsigmoid(own - (user * negative).sum(1)).mean()
        others = (user @ negative.T).masked_fill(positives[:, None] == negatives, -torch.inf)
        logits = torch.cat((own[:, None], others.float()), dim=1)
        return (logits.logsumexp(1) - own).mean()

    def predictor(self, model: nn.Module, data: Dataset) -> Retriever:
        """`model`'s user tower over an index of all its items.

        Raises LeanRecError where the model is not of two towers.
        """
        _, items = data.fields.values()
        return Retriever(model.eval(), items).eval()

    def requests(self, data: Dataset, batch_size: int, count: int, seed: int) -> list[Batch]:
        """Users of the test split's interactions, so that active users come more often."""
        return draw_requests((data.test.users,), batch_size, count, seed)

    def score(
        self, predictor: nn.Module, data: Dataset, split: Split, device: torch.device
    ) -> Scored:
        """Full ranking; one row per interaction of `split`, ordered by user.

        Columns: rank (from 1, ties pessimistic), relevant (interactions of the user in `split`),
        user, top (int64 [n, 10], the user's list). What the user took in the splits before this one is removed from the ranking.
        Holds the scores of few users at a time.
        """
        earlier = list(takewhile(lambda s: s is not split, (data.train, data.valid)))
        empty = torch.empty(0, dtype=torch.int64)
        seen, wanted = (
            ByQuery(
                torch.cat([empty, *(s.users for s in parts)]),
                torch.cat([empty, *(s.items for s in parts)]),
            )
            for parts in (earlier, [split])
        )
        _, items = data.fields.values()
        users, of_user = wanted.queries.unique(return_inverse=True)
        found = full_ranking(
            predictor, (users,), items,
            lambda q: seen.pairs(users[q]), lambda q: wanted.pairs(users[q]), device,
        )  # fmt: skip
        user = wanted.queries.numpy()
        return Scored(
            {
                "rank": found.rank.numpy(),
                "relevant": of_user.bincount()[of_user].numpy(),
                "user": user,
                "top": found.top[of_user].numpy(),
            },
            user,
            {name: column[wanted.order].numpy() for name, column in split.segments.items()},
        )


def _contains(rising: Tensor, values: Tensor) -> Tensor:
    """Whether each value is in `rising` (sorted): bool, the shape of `values`."""
    place = torch.searchsorted(rising, values).clamp(max=len(rising) - 1)
    return rising[place] == values
