"""HSTU: a sequence layer whose attention weights are not normalised to one, and gate the output.

Source: Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers
for Generative Recommendations", ICML 2024, arXiv:2402.17152. Accepted details: the bias is of
relative position alone (times are not an input), learned positions are added to the items, one
table for what goes in and what comes out, norms before each layer and after the last, scores that
are cosines divided by a temperature, as the authors' own code has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.base import Dataset, baseline
from baselines.models.layers import (
    FastDropout,
    UnitVectors,
    causal_mask,
    glorot_linear,
    small_weights,
)
from baselines.models.sequences import NextItemBaseline
from baselines.tasks.sequence import Objective


class HSTULayer(nn.Module):
    """x + f₂(norm(A V) ⊙ U), with U, V, Q, K = SiLU(f₁(norm(x))) and A = SiLU(QKᵀ + b) / length.

    b is learned for each distance between places and each head. The sum over a history is divided
    by the longest `length`, not by its own, so it keeps how much there was. Equations 1 to 3.
    """

    def __init__(self, dim: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.length = heads, length
        self.norm, self.read_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.uvqk, self.out = nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)
        self.bias = nn.Embedding(length, heads)
        self.dropout = FastDropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [B, L, d]. mask: bool [B, 1, L, L], true where a place is read."""
        batch, length, _ = x.shape
        u, v, q, k = functional.silu(self.uvqk(self.norm(x))).chunk(4, dim=-1)
        v, q, k = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in (v, q, k))
        place = torch.arange(length, device=x.device)
        distance = (place[:, None] - place).clamp(min=0)
        weights = functional.silu(q @ k.transpose(2, 3) + self.bias(distance).permute(2, 0, 1))
        read = (weights * mask / self.length) @ v
        read = self.read_norm(read.transpose(1, 2).flatten(2))
        return x + self.dropout(self.out(read * u))


class HSTU(nn.Module):
    """State of place l = what may come after it, from items at places up to l.

    length: the longest history. The table's row I pads; no other place reads padding. Items enter
    scaled by √d. Positions count from the right, so the last item's is always 0. temperature: what
    cosines are divided by.
    """

    def __init__(
        self, items: int, length: int, dim: int, blocks: int, heads: int, dropout: float,
        temperature: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.items, self.scale, self.temperature = items, dim**0.5, temperature
        self.item = UnitVectors(nn.Embedding(items + 1, dim, padding_idx=items))
        self.position = nn.Embedding(length, dim)
        self.dropout = FastDropout(dropout)
        self.blocks = nn.ModuleList(HSTULayer(dim, heads, length, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        small_weights(self)
        glorot_linear(self)  # small gates would leave the layers silent beside the items

    def encode(self, history: Tensor) -> Tensor:
        """history: int64 [B, L], left-padded with I. Returns states [B, L, d]."""
        length = history.shape[1]
        place = torch.arange(length - 1, -1, -1, device=history.device)
        x = self.dropout(self.item.table(history) * self.scale + self.position(place))
        mask = causal_mask(history != self.items)
        for block in self.blocks:
            x = block(x, mask)
        return functional.normalize(self.norm(x), dim=-1) / self.temperature

    def forward(self, history: Tensor, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Histories [B, L] to their states [B, L, d]; ids [K], or all, to vectors [K, d]."""
        if items is None:
            items = torch.arange(self.items, device=history.device)
        return self.encode(history), self.item(items)


@baseline("hstu")
@dataclass(frozen=True)
class HSTUBaseline(NextItemBaseline):
    """HSTU on what users took in order. temperature: see HSTU."""

    blocks: int = 2
    heads: int = 1
    dropout: float = 0.5
    objective: Objective = "sampled-softmax"
    temperature: float = 0.05
    patience: int = 10

    def build(self, data: Dataset) -> HSTU:
        """A fresh model for the items of `data`."""
        return HSTU(
            data.fields["item"], self.length, self.embedding_dim, self.blocks, self.heads,
            self.dropout, self.temperature,
        )  # fmt: skip
