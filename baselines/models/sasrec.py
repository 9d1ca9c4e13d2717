"""SASRec: a causal transformer over what the user took.

Sources: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, arXiv:1808.09781;
Petrov and Macdonald, "Turning Dross Into Gold Loss", RecSys 2023 (full cross-entropy makes it the
stronger of SASRec and BERT4Rec). Accepted details: layer norm before each sublayer and after the
last, learned positions, one table for what goes in and what comes out. Attention weights are not
dropped, outputs of sublayers are. Scores are inner products; with a temperature they are cosines
divided by it, as in the sampled softmax of Zhai et al., arXiv:2402.17152, which suits a large
catalogue of which few items are told at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.base import Dataset, baseline
from baselines.models.layers import FastDropout, UnitVectors, causal_mask, small_weights
from baselines.models.sequences import NextItemBaseline


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); d wide, heads of d / heads."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, act: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(
            nn.Linear(dim, hidden), act, FastDropout(dropout), nn.Linear(hidden, dim)
        )
        self.dropout = FastDropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [B, L, d]. mask: bool, broadcast to [B, heads, L, L], true where a place is read."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.dropout(self.out(read.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed(self.norm2(x)))


class SASRec(nn.Module):
    """State of place l = what may come after it, from items at places up to l.

    length: the longest history. The table's row I pads; no other place reads padding. Items enter
    scaled by √d. Positions count from the right, so the last item's is always 0. temperature: what
    cosines are divided by; without one, scores are inner products.
    """

    def __init__(
        self, items: int, length: int, dim: int, blocks: int, heads: int, dropout: float,
        temperature: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.items, self.scale, self.temperature = items, dim**0.5, temperature
        table = nn.Embedding(items + 1, dim, padding_idx=items)
        self.item = table if temperature is None else UnitVectors(table)
        self.position = nn.Embedding(length, dim)
        self.dropout = FastDropout(dropout)
        self.blocks = nn.ModuleList(
            Block(dim, heads, dim, dropout, nn.ReLU()) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(dim)
        small_weights(self)

    def encode(self, history: Tensor) -> Tensor:
        """history: int64 [B, L], left-padded with I. Returns states [B, L, d]."""
        length = history.shape[1]
        place = torch.arange(length - 1, -1, -1, device=history.device)
        table = self.item.table if isinstance(self.item, UnitVectors) else self.item
        x = self.dropout(table(history) * self.scale + self.position(place))
        mask = causal_mask(history != self.items)
        for block in self.blocks:
            x = block(x, mask)
        states = self.norm(x)
        if self.temperature is None:
            return states
        return functional.normalize(states, dim=-1) / self.temperature

    def forward(self, history: Tensor, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Histories [B, L] to their states [B, L, d]; ids [K], or all, to vectors [K, d]."""
        if items is None:
            items = torch.arange(self.items, device=history.device)
        return self.encode(history), self.item(items)


@baseline("sasrec")
@dataclass(frozen=True)
class SASRecBaseline(NextItemBaseline):
    """SASRec on what users took in order. temperature: see SASRec."""

    length: int = 200
    blocks: int = 2
    heads: int = 1
    temperature: float | None = None

    def build(self, data: Dataset) -> SASRec:
        """A fresh model for the items of `data`."""
        return SASRec(
            data.fields["item"], self.length, self.embedding_dim, self.blocks, self.heads,
            self.dropout, self.temperature,
        )  # fmt: skip
