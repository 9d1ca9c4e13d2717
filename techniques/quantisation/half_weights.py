"""What is served, its weights held and multiplied in half the bits of float32."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from techniques.base import Change, Context, Requires, Technique, technique
from techniques.precision.mixed import Autocast
from techniques.surgery import holdings

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)


def half_copy(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of `model` whose float32 weights and buffers are of `dtype`; all else is shared.

    Norms stay float32: their statistics need the digits, and they hold next to nothing. What
    shared memory in `model`, an index that is a view of a table for one, shares it in the copy.
    """
    norms = {id(t) for m in model.modules() if isinstance(m, NORMS) for t in holdings(m)}
    narrow: dict[int, Tensor] = {}  # by storage
    memo: dict[int, object] = {id(held): held for held in holdings(model)}
    for held in holdings(model):
        if type(held) not in (Tensor, nn.Parameter) or id(held) in norms:
            continue
        tensor = cast(Tensor, held)
        if tensor.dtype is torch.float32 and tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            if storage._cdata not in narrow:
                narrow[storage._cdata] = tensor.detach().new_empty(0).set_(storage).to(dtype)
            view = narrow[storage._cdata].as_strided(
                tensor.size(), tensor.stride(), tensor.storage_offset()
            )
            memo[id(held)] = nn.Parameter(view) if isinstance(held, nn.Parameter) else view
    return copy.deepcopy(model, memo)


class HalfWeights(Technique):
    """All float32 weights of what is served in `dtype`, and products in it."""

    dtype: ClassVar[torch.dtype]
    family = "precision"
    changes = frozenset({Change.NUMERICS, Change.SIZE})

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Narrow what is served, and call it under autocast, so that what other techniques hand
        on in float32 is narrowed too."""
        return Autocast(half_copy(predictor, self.dtype), context.device.type, self.dtype)


@technique("bf16-weights")
@dataclass(frozen=True)
class Bf16Weights(HalfWeights):
    """Weights of all layers, tables and indices in bfloat16, half the bytes; products in it too.

    Source: Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", arXiv:1905.12322,
    for the format, here after training in float32. Each weight is off by at most 2⁻⁸ of itself,
    each product by about twice that; sums are float32, answers are returned as float32. Norms
    stay float32. Expect the speed of `bf16`, whose weights are cast at every call, at half the
    memory: gains in large batches where the CPU has AVX512-BF16 or AMX, a loss at batch 1. A
    ranking score keeps 8 significant bits, so near ones tie.
    """

    dtype = torch.bfloat16
    requires = Requires(weights=True)


@technique("fp16-weights")
@dataclass(frozen=True)
class Fp16Weights(HalfWeights):
    """Weights of all layers, tables and indices in float16, half the bytes; products in it too.

    Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018, here after training in
    float32. Each weight is off by at most 2⁻¹¹ of itself, eight times less than in bfloat16, but
    what exceeds 65504, activations too, becomes infinite. Norms stay float32. For CUDA alone: on
    the CPU, PyTorch multiplies float16 by loops many times slower than float32's.
    """

    dtype = torch.float16
    requires = Requires(devices=frozenset({"cuda"}), weights=True)
