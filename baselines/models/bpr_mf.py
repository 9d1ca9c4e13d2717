"""Matrix factorisation with item biases under the pairwise loss of BPR.

Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009,
arXiv:1205.2618; the item bias as in the authors' MyMediaLite. A user bias would cancel in the
difference of two items' scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import DATASETS, Baseline, Dataset, Recipe, baseline
from baselines.tasks.retrieval import Retrieval


class UserVectors(nn.Module):
    """One embedding per user, and a 1 after it that the item's bias is multiplied by."""

    def __init__(self, users: int, embedding_dim: int) -> None:
        super().__init__()
        table = torch.empty(users, embedding_dim)
        self.table = nn.Embedding.from_pretrained(table, freeze=False)

    def forward(self, users: Tensor) -> Tensor:
        """Ids int64 [...] to vectors [..., d + 1]."""
        vectors = self.table(users)
        return torch.cat((vectors, torch.ones_like(vectors[..., :1])), dim=-1)


class BPRMF(nn.Module):
    """score(u, i) = p_u · q_i + b_i. A row of `item` is q_i and then b_i."""

    def __init__(self, users: int, items: int, embedding_dim: int = 64, std: float = 0.1) -> None:
        super().__init__()
        self.user = UserVectors(users, embedding_dim)
        table = torch.empty(items, embedding_dim + 1)
        self.item = nn.Embedding.from_pretrained(table, freeze=False)
        nn.init.normal_(self.user.table.weight, std=std)
        nn.init.normal_(self.item.weight, std=std)
        with torch.no_grad():
            self.item.weight[:, -1].zero_()

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Ids int64 [B] and [K] to the vectors [B, d + 1] of the users and [K, d + 1] of the
        items, whose inner product is the score."""
        return self.user(users), self.item(items)


@baseline("bpr-mf")
@dataclass(frozen=True)
class BPRMFBaseline(Baseline):
    """BPR with matrix factorisation. dataset: a data source's spec."""

    dataset: str = "ml-100k"
    embedding_dim: int = 64

    @property
    def task(self) -> Retrieval:
        """Retrieval under BPR's loss, one uniform negative for each positive."""
        return Retrieval("bpr")

    @property
    def recipe(self) -> Recipe:
        """Adam with an L2 penalty on both tables, tuned on MovieLens-100K's valid split."""
        return Recipe(lr=2e-3, batch_size=2048, epochs=100, patience=8, embedding_l2=4e-5)

    def data(self) -> Dataset:
        """Interactions of users with items."""
        return DATASETS.make(self.dataset).retrieval()

    def build(self, data: Dataset) -> BPRMF:
        """A fresh model for the users and items of `data`."""
        return BPRMF(data.fields["user"], data.fields["item"], self.embedding_dim)
