"""GRU4Rec: a recurrent network over what the user took.

Sources: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016,
arXiv:1511.06939; Petrov and Macdonald, "A Systematic Review and Replicability Study of BERT4Rec",
RecSys 2022, for whole user histories. Accepted details: one table for what goes in and what comes
out, a linear layer and a norm between the last state and the items.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import Dataset, baseline
from baselines.models.layers import FastDropout, small_weights
from baselines.models.sequences import NextItemBaseline


class GRU4Rec(nn.Module):
    """State of place l = what may come after it, from items at places up to l.

    The table's row I pads. A history is turned so that its items come first: padding then follows
    them and changes no state that is used.
    """

    def __init__(self, items: int, dim: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.items = items
        self.item = nn.Embedding(items + 1, dim, padding_idx=items)
        self.dropout = FastDropout(dropout)
        self.gru = nn.GRU(dim, hidden, layers, batch_first=True)
        self.out, self.norm = nn.Linear(hidden, dim), nn.LayerNorm(dim)
        small_weights(self)

    def encode(self, history: Tensor) -> Tensor:
        """history: int64 [B, L], left-padded with I. Returns states [B, L, d]."""
        length = history.shape[1]
        place = torch.arange(length, device=history.device)
        padding = (history == self.items).sum(1, keepdim=True)
        first = history.gather(1, (place + padding) % length)
        states, _ = self.gru(self.dropout(self.item(first)))
        states = self.norm(self.out(self.dropout(states)))
        back = ((place - padding) % length)[:, :, None].expand_as(states)
        return states.gather(1, back)

    def forward(self, history: Tensor, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Histories [B, L] to their states [B, L, d]; ids [K], or all, to vectors [K, d]."""
        if items is None:
            items = torch.arange(self.items, device=history.device)
        return self.encode(history), self.item(items)


@baseline("gru4rec")
@dataclass(frozen=True)
class GRU4RecBaseline(NextItemBaseline):
    """GRU4Rec on what users took in order."""

    hidden: int = 128
    layers: int = 1
    patience: int = 10

    def build(self, data: Dataset) -> GRU4Rec:
        """A fresh model for the items of `data`."""
        return GRU4Rec(
            data.fields["item"], self.embedding_dim, self.hidden, self.layers, self.dropout
        )
