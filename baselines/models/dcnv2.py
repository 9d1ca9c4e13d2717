"""DCN-V2, parallel structure with full-rank cross layers: a click-through-rate model.

Source: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
Learning to Rank Systems", WWW 2021, arXiv:2008.13535.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from baselines.base import DATASETS, Baseline, Dataset, Recipe, baseline
from baselines.tasks.ctr import CTR


class DCNv2(nn.Module):
    """logits = w · [cross(x), mlp(x)] + b, where x concatenates the embeddings of the F fields.

    Cross layer l computes x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l (equation 1 of the paper).
    One table holds the rows of all fields, one after another; `cardinalities` says how many each
    has. Dropout follows each hidden layer of the MLP.
    """

    offsets: Tensor

    def __init__(
        self,
        cardinalities: Sequence[int],
        embedding_dim: int = 16,
        hidden: Sequence[int] = (256, 256),
        cross_layers: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        starts = torch.tensor([0, *cardinalities], dtype=torch.int64).cumsum(0)
        self.register_buffer("offsets", starts[:-1].clone(), persistent=False)
        # from_pretrained leaves out nn.Embedding's own initialisation, a pass over the whole table.
        table = torch.empty(sum(cardinalities), embedding_dim)
        self.embedding = nn.Embedding.from_pretrained(table, freeze=False)
        width = len(cardinalities) * embedding_dim
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(cross_layers))
        layers: list[nn.Module] = []
        sizes = (width, *hidden)
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
        self.mlp = nn.Sequential(*layers)
        self.head = nn.Linear(width + sizes[-1], 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Embeddings from N(0, 1e-4²), linear weights by Glorot's normal rule, biases zero."""
        nn.init.normal_(self.embedding.weight, std=1e-4)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64 [B, F], counted from 0 within each field. Returns logits [B]."""
        x0 = self.embedding(ids + self.offsets).flatten(1)
        x = x0
        for layer in self.cross:
            x = x0 * layer(x) + x
        return self.head(torch.cat((x, self.mlp(x0)), dim=1)).squeeze(1)


@baseline("dcnv2")
@dataclass(frozen=True)
class DCNv2Baseline(Baseline):
    """DCN-V2 on clicks.

    dataset: a data source's spec. width, depth: of the MLP.
    Planted tables may be large, so their gradients are sparse and SparseAdam trains them: it leaves
    the moments of untouched rows alone, where dense Adam decays them and goes on moving those rows.
    """

    dataset: str = "ml-100k"
    embedding_dim: int = 16
    width: int = 256
    depth: int = 2
    cross_layers: int = 3
    dropout: float = 0.0

    @property
    def task(self) -> CTR:
        """Binary cross-entropy on clicks."""
        return CTR()

    @property
    def recipe(self) -> Recipe:
        """Adam; on MovieLens with an L2 penalty on the embeddings, tuned on the valid split."""
        if self.dataset.startswith("planted"):
            return Recipe(lr=1e-3, batch_size=1024, epochs=10, sparse_embeddings=True)
        return Recipe(lr=3e-3, batch_size=1024, epochs=10, patience=2, embedding_l2=1e-3)

    def data(self) -> Dataset:
        """Clicks with user, item and context fields."""
        return DATASETS.make(self.dataset).ctr()

    def build(self, data: Dataset) -> DCNv2:
        """A fresh model for the fields of `data`."""
        return DCNv2(
            list(data.fields.values()),
            self.embedding_dim,
            (self.width,) * self.depth,
            self.cross_layers,
            self.dropout,
        )
