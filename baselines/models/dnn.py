"""DNN: a multilayer perceptron on concatenated field embeddings, the floor of deep CTR models.

Source: Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016; sizes and
initialisation as in BARS (Zhu et al., SIGIR 2022, arXiv:2205.09626).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from baselines.base import Dataset, baseline
from baselines.models.clicks import ClickBaseline
from baselines.models.layers import MLP, FieldEmbedding, glorot_linear


class DNN(nn.Module):
    """logits = w · mlp(x) + b, where x concatenates the vectors of the fields.

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
        self.embedding = FieldEmbedding(cardinalities, embedding_dim, numbers)
        self.mlp = MLP(self.embedding.width, hidden, dropout, batch_norm)
        self.head = nn.Linear(self.mlp.out, 1)
        glorot_linear(self)

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """ids: int64 [B, F], from 0 in each field; numbers: float32 [B, D]. Returns logits [B]."""
        x = self.embedding(ids, numbers).flatten(1)
        return self.head(self.mlp(x)).squeeze(1)


@baseline("dnn")
@dataclass(frozen=True)
class DNNBaseline(ClickBaseline):
    """An MLP on clicks."""

    def build(self, data: Dataset) -> DNN:
        """A fresh model for the fields of `data`."""
        return DNN(**self.sizes(data))
