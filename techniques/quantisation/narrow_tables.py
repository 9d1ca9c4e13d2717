"""Embedding tables in fewer bits, chosen without training again: techniques for memory.

All on the CPU use kernels that PyTorch ships; torchao and FBGEMM's own package would add none.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from techniques.base import Change, Context, Requires, Technique, technique
from techniques.quantisation.narrow_embedding import (
    Bits,
    HalfEmbedding,
    NarrowEmbedding,
    QuantisedEmbedding,
    row_bytes,
)
from techniques.sizes import deployed_bytes
from techniques.surgery import copy_with, exactly


class NarrowTables(Technique):
    """Every table of a width that `fits` in a form of fewer bits."""

    family = "quantisation"
    requires = Requires(modules=(nn.Embedding,))
    changes = frozenset({Change.NUMERICS, Change.SIZE})
    multiple: ClassVar[int] = 1  # what a table's width has to be a multiple of

    @abstractmethod
    def narrow(self, weight: Tensor) -> NarrowEmbedding:
        """A table of fewer bits with the rows of `weight`, float32 [n, d]."""

    @abstractmethod
    def row_bytes(self, dim: int) -> int:
        """What one of its rows takes."""

    def _tables(self, model: nn.Module) -> list[nn.Embedding]:
        tables = exactly(model, nn.Embedding)
        return [table for table in tables if table.embedding_dim % self.multiple == 0]

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because no table has a width that the kernels take."""
        reason = super().reason_against(model, task, device)
        if reason is None and not self._tables(model):
            return f"finds no embedding table whose width is a multiple of {self.multiple}"
        return reason

    def explain(self, model: nn.Module, context: Context) -> str:
        """How much a row of each table can shrink, and how much of the model the tables are."""
        tables = self._tables(model)
        dims = sorted({table.embedding_dim for table in tables})
        rows = " and ".join(f"{d} numbers get {4 * d / self.row_bytes(d):.2f}×" for d in dims)
        held = deployed_bytes(model)
        share = sum(4 * table.num_embeddings * table.embedding_dim for table in tables) / held
        return (
            f"{self.name}: rows of {rows} smaller, what each needs beside included; their tables "
            f"are {share:.0%} of the model's bytes"
        )

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Replace the tables; the copy shares all other weights with `model`."""
        return copy_with(model, {t: self.narrow(t.weight) for t in self._tables(model)})


class QuantisedTables(NarrowTables):
    """Tables in `bits` bits, each row with a scale and a bias of its own."""

    bits: ClassVar[Bits]

    def narrow(self, weight: Tensor) -> QuantisedEmbedding:
        """See `QuantisedEmbedding`."""
        return QuantisedEmbedding(weight, self.bits)

    def row_bytes(self, dim: int) -> int:
        """Codes, scale and bias."""
        return row_bytes(dim, self.bits)


@technique("int8-embedding")
@dataclass(frozen=True)
class Int8Embedding(QuantisedTables):
    """Embedding tables in int8, each row with a scale and a bias of its own.

    Source: Guan et al., "Post-Training 4-bit Quantization on Embedding Tables",
    arXiv:1911.02079, with FBGEMM's 8-bit kernels. A technique for memory: the 8 bytes a row for
    scale and bias make 64 dimensions 3.56× smaller, not 4×, and 10 dimensions 2.2×; look-ups
    take 0.8 to 1.4× the time. Each weight is off by at most half its row's scale.
    """

    bits = 8


@technique("int4-embedding")
@dataclass(frozen=True)
class Int4Embedding(QuantisedTables):
    """Embedding tables in 4 bits, each row with a scale and a bias of its own.

    Source: Guan et al., "Post-Training 4-bit Quantization on Embedding Tables",
    arXiv:1911.02079, with FBGEMM's 4-bit kernels and each row's own range (the paper's searches
    for a better one are left out). 64 dimensions get 7.1× smaller, 16 dimensions 5.3×: scale and
    bias take 4 bytes a row. Each weight is off by at most half its row's scale, a thirtieth of
    the row's range, beside the rounding of scale and bias to float16. Tables of odd width stay.
    """

    bits = 4
    multiple = 2


@technique("int2-embedding")
@dataclass(frozen=True)
class Int2Embedding(QuantisedTables):
    """Embedding tables in 2 bits, each row with a scale and a bias of its own.

    Source: FBGEMM's 2-bit kernels, in the row format of Guan et al., arXiv:1911.02079. 64
    dimensions get 12.8× smaller, 16 dimensions 8×. Each weight is one of four values and off by
    up to a sixth of its row's range: expect to lose quality. Tables whose width is no multiple of
    4 stay.
    """

    bits = 2
    multiple = 4


@technique("fp16-embedding")
@dataclass(frozen=True)
class Fp16Embedding(NarrowTables):
    """Embedding tables in float16, read as float32.

    Source: IEEE 754 binary16, by PyTorch's own look-up and cast on every device. Half the bytes,
    whatever the width. Each weight is off by at most 2⁻¹¹ of itself, so expect no loss of
    quality; weights below 6·10⁻⁸ vanish, and those beyond ±65504 become infinite.
    """

    def narrow(self, weight: Tensor) -> HalfEmbedding:
        """See `HalfEmbedding`."""
        return HalfEmbedding(weight)

    def row_bytes(self, dim: int) -> int:
        """Two bytes a number."""
        return 2 * dim
