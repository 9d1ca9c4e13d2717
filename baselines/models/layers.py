"""Bricks that several models share: field embeddings, a multilayer perceptron, cheap dropout, unit
vectors, the causal mask, initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.errors import LeanRecError

LEVELS = 256  # of a random byte
WIDE = 16  # numbers in a row from which torch sums whole rows fast


class RowSums(torch.autograd.Function):
    """The vectors that were looked up in a table, with a gradient that is summed fast on a CPU.

    It is that of `nn.Embedding`, dense, whose own takes a call for each row that was looked up.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, vectors: Tensor) -> Tensor:
        """weight: [n, d]. ids: int64 [...]. vectors: [..., d], the rows of these ids."""
        ctx.save_for_backward(ids)
        ctx.shape = weight.shape
        return vectors

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """grad: [..., d]. Returns that of the weight."""
        ids, (count, dim) = ctx.saved_tensors[0].flatten(), ctx.shape
        grad = grad.reshape(-1, dim)
        if dim >= WIDE:
            return grad.new_zeros(count, dim).index_add_(0, ids, grad), None, None
        summed = grad.new_empty(count, dim)
        for k, column in enumerate(grad.t().contiguous()):
            summed[:, k] = column.new_zeros(count).index_add_(0, ids, column)
        return summed, None, None


class FieldEmbedding(nn.Module):
    """One vector for each field of a row: looked up for an id, a multiple for a number.

    One table holds the rows of all id fields, one after another; `cardinalities` says how many each
    has. Column k of the numbers times its own learned vector is that column's vector. All start
    from N(0, std²). Ids outside their field are not checked: they read another field's row.
    """

    offsets: Tensor

    def __init__(
        self, cardinalities: Sequence[int], dim: int, numbers: int = 0, std: float = 1e-4
    ) -> None:
        super().__init__()
        starts = torch.tensor([0, *cardinalities], dtype=torch.int64).cumsum(0)
        self.register_buffer("offsets", starts[:-1].clone(), persistent=False)
        # from_pretrained leaves out nn.Embedding's own initialisation, a pass over the whole table.
        table = torch.empty(sum(cardinalities), dim)
        self.table = nn.Embedding.from_pretrained(table, freeze=False)
        nn.init.normal_(self.table.weight, std=std)
        self.numbers = nn.Parameter(torch.empty(numbers, dim)) if numbers else None
        if self.numbers is not None:
            nn.init.normal_(self.numbers, std=std)
        self.width = (len(cardinalities) + numbers) * dim

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """ids: int64 [B, F], counted from 0 within each field; numbers: float32 [B, D].

        Returns [B, F + D, dim], the id fields first.
        """
        vectors = self._look_up(ids + self.offsets)
        if self.numbers is None or numbers is None:
            return vectors
        return torch.cat((vectors, numbers.unsqueeze(2) * self.numbers), dim=1)

    def _look_up(self, ids: Tensor) -> Tensor:
        table = self.table
        plain = type(table) is nn.Embedding and not table.sparse and ids.device.type == "cpu"
        # In evaluation mode autograd's graph stays that of the layers, for who reads them off it.
        if not (plain and self.training and torch.is_grad_enabled()):
            return table(ids)
        with torch.no_grad():
            vectors = table(ids)
        summed: Tensor = RowSums.apply(table.weight, ids, vectors)
        return summed


class FastDropout(nn.Module):
    """Dropout whose mask is made of random bytes, an eighth of the random words of nn.Dropout.

    An element is dropped where its byte is below round(256·p): p is rounded to a multiple of 1/256.
    What stays is scaled by the rate that results, so the expectation is that of the input, exactly
    but for rounding. The bytes come from torch's global generator. Raises LeanRecError unless
    0 ≤ p ≤ 255/256.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= (LEVELS - 1) / LEVELS:
            raise LeanRecError(
                f"A dropout rate of {p} is not between 0 and 255/256.",
                "No model was built.",
                "Give the share of units to drop, such as 0.2.",
            )
        self.dropped = round(LEVELS * p)  # byte values, of 256, that drop an element

    def forward(self, x: Tensor) -> Tensor:
        """x: any shape. Returns the same shape and type; `x` itself in evaluation mode."""
        if not self.training or not self.dropped:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
        words.random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape).ge_(self.dropped)
        # Bytes compared in place and a mask of x's type are the fastest: booleans are not
        # vectorised.
        return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - self.dropped))

    def extra_repr(self) -> str:
        """The rate in use."""
        return f"p={self.dropped}/{LEVELS}"


class UnitVectors(nn.Module):
    """The rows of `table` at length 1: inner products with unit states are then cosines."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64, any shape. Returns the same shape and d; the padding row stays zero."""
        return functional.normalize(self.table(ids), dim=-1)


class MLP(nn.Sequential):
    """Hidden layers, each a linear map, batch normalisation if asked for, ReLU and dropout.

    A bias before a normalisation would be taken off with the mean, so there is none. width: of the
    input. hidden: units of each layer. Its output is the last layer's, [B, out].
    """

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        sizes = (width, *hidden)
        for fan_in, fan_out in pairwise(sizes):
            layers.append(nn.Linear(fan_in, fan_out, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(fan_out))
            layers.append(nn.ReLU())
            if dropout > 0:
                layers.append(FastDropout(dropout))
        super().__init__(*layers)
        self.out = sizes[-1]


def glorot_linear(model: nn.Module) -> None:
    """Draw the weights of all linear layers by Glorot's normal rule and set their biases to zero.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def causal_mask(real: Tensor) -> Tensor:
    """bool [B, 1, L, L]: a place reads itself and the real places (bool [B, L]) before it."""
    length = real.shape[1]
    ones = torch.ones(length, length, dtype=torch.bool, device=real.device)
    return (ones.tril() & real[:, None, None, :]) | torch.eye(
        length, dtype=torch.bool, device=real.device
    )


def small_weights(model: nn.Module, std: float = 0.02) -> None:
    """Tables and linear weights from N(0, std²), biases zero, the padding row zero."""
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.Linear)):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
