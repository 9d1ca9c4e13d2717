"""Two of every four weights zero: the one sparsity that a GPU multiplies faster."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.sparse import to_sparse_semi_structured

from techniques.base import Change, Context, Requires, Technique, technique
from techniques.pruning.magnitude import Epochs
from techniques.pruning.sparsity import two_of_four, zeroed
from techniques.surgery import copy_with, exactly

ROWS, COLUMNS = 32, 64  # the kernels take half-precision weights in multiples of these
AMPERE = (8, 0)  # the first compute capability with sparse tensor cores


class HalfSparseLinear(nn.Module):
    """A linear map in half precision whose weight holds two of every four numbers."""

    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        """layer: on CUDA, two of every four neighbours in a row of its weight zero."""
        super().__init__()
        weight = to_sparse_semi_structured(layer.weight.detach().half())
        self.weight = nn.Parameter(weight, requires_grad=False)
        bias = None if layer.bias is None else layer.bias.detach().half()
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in], of any floating type. Returns [..., out] of the same."""
        return functional.linear(x.half(), self.weight, self.bias).to(x.dtype)


@technique("prune-2to4")
@dataclass(frozen=True)
class PruneTwoToFour(Technique):
    """Zero the lesser two of every four neighbouring weights, and multiply by the others alone.

    Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, arXiv:2104.08378, with
    `torch.sparse.to_sparse_semi_structured`. Sparse tensor cores skip the zeros: at most twice the
    products of dense ones a second, reached by none but large layers at large batches. The zeros
    alone, without such a GPU, make nothing faster. Weights and products are in half precision.
    Layers count whose outputs are a multiple of 32 and inputs of 64; the others stay. As in the
    paper, training afterwards (`fine_tune` epochs, zeros held) brings quality back.
    """

    fine_tune: Epochs = 0
    family = "pruning"
    requires = Requires(devices=frozenset({"cuda"}), modules=(nn.Linear,))
    changes = frozenset({Change.NUMERICS, Change.SIZE})

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because the GPU or the layers' shapes do not allow it."""
        reason = super().reason_against(model, task, device)
        if torch.cuda.is_available() and torch.cuda.get_device_capability() < AMPERE:
            return reason or "needs sparse tensor cores, which this GPU does not have"
        if reason is None and not _fitting(model):
            return f"finds no linear layer of {ROWS}·n outputs and {COLUMNS}·m inputs"
        return reason

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Zero weights of a copy, which holds them as plain ones."""
        masks = {layer: two_of_four(layer.weight) for layer in _fitting(model)}
        return zeroed(model, masks, lambda m: context.tune(m, self.fine_tune))

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Compress the layers that still have their zeros."""
        sparse = [
            layer
            for layer in _fitting(predictor)
            if (layer.weight.unflatten(1, (-1, 4)) != 0).sum(-1).max() <= 2
        ]
        return copy_with(predictor, {layer: HalfSparseLinear(layer) for layer in sparse})


def _fitting(model: nn.Module) -> list[nn.Linear]:
    return [
        layer
        for layer in exactly(model, nn.Linear)
        if layer.out_features % ROWS == 0 and layer.in_features % COLUMNS == 0
    ]
