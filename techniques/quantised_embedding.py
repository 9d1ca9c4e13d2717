"""An embedding table in eight bits, with a scale and a bias for each row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TAIL = 8  # bytes after the codes of a row: its scale and its bias, float32 each


class QuantisedEmbedding(nn.Module):
    """Takes the place of an `nn.Embedding` at inference: ids of any shape to float32 [..., d].

    A row w becomes codes q = round((w − bias) / scale) in 0…255, with bias = min w and
    scale = (max w − min w) / 255, so each weight comes back within scale / 2 of what it was.
    A row takes d + 8 bytes. Layout and lookup on the CPU are FBGEMM's: Guan et al.,
    "Post-Training 4-bit Quantization on Embedding Tables", arXiv:1911.02079.
    """

    table: Tensor  # uint8 [n, d + TAIL]

    def __init__(self, weight: Tensor) -> None:
        """weight: float32 [n, d]. It is read, not kept."""
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        packed = torch.ops.quantized.embedding_bag_byte_prepack(weight.detach().float().cpu())
        self.register_buffer("table", packed.to(weight.device))

    @property
    def weight(self) -> Tensor:
        """The whole table in float32 [n, d], for code that reads an embedding's weight itself."""
        return self._decode(self.table)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int32 or int64 [...], in 0…n−1. Returns float32 [..., d]."""
        flat = ids.reshape(-1)
        rows = self._look_up(flat) if flat.is_cpu else self._decode(self.table[flat])
        return rows.view(*ids.shape, self.embedding_dim)

    def _look_up(self, ids: Tensor) -> Tensor:
        """Rows of `ids` [N] by FBGEMM's kernel, which sums bags: here each bag is one id."""
        bags = torch.arange(len(ids), dtype=ids.dtype)
        return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(self.table, ids, bags)

    def _decode(self, rows: Tensor) -> Tensor:
        """Packed rows, uint8 [N, d + TAIL], to float32 [N, d]."""
        scale, bias = rows[:, -TAIL:].contiguous().view(torch.float32).split(1, dim=1)
        return torch.addcmul(bias, rows[:, :-TAIL].float(), scale)

    def extra_repr(self) -> str:
        """The sizes, as `nn.Embedding` prints them."""
        return f"{self.num_embeddings}, {self.embedding_dim}"
