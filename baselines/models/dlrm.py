"""DLRM: inner products of all pairs of fields, under a multilayer perceptron.

Source: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation
Systems", 2019, arXiv:1906.00091.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import Dataset, baseline
from baselines.models.clicks import ClickBaseline
from baselines.models.layers import MLP, FieldEmbedding, glorot_linear

STD = 0.05  # inner products of vectors near zero have no gradient to speak of


class DLRM(nn.Module):
    """logits = w · mlp([z, all v_f · v_g with f < g]) + b.

    v_f are the vectors of the id fields and z = bottom(numbers), the vector of all numbers
    together. Data without numbers have no bottom MLP; a learned vector then takes the place of z,
    and its inner products with the v_f are their first-order terms.
    bottom: hidden units below z. cardinalities: of the F id fields. numbers: numeric columns.
    """

    pairs: Tensor

    def __init__(
        self,
        cardinalities: Sequence[int],
        embedding_dim: int = 16,
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.0,
        batch_norm: bool = False,
        numbers: int = 0,
        bottom: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(cardinalities, embedding_dim, std=STD)
        self.bottom = MLP(numbers, (*bottom, embedding_dim) if numbers else ())
        self.constant = None if numbers else nn.Parameter(torch.randn(embedding_dim) * STD)
        vectors = len(cardinalities) + 1
        above = torch.triu_indices(vectors, vectors, offset=1)
        self.register_buffer("pairs", above[0] * vectors + above[1], persistent=False)
        self.mlp = MLP(embedding_dim + len(above[0]), hidden, dropout, batch_norm)
        self.head = nn.Linear(self.mlp.out, 1)
        glorot_linear(self)

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """ids: int64 [B, F], from 0 in each field; numbers: float32 [B, D]. Returns logits [B]."""
        v = self.embedding(ids)
        z = self.bottom(numbers) if self.constant is None else self.constant.expand(v.shape[0], -1)
        v = torch.cat((z.unsqueeze(1), v), dim=1)
        dots = torch.bmm(v, v.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        return self.head(self.mlp(torch.cat((z, dots), dim=1))).squeeze(1)


@baseline("dlrm")
@dataclass(frozen=True)
class DLRMBaseline(ClickBaseline):
    """DLRM on clicks.

    It reads inner products alone, not the vectors, so these are longer than other models'. On
    MovieLens it overfits sooner and less evenly, so its penalty is larger and it waits longer. All
    three were tuned on the valid split.
    """

    embedding_dim: int = 32
    embedding_l2: float = 3e-3
    lr: float = 5e-3
    patience: int = 4

    def build(self, data: Dataset) -> DLRM:
        """A fresh model for the fields of `data`."""
        return DLRM(**self.sizes(data))
