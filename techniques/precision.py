"""Arithmetic in fewer bits than float32, weights kept as they are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from baselines.base import Recipe
from techniques.base import Change, Context, Requires, Technique, technique


class Autocast(nn.Module):
    """`predictor` under autocast to `dtype`; floating-point answers come back as float32."""

    def __init__(self, predictor: nn.Module, device_type: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.predictor, self.device_type, self.dtype = predictor, device_type, dtype

    def forward(self, *request: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Takes and gives what `predictor` does."""
        with torch.autocast(self.device_type, self.dtype):
            answer = self.predictor(*request)
        return _float32(answer) if isinstance(answer, Tensor) else tuple(map(_float32, answer))


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


@technique("bf16")
@dataclass(frozen=True)
class Bf16(Technique):
    """Mixed precision: matrix products in bfloat16, in training and in serving.

    Source: `torch.autocast`; Micikevicius et al., "Mixed Precision Training", ICLR 2018.
    bfloat16 has float32's range, so the loss needs no scaling. Weights, optimiser state, logits
    and loss stay float32: nothing gets smaller. Expect 1.5× in training and more in large-batch
    inference where the CPU has AMX or AVX512-BF16, and a loss at batch 1, where the weights are
    cast anew at every call. A ranking score keeps 8 significant bits, so near ones tie.
    """

    family = "precision"
    requires = Requires(weights=True)
    changes = frozenset({Change.NUMERICS})

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Enter autocast around every forward pass and loss."""
        autocast: Any = partial(torch.autocast, context.device.type, torch.bfloat16)
        return dataclasses.replace(recipe, contexts=(*recipe.contexts, autocast))

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Serve under autocast."""
        return Autocast(predictor, context.device.type, torch.bfloat16)
