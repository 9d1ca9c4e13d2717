"""DCN-V2, parallel structure with full-rank cross layers: a click-through-rate model.

Source: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
Learning to Rank Systems", WWW 2021, arXiv:2008.13535.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import Dataset, baseline
from baselines.models.clicks import ClickBaseline
from baselines.models.layers import MLP, FieldEmbedding, glorot_linear


class DCNv2(nn.Module):
    """logits = w · cross(x) + u · mlp(x) + b, where x concatenates the vectors of the fields.

    Cross layer l computes x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l (equation 1 of the paper).
    cardinalities: of the F id fields. numbers: how many numeric columns follow them.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        embedding_dim: int = 16,
        hidden: Sequence[int] = (256, 256),
        cross_layers: int = 3,
        dropout: float = 0.0,
        batch_norm: bool = False,
        numbers: int = 0,
    ) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(cardinalities, embedding_dim, numbers)
        width = self.embedding.width
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(cross_layers))
        self.mlp = MLP(width, hidden, dropout, batch_norm)
        self.cross_head = nn.Linear(width, 1, bias=False)
        self.head = nn.Linear(self.mlp.out, 1)
        glorot_linear(self)

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """ids: int64 [B, F], from 0 in each field; numbers: float32 [B, D]. Returns logits [B]."""
        x0 = self.embedding(ids, numbers).flatten(1)
        x = x0
        for layer in self.cross:
            x = torch.addcmul(x, x0, layer(x))
        return (self.cross_head(x) + self.head(self.mlp(x0))).squeeze(1)


@baseline("dcnv2")
@dataclass(frozen=True)
class DCNv2Baseline(ClickBaseline):
    """DCN-V2 on clicks."""

    cross_layers: int = 3

    def build(self, data: Dataset) -> DCNv2:
        """A fresh model for the fields of `data`."""
        return DCNv2(**self.sizes(data), cross_layers=self.cross_layers)
