"""DIN: a click model in which the candidate item decides what of the user's history counts.

Source: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018,
arXiv:1706.06978. ReLU takes the place of the paper's Dice, as in the other models here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import DATASETS, Dataset, baseline
from baselines.models.clicks import ClickBaseline
from baselines.models.layers import MLP, FieldEmbedding, glorot_linear


class TargetAttention(nn.Module):
    """Σ_l a_l h_l with a_l = w · mlp([h_l, t, h_l − t, h_l ⊙ t]) + b over a history's items.

    The a_l are not normalised, so that their sum tells how strong the interest is (section 4.3).
    """

    def __init__(self, dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.mlp = MLP(4 * dim, hidden)
        self.head = nn.Linear(self.mlp.out, 1)

    def forward(self, history: Tensor, target: Tensor, real: Tensor) -> Tensor:
        """history: [B, L, d]; target: [B, d]; real: bool [B, L], not padding. Returns [B, d]."""
        t = target.unsqueeze(1).expand_as(history)
        pairs = torch.cat((history, t, history - t, history * t), dim=2)
        weights = self.head(self.mlp(pairs)).squeeze(2) * real
        return torch.bmm(weights.unsqueeze(1), history).squeeze(1)


class DIN(nn.Module):
    """logits = w · mlp([x, attention(history, item)]) + b, x being the vectors of the fields.

    The history's items share the vectors of the field `item`. cardinalities: of the F id fields.
    numbers: how many numeric columns follow them. attention: hidden units of the attention.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        embedding_dim: int = 16,
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.0,
        batch_norm: bool = False,
        numbers: int = 0,
        item: int = 1,
        attention: Sequence[int] = (36,),
    ) -> None:
        super().__init__()
        self.item, self.padding = item, cardinalities[item]
        self.embedding = FieldEmbedding(cardinalities, embedding_dim, numbers)
        self.attention = TargetAttention(embedding_dim, attention)
        self.mlp = MLP(self.embedding.width + embedding_dim, hidden, dropout, batch_norm)
        self.head = nn.Linear(self.mlp.out, 1)
        glorot_linear(self)

    def forward(self, ids: Tensor, *rest: Tensor) -> Tensor:
        """ids: int64 [B, F], from 0 in each field; then numbers, float32 [B, D], where there are
        any; then the history, item ids int64 [B, L], padded with the item field's cardinality.

        Returns logits [B].
        """
        *numbers, history = rest
        x = self.embedding(ids, *numbers)
        real = history != self.padding
        rows = history.masked_fill(~real, 0) + self.embedding.offsets[self.item]
        interest = self.attention(self.embedding.table(rows), x[:, self.item], real)
        return self.head(self.mlp(torch.cat((x.flatten(1), interest), dim=1))).squeeze(1)


@baseline("din")
@dataclass(frozen=True)
class DINBaseline(ClickBaseline):
    """DIN on clicks, with the last `history` items of the user."""

    history: int = 20

    def data(self) -> Dataset:
        """The impressions of `dataset` with histories."""
        return DATASETS.make(self.dataset).ctr(self.history)

    def build(self, data: Dataset) -> DIN:
        """A fresh model for the fields of `data`."""
        return DIN(**self.sizes(data), item=list(data.fields).index("item"))
