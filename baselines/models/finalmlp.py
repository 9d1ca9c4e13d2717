"""FinalMLP: two multilayer perceptrons on differently gated features, fused bilinearly.

Source: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023,
arXiv:2304.00902.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import Dataset, baseline
from baselines.errors import LeanRecError
from baselines.models.clicks import ClickBaseline
from baselines.models.layers import MLP, FieldEmbedding, glorot_linear


class Gate(nn.Module):
    """Feature gating: 2·σ(mlp(context)), a weight in 0…2 for each number of x (equation 3)."""

    def __init__(self, context: int, hidden: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(context, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, context: Tensor) -> Tensor:
        """context: [B, context]. Returns [B, width]."""
        return 2 * torch.sigmoid(self.mlp(context))


class BilinearFusion(nn.Module):
    """Σ_h aᵀ_h W_h b_h + w_a · a + w_b · b + c; `heads` parts of a and b each (equation 9)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise LeanRecError(
                f"{width} units cannot be cut into {heads} heads.",
                "No model was built.",
                "Choose a number of heads that divides the width.",
            )
        self.linear = nn.Linear(2 * width, 1)
        part = width // heads
        self.weight = nn.Parameter(torch.empty(heads, part, part))
        for head in self.weight:
            nn.init.xavier_normal_(head)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b: [B, width]. Returns [B]."""
        heads, part, _ = self.weight.shape
        by_head = a.view(-1, heads, part).transpose(0, 1)
        mapped = torch.bmm(by_head, self.weight).transpose(0, 1).flatten(1)
        return self.linear(torch.cat((a, b), dim=1)).squeeze(1) + (mapped * b).sum(1)


class FinalMLP(nn.Module):
    """logits = fusion(mlp_1(g_1 ⊙ x), mlp_2(g_2 ⊙ x)), where x concatenates the fields' vectors.

    The context of a gate is the vector of one id field, `contexts` says which for each stream: the
    paper takes the user's for one and the item's for the other. cardinalities: of the F id fields.
    numbers: how many numeric columns follow them. gate: hidden units of the gates.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        embedding_dim: int = 16,
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.0,
        batch_norm: bool = False,
        numbers: int = 0,
        contexts: tuple[int, int] = (0, 1),
        gate: int = 64,
        heads: int = 1,
    ) -> None:
        super().__init__()
        self.contexts = contexts
        self.embedding = FieldEmbedding(cardinalities, embedding_dim, numbers)
        width = self.embedding.width
        self.gates = nn.ModuleList(Gate(embedding_dim, gate, width) for _ in contexts)
        self.mlp_1 = MLP(width, hidden, dropout, batch_norm)
        self.mlp_2 = MLP(width, hidden, dropout, batch_norm)
        self.fusion = BilinearFusion(self.mlp_1.out, heads)
        glorot_linear(self)

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """ids: int64 [B, F], from 0 in each field; numbers: float32 [B, D]. Returns logits [B]."""
        v = self.embedding(ids, numbers)
        x = v.flatten(1)
        gated = [
            x * gate(v[:, field]) for gate, field in zip(self.gates, self.contexts, strict=True)
        ]
        return self.fusion(self.mlp_1(gated[0]), self.mlp_2(gated[1]))


@baseline("finalmlp")
@dataclass(frozen=True)
class FinalMLPBaseline(ClickBaseline):
    """FinalMLP on clicks. heads: of the bilinear fusion.

    The gates' contexts are the fields "user" and "item", the first and second field where the data
    do not name them so.
    """

    heads: int = 2

    def build(self, data: Dataset) -> FinalMLP:
        """A fresh model for the fields of `data`."""
        names = list(data.fields)
        user, item = (
            names.index(name) if name in names else place % len(names)
            for place, name in enumerate(("user", "item"))
        )
        return FinalMLP(**self.sizes(data), contexts=(user, item), heads=self.heads)
