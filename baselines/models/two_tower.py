"""Two towers: a vector for each user and each item, whose inner product is the score.

Sources: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009,
arXiv:1205.2618 (matrix factorisation and its pairwise loss); Covington et al., "Deep Neural
Networks for YouTube Recommendations", RecSys 2016 (towers under a sampled softmax).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import DATASETS, Baseline, Dataset, Recipe, baseline
from baselines.tasks.retrieval import Objective, Retrieval


class TwoTower(nn.Module):
    """One embedding per user and per item. The score of a pair is user(u) · item(i)."""

    def __init__(self, users: int, items: int, embedding_dim: int = 64, std: float = 0.1) -> None:
        super().__init__()
        # from_pretrained leaves out nn.Embedding's own initialisation, a pass over the whole table.
        self.user = nn.Embedding.from_pretrained(torch.empty(users, embedding_dim), freeze=False)
        self.item = nn.Embedding.from_pretrained(torch.empty(items, embedding_dim), freeze=False)
        nn.init.normal_(self.user.weight, std=std)
        nn.init.normal_(self.item.weight, std=std)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Ids int64 [B] and [K] to the vectors [B, d] of the users and [K, d] of the items."""
        return self.user(users), self.item(items)


@baseline("two-tower")
@dataclass(frozen=True)
class TwoTowerBaseline(Baseline):
    """Two towers on interactions.

    dataset: a data source's spec.
    negatives: uniformly drawn items that a batch shares under the sampled softmax; BPR draws one
    for each positive instead.
    """

    dataset: str = "ml-100k"
    embedding_dim: int = 64
    loss: Objective = "sampled-softmax"
    negatives: int = 512

    @property
    def task(self) -> Retrieval:
        """Retrieval under the loss chosen."""
        return Retrieval(self.loss, self.negatives)

    @property
    def recipe(self) -> Recipe:
        """Adam with an L2 penalty on both tables, tuned on MovieLens' valid split for each loss."""
        l2 = 3e-5 if self.loss == "bpr" else 1e-4
        return Recipe(lr=5e-3, batch_size=1024, epochs=30, patience=4, embedding_l2=l2)

    def data(self) -> Dataset:
        """Interactions of users with items."""
        return DATASETS.make(self.dataset).retrieval()

    def build(self, data: Dataset) -> TwoTower:
        """A fresh model for the users and items of `data`."""
        return TwoTower(data.fields["user"], data.fields["item"], self.embedding_dim)
