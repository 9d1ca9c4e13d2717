"""BERT4Rec: a transformer that reads both sides, trained to tell hidden items.

Source: Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations
from Transformer", CIKM 2019, arXiv:1904.06690. Accepted details: norms before each sublayer and
after the last, one table for what goes in and what comes out, no extra output layer or bias;
attention weights are not dropped, outputs of sublayers are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import Dataset, baseline
from baselines.models.layers import FastDropout, small_weights
from baselines.models.sasrec import Block
from baselines.models.sequences import SequenceBaseline
from baselines.tasks.sequence import MASK, Sequence


class BERT4Rec(nn.Module):
    """State of place l = which item stands there, from all places where something stands.

    length: the longest history. The table's row I pads and row I + 1 is read where MASK stands; no
    other place reads padding. Items enter scaled by √d. Positions count from the right, so the last
    place's is always 0.
    """

    def __init__(
        self, items: int, length: int, dim: int, blocks: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.items, self.scale = items, dim**0.5
        self.item = nn.Embedding(items + 2, dim, padding_idx=items)
        self.position = nn.Embedding(length, dim)
        self.dropout = FastDropout(dropout)
        self.blocks = nn.ModuleList(
            Block(dim, heads, 4 * dim, dropout, nn.GELU()) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(dim)
        small_weights(self)

    def encode(self, history: Tensor) -> Tensor:
        """history: int64 [B, L], left-padded with I, MASK where to tell. Returns [B, L, d]."""
        length = history.shape[1]
        place = torch.arange(length - 1, -1, -1, device=history.device)
        ids = history.masked_fill(history == MASK, self.items + 1)
        x = self.dropout(self.item(ids) * self.scale + self.position(place))
        real = (history != self.items)[:, None, None, :]
        mask = real | torch.eye(length, dtype=torch.bool, device=history.device)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def forward(self, history: Tensor, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Histories [B, L] to their states [B, L, d]; ids [K], or all, to vectors [K, d]."""
        if items is None:
            items = torch.arange(self.items, device=history.device)
        return self.encode(history), self.item(items)


@baseline("bert4rec")
@dataclass(frozen=True)
class BERT4RecBaseline(SequenceBaseline):
    """BERT4Rec on what users took in order. hidden: the share of items hidden in training.

    A fifth of the items is told at a time, so it takes several times as many epochs as models that
    tell each item; small batches, which are many an epoch, and patience make up for it.
    """

    blocks: int = 2
    heads: int = 2
    hidden: float = 0.2
    batch_size: int = 32
    epochs: int = 300
    patience: int = 30

    @property
    def task(self) -> Sequence:
        """Hidden items, told by cross-entropy over all items."""
        return Sequence("cloze", hidden=self.hidden)

    def build(self, data: Dataset) -> BERT4Rec:
        """A fresh model for the items of `data`."""
        return BERT4Rec(
            data.fields["item"], self.length, self.embedding_dim, self.blocks, self.heads,
            self.dropout,
        )  # fmt: skip
