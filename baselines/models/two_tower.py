"""Two towers: a vector for each user and each item, whose inner product is the score.

Sources: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009,
arXiv:1205.2618 (matrix factorisation and its pairwise loss); Covington et al., "Deep Neural
Networks for YouTube Recommendations", RecSys 2016 (towers under a sampled softmax); Kula, "Metadata
Embeddings for User and Item Cold-start Recommendations", 2015, arXiv:1507.08439 (a vector for each
feature's value, added to that of the id).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import DATASETS, Baseline, Dataset, Recipe, baseline
from baselines.models.layers import FieldEmbedding
from baselines.tasks.retrieval import Objective, Retrieval


class Tower(nn.Module):
    """The vector of an id plus the mean of those of its features' values, which start from zero.

    The mean, since the sum's steps grow with the number of features. features: name → int64 [ids],
    values from 0.
    """

    values: Tensor

    def __init__(self, ids: int, dim: int, std: float, features: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.id = embedding(ids, dim, std)
        values = torch.stack(list(features.values()), dim=1)
        self.register_buffer("values", values)
        self.feature = FieldEmbedding((values.amax(0) + 1).tolist(), dim, std=0.0)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids int64 [K] to vectors [K, dim]."""
        return self.id(ids) + self.feature(self.values[ids]).mean(1)


class TwoTower(nn.Module):
    """A vector per user and per item. The score of a pair is user(u) · item(i).

    user_features, item_features: as in Dataset; a tower without any is a table.
    """

    def __init__(
        self,
        users: int,
        items: int,
        embedding_dim: int = 64,
        std: float = 0.1,
        user_features: Mapping[str, Tensor] | None = None,
        item_features: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()

        def tower(ids: int, features: Mapping[str, Tensor] | None) -> nn.Module:
            if features:
                return Tower(ids, embedding_dim, std, features)
            return embedding(ids, embedding_dim, std)

        self.user, self.item = tower(users, user_features), tower(items, item_features)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Ids int64 [B] and [K] to the vectors [B, d] of the users and [K, d] of the items."""
        return self.user(users), self.item(items)


def embedding(ids: int, dim: int, std: float) -> nn.Embedding:
    """A table drawn from N(0, std²)."""
    # from_pretrained leaves out nn.Embedding's own initialisation, a pass over the whole table.
    table = nn.Embedding.from_pretrained(torch.empty(ids, dim), freeze=False)
    nn.init.normal_(table.weight, std=std)
    return table


@baseline("two-tower")
@dataclass(frozen=True)
class TwoTowerBaseline(Baseline):
    """Two towers on interactions.

    dataset: a data source's spec. features: whether the towers know users and items by their
    features too, where the data has some: for items or users that are seldom or never trained on.
    negatives: uniformly drawn items that a batch shares under the sampled softmax; BPR draws one
    for each positive instead.
    """

    dataset: str = "ml-100k"
    embedding_dim: int = 64
    loss: Objective = "sampled-softmax"
    negatives: int = 512
    features: bool = False

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
        known = (data.user_features, data.item_features) if self.features else ()
        return TwoTower(data.fields["user"], data.fields["item"], self.embedding_dim, 0.1, *known)
