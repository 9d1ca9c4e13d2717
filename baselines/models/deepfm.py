"""DeepFM: a factorisation machine and a multilayer perceptron on the same embeddings.

Source: Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction",
IJCAI 2017, arXiv:1703.04247. The pairs of the factorisation machine are summed in linear time by
lemma 3.1 of Rendle, "Factorization Machines", ICDM 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from baselines.base import Dataset, baseline
from baselines.models.clicks import ClickBaseline
from baselines.models.layers import MLP, FieldEmbedding, glorot_linear


class DeepFM(nn.Module):
    """logits = Σ_f w_f + Σ_{f<g} v_f · v_g + u · mlp(v) + b over the vectors v_f of the fields.

    cardinalities: of the F id fields. numbers: how many numeric columns follow them.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        embedding_dim: int = 16,
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.0,
        batch_norm: bool = False,
        numbers: int = 0,
    ) -> None:
        super().__init__()
        self.first_order = FieldEmbedding(cardinalities, 1, numbers)
        self.embedding = FieldEmbedding(cardinalities, embedding_dim, numbers)
        self.mlp = MLP(self.embedding.width, hidden, dropout, batch_norm)
        self.head = nn.Linear(self.mlp.out, 1)
        glorot_linear(self)

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """ids: int64 [B, F], from 0 in each field; numbers: float32 [B, D]. Returns logits [B]."""
        v = self.embedding(ids, numbers)
        pairs = (v.sum(1).square() - v.square().sum(1)).sum(1) / 2  # each pair f < g once
        first = self.first_order(ids, numbers).sum((1, 2))
        return first + pairs + self.head(self.mlp(v.flatten(1))).squeeze(1)


@baseline("deepfm")
@dataclass(frozen=True)
class DeepFMBaseline(ClickBaseline):
    """DeepFM on clicks."""

    def build(self, data: Dataset) -> DeepFM:
        """A fresh model for the fields of `data`."""
        return DeepFM(**self.sizes(data))
