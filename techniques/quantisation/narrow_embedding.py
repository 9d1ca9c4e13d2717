"""Embedding tables in fewer bits than float32's, each in place of an `nn.Embedding`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Bits = Literal[8, 4, 2]


class NarrowEmbedding(nn.Module):
    """Takes the place of an `nn.Embedding` at inference: ids of any shape to float32 [..., d].

    It holds rows as some code; only those that are asked for become float32.
    """

    table: Tensor  # [n, what a row takes]

    def __init__(self, weight: Tensor) -> None:
        """weight: float32 [n, d]. It is read, not kept."""
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.register_buffer("table", self.encode(weight.detach().float()))

    @abstractmethod
    def encode(self, weight: Tensor) -> Tensor:
        """Rows of float32 [n, d] as they are held, on the same device."""

    @abstractmethod
    def decode(self, rows: Tensor) -> Tensor:
        """Rows as they are held to float32 [N, d]."""

    @property
    def weight(self) -> Tensor:
        """The whole table in float32 [n, d], for code that reads an embedding's weight itself."""
        return self.decode(self.table)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int32 or int64 [...], in 0…n−1. Returns float32 [..., d]."""
        return self.look_up(ids.reshape(-1)).view(*ids.shape, self.embedding_dim)

    def look_up(self, ids: Tensor) -> Tensor:
        """ids: [N]. Returns float32 [N, d]."""
        return self.decode(self.table.index_select(0, ids))

    def extra_repr(self) -> str:
        """The sizes, as `nn.Embedding` prints them."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class HalfEmbedding(NarrowEmbedding):
    """Rows in float16: each weight within 2⁻¹¹ of its own size, or 2⁻²⁵ where that is more.

    Weights beyond ±65504 become infinite.
    """

    def encode(self, weight: Tensor) -> Tensor:
        """float32 [n, d] to float16 [n, d]."""
        return weight.half()

    def decode(self, rows: Tensor) -> Tensor:
        """float16 [N, d] to float32 [N, d]."""
        return rows.float()


class QuantisedEmbedding(NarrowEmbedding):
    """Rows in `bits` bits a number, with a scale and a bias for each row.

    A row w becomes codes q = round((w − bias) / scale) in 0…k, k = 2^bits − 1, with bias = min w
    and scale = (max w − min w) / k, so each weight comes back within scale / 2 of what it was.
    In 8 bits scale and bias are float32 and a row takes d + 8 bytes; in 4 and 2 they are float16
    and it takes d · bits / 8 + 4, and rounding them adds up to 2⁻¹¹ of the row's largest weight
    and of its range (2⁻²⁵ · k where that is more). Layout, and the look-up on the CPU, are
    FBGEMM's as PyTorch ships it: Guan et al., "Post-Training 4-bit Quantization on Embedding
    Tables", arXiv:1911.02079. On other devices rows are decoded by plain tensor operations.
    """

    def __init__(self, weight: Tensor, bits: Bits) -> None:
        """weight: float32 [n, d], d · bits a multiple of 8. It is read, not kept."""
        self.bits = bits
        super().__init__(weight)

    def encode(self, weight: Tensor) -> Tensor:
        """float32 [n, d] to uint8 [n, row_bytes(d, bits)]."""
        return _operator(self.bits, "prepack")(weight.cpu()).to(weight.device)

    def decode(self, rows: Tensor) -> Tensor:
        """uint8 [N, row_bytes(d, bits)] to float32 [N, d]. A byte's lowest bits come first."""
        tail = _tail(self.bits)
        kind = torch.float32 if self.bits == 8 else torch.float16
        scale, bias = rows[:, -tail:].contiguous().view(kind).float().split(1, dim=1)
        shifts = torch.arange(0, 8, self.bits, dtype=torch.uint8, device=rows.device)
        codes = (rows[:, :-tail, None] >> shifts) & (2**self.bits - 1)
        return torch.addcmul(bias, codes.flatten(1).float(), scale)

    def look_up(self, ids: Tensor) -> Tensor:
        """As any narrow embedding; on the CPU by FBGEMM's kernel, which sums bags of ids."""
        if not ids.is_cpu:
            return super().look_up(ids)
        bags = torch.arange(ids.shape[0], dtype=ids.dtype)  # one id each
        return _operator(self.bits, "rowwise_offsets")(self.table, ids, bags)

    def extra_repr(self) -> str:
        """The sizes and the bits."""
        return f"{super().extra_repr()}, bits={self.bits}"


def row_bytes(dim: int, bits: Bits) -> int:
    """What a quantised row of `dim` numbers takes, its scale and bias included."""
    return dim * bits // 8 + _tail(bits)


def _tail(bits: Bits) -> int:
    """Bytes of a row's scale and bias, which stand after its codes."""
    return 8 if bits == 8 else 4


def _operator(bits: Bits, name: str) -> Callable[..., Tensor]:
    """FBGEMM's operator for `bits`: ``prepack`` or ``rowwise_offsets``."""
    kind = "byte" if bits == 8 else f"{bits}bit"
    operator: Callable[..., Tensor] = getattr(torch.ops.quantized, f"embedding_bag_{kind}_{name}")
    return operator
