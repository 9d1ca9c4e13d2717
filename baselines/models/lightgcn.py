"""LightGCN: user and item vectors smoothed over the graph of interactions.

Source: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for
Recommendation", SIGIR 2020, arXiv:2002.02126: no feature transformation, no nonlinearity, no self
loops, the mean of all layers, BPR's loss. Accepted departure: the L2 penalty is on whole tables,
not on the vectors of a batch alone.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from baselines.base import DATASETS, Baseline, Dataset, Recipe, baseline
from baselines.tasks.retrieval import Retrieval


class Graph(nn.Module):
    """The adjacency A of users and items (items after users), each edge weighted
    1 / √(degree of one end · degree of the other); symmetric, hence its own transpose.

    Its three buffers are those of a compressed sparse row matrix [n, n].
    """

    start: Tensor  # int64 [n + 1], where each row begins
    column: Tensor  # int64 [edges]
    weight: Tensor  # float32 [edges]

    def __init__(self, users: Tensor, items: Tensor, n_users: int, n_items: int) -> None:
        """users, items: int64 [interactions], from 0. A pair that comes twice counts once."""
        super().__init__()
        n = n_users + n_items
        pair = np.unique(users.numpy() * n_items + items.numpy())
        user, item = pair // n_items, pair % n_items + n_users
        degree = np.bincount(np.concatenate((user, item)), minlength=n)
        weight = (1 / np.sqrt(degree[user] * degree[item].astype(np.float64))).astype(np.float32)
        half = sparse.coo_array((weight, (user, item)), shape=(n, n))
        matrix = (half + half.T).tocsr()
        for name, values, kind in (
            ("start", matrix.indptr, np.int64),
            ("column", matrix.indices, np.int64),
            ("weight", matrix.data, np.float32),
        ):
            self.register_buffer(name, torch.from_numpy(values.astype(kind)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """A x of x: float32 [n, d]."""
        n = len(self.start) - 1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            matrix = torch.sparse_csr_tensor(
                self.start, self.column, self.weight, (n, n), check_invariants=False
            )
        return _Product.apply(matrix, x.float())


class _Product(torch.autograd.Function):
    """A x for a symmetric A: the gradient is A times the gradient, without a transpose of A."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor) -> Tensor:
        ctx.matrix = matrix
        with torch.autocast(x.device.type, enabled=False):  # no sparse product in bfloat16
            return matrix @ x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, ctx.matrix @ gradient.contiguous()


class LightGCN(nn.Module):
    """`embedding` is trained; `user` and `item` hold what it becomes after propagation.

    They are written whenever the model leaves training mode, so that what is served, and
    compressed, is two plain tables.
    """

    def __init__(
        self, users: int, items: int, graph: Graph, embedding_dim: int = 64, layers: int = 3
    ) -> None:
        super().__init__()
        self.layers = layers
        self.embedding = nn.Embedding.from_pretrained(
            torch.empty(users + items, embedding_dim), freeze=False
        )
        self.user = nn.Embedding.from_pretrained(torch.empty(users, embedding_dim), freeze=False)
        self.item = nn.Embedding.from_pretrained(torch.empty(items, embedding_dim), freeze=False)
        self.graph = graph
        nn.init.normal_(self.embedding.weight, std=0.1)
        nn.init.zeros_(self.user.weight)
        nn.init.zeros_(self.item.weight)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """The vectors of all users and of all items: the mean of E, A E, A² E, …"""
        layer = total = self.embedding.weight
        for _ in range(self.layers):
            layer = self.graph(layer)
            total = total + layer
        mean = total / (self.layers + 1)
        users = self.user.num_embeddings
        return mean[:users], mean[users:]

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Ids int64 [B] and [K] to the vectors [B, d] of the users and [K, d] of the items."""
        user, item = self.propagate()
        return user[users], item[items]

    def train(self, mode: bool = True) -> LightGCN:
        """As of any module; leaving training mode writes `user` and `item`."""
        if self.training and not mode and not self.embedding.weight.is_meta:
            with torch.no_grad():
                for tower, vectors in zip((self.user, self.item), self.propagate(), strict=True):
                    tower.weight.copy_(vectors)
        super().train(mode)
        return self


@baseline("lightgcn")
@dataclass(frozen=True)
class LightGCNBaseline(Baseline):
    """LightGCN over the graph of the train split. dataset: a data source's spec."""

    dataset: str = "ml-100k"
    embedding_dim: int = 64
    layers: int = 3

    @property
    def task(self) -> Retrieval:
        """Retrieval under BPR's loss, one uniform negative for each positive."""
        return Retrieval("bpr")

    @property
    def recipe(self) -> Recipe:
        """Adam with an L2 penalty on the table, tuned on MovieLens-100K's valid split."""
        return Recipe(lr=1e-2, batch_size=2048, epochs=60, patience=6, embedding_l2=1e-6)

    def data(self) -> Dataset:
        """Interactions of users with items."""
        return DATASETS.make(self.dataset).retrieval()

    def build(self, data: Dataset) -> LightGCN:
        """A fresh model over the graph of the train split of `data`."""
        users, items = data.fields["user"], data.fields["item"]
        graph = Graph(data.train.users, data.train.items, users, items)
        return LightGCN(users, items, graph, self.embedding_dim, self.layers)
