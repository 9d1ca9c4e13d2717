"""Retrieval: find the items a user will take, judged by a full ranking of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.base import Batch, Dataset, QualityMetric, Scored, Split, Task, scores
from baselines.errors import LeanRecError
from baselines.metrics import LIST_METRICS, RETRIEVAL_METRICS
from baselines.metrics.ranks import top
from baselines.tasks.ranking import ByQuery, full_ranking, full_rules, list_columns
from baselines.tasks.sampling import draw_requests, untaken

ANSWER = 100  # items in an answer

Objective = Literal["sampled-softmax", "in-batch", "bpr"]


class Retriever(nn.Module):
    """What is served of two towers: the one of users, and all items' vectors made beforehand.

    The item tower itself is not served, so a technique that shrinks it leaves the index as it
    is. A user's own history is not removed from the answer.
    """

    index: Tensor

    def __init__(self, user: nn.Module, index: Tensor) -> None:
        """user: from ids [B] to vectors [B, d]. index: [I, d]."""
        super().__init__()
        self.user = user
        self.register_buffer("index", index)

    def forward(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """users: int64 [B]. Returns the scores of all I items, float32 [B, I], and the ids of
        the best ANSWER items, best first, int64 [B, min(ANSWER, I)]."""
        all_scores = (self.user(users) @ self.index.T).float()
        return all_scores, top(all_scores, ANSWER)[1]


class ScoreRetriever(nn.Module):
    """What is served of a model without vectors: ``model.scores(users)``, and the best items."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """As `Retriever.forward`."""
        all_scores = self.model.scores(users).float()
        return all_scores, top(all_scores, ANSWER)[1]


@dataclass(frozen=True)
class Retrieval(Task):
    """For models with submodules `user` and `item` from ids to vectors, and a forward pass from
    (users [B], items [K]) to both; the score of a pair is the inner product of its vectors. A
    model that nothing trains may have a method `scores` from users [B] to [B, I] instead.

    objective "sampled-softmax": −log of the positive's share of the softmax over itself and
    `negatives` items, uniformly drawn and shared by the batch; a negative that is the row's own
    positive is left out. Uniform sampling needs no correction by the items' probabilities.
    objective "in-batch": the same over the batch's other positives, each logit less the log of
    the item's share of the training rows (Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling
    for Large Corpus Item Recommendations", RecSys, section 4, with exact shares).
    objective "bpr": −log σ(score of the positive − score of one item drawn uniformly for it).

    A training batch is (users [B], positives [B], third): negatives [N] for the sampled softmax,
    [B] for BPR, and the positives' log shares, float32 [B], in the batch.
    """

    name = "retrieval"

    objective: Objective = "sampled-softmax"
    negatives: int = 512

    @property
    def metrics(self) -> tuple[QualityMetric, ...]:
        """nDCG@10 first; after the metrics of ranks, those of the lists."""
        return (*RETRIEVAL_METRICS, *LIST_METRICS)

    def batches(
        self, data: Dataset, batch_size: int, generator: torch.Generator, device: torch.device
    ) -> Iterator[Batch]:
        """Every interaction once, in an order drawn from `generator`, with fresh negatives.

        The catalogue is every item up to the highest id of the split. A BPR negative that the
        user has taken is drawn again, as `sampling.untaken` does.
        """
        split = data.train
        items = int(split.items.max()) + 1
        order = torch.randperm(len(split), generator=generator)
        users, positives = (
            column.to(device)[order.to(device)] for column in (split.users, split.items)
        )
        if self.objective == "bpr":
            third = untaken(split.users, split.items, items, order, generator).to(device)
        elif self.objective == "in-batch":
            share = split.items.bincount().float() / len(split)
            third = share.log().to(device)[positives]
        for start in range(0, len(split), batch_size):
            rows = slice(start, start + batch_size)
            if self.objective == "sampled-softmax":
                drawn = torch.randint(items, (self.negatives,), generator=generator)
                yield users[rows], positives[rows], drawn.to(device, non_blocking=True)
            else:
                yield users[rows], positives[rows], third[rows]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of the batch's positives, computed in float32 from the model's vectors."""
        users, positives, third = batch
        if self.objective == "in-batch":
            user, item = (vectors.float() for vectors in model(users, positives))
            logits = user @ item.T - third
            twins = positives[:, None] == positives
            twins.fill_diagonal_(False)
            own = torch.arange(len(users), device=users.device)
            return functional.cross_entropy(logits.float().masked_fill(twins, -torch.inf), own)
        user, item = model(users, torch.cat((positives, third)))
        user, item = user.float(), item.float()
        positive, negative = item.split((len(positives), len(third)))
        if self.objective == "bpr":
            return -functional.logsigmoid((user * (positive - negative)).sum(1)).mean()
        own = (user * positive).sum(1)
        others = (user @ negative.T).masked_fill(positives[:, None] == third, -torch.inf)
        logits = torch.cat((own[:, None], others.float()), dim=1)
        return (logits.logsumexp(1) - own).mean()

    def share(self, batch: Batch, rank: int, ranks: int) -> tuple[Batch, float]:
        """Every rank's rows against the same shared negatives, or against its own rows alone: with
        objective "in-batch" a rank has fewer negatives than the whole batch has."""
        if self.objective != "sampled-softmax":
            return super().share(batch, rank, ranks)
        users, positives, negatives = batch
        part, weight = super().share((users, positives), rank, ranks)
        return (*part, negatives), weight

    def predictor(self, model: nn.Module, data: Dataset) -> nn.Module:
        """`model`'s user tower over an index of all its items, or its own scores.

        Raises LeanRecError where the model has neither.
        """
        model.eval()
        if callable(getattr(model, "scores", None)):
            return ScoreRetriever(model).eval()
        user, item = (getattr(model, tower, None) for tower in ("user", "item"))
        if not (isinstance(user, nn.Module) and isinstance(item, nn.Module)):
            raise LeanRecError(
                f"{type(model).__name__} has no submodules 'user' and 'item'.",
                "Retrieval serves the one over an index made by the other.",
                "Give the model two towers of these names, each from ids to vectors, or a method "
                "'scores' from users to the scores of all items.",
            )
        device = next((t.device for t in chain(model.parameters(), model.buffers())), None)
        with torch.no_grad():
            index = item(torch.arange(data.fields["item"], device=device))
        return Retriever(user, index).eval()

    def requests(self, data: Dataset, batch_size: int, count: int, seed: int) -> list[Batch]:
        """Users of the test split's interactions, so that active users come more often."""
        return draw_requests((data.test.users,), batch_size, count, seed)

    def score(
        self, predictor: nn.Module, data: Dataset, split: Split, device: torch.device
    ) -> Scored:
        """Full ranking; one row per interaction of `split`, ordered by user.

        Columns: rank (from 1, ties pessimistic), relevant (interactions of the user in `split`),
        user, and those of `ranking.list_columns` of the user's first ten items. What the user took
        in the splits before this one is removed from the ranking. Where the data are cold,
        only the items of `split` are listed. Holds the scores of few users at a time.
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
        if data.cold:
            predictor = _Among(predictor, split.items.unique(), data.fields["item"])
        users, of_user = wanted.queries.unique(return_inverse=True)
        found = full_ranking(
            predictor, (users,), data.fields["item"],
            lambda q: seen.pairs(users[q]), lambda q: wanted.pairs(users[q]), device,
        )  # fmt: skip
        user = wanted.queries.numpy()
        taken = data.train.users, data.train.items
        lists = list_columns(found.top, users, taken, data.fields["item"])
        return Scored(
            {
                "rank": found.rank.numpy(),
                "relevant": of_user.bincount()[of_user].numpy(),
                "user": user,
                **{name: column[of_user.numpy()] for name, column in lists.items()},
            },
            user,
            {name: column[wanted.order].numpy() for name, column in split.segments.items()},
            full_rules(data, split),
        )


class _Among(nn.Module):
    """A predictor's scores of `listed` items (int64 [K]); all others score −∞."""

    def __init__(self, predictor: nn.Module, listed: Tensor, items: int) -> None:
        super().__init__()
        self.predictor = predictor
        self.others = torch.ones(items, dtype=torch.bool).index_fill(0, listed, False)

    def forward(self, users: Tensor) -> Tensor:
        """Ids int64 [B] to scores, float32 [B, I]."""
        answer = scores(self.predictor(users))
        return answer.masked_fill(self.others.to(answer.device), -torch.inf)
