"""Arithmetic or optimiser state in fewer bits than float32, weights kept as they are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

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


class TensorFloat(nn.Module):
    """`predictor`, its float32 products as TF32; the process's own setting holds outside."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, *request: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Takes and gives what `predictor` does."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            answer: Tensor | tuple[Tensor, ...] = self.predictor(*request)
        finally:
            torch.set_float32_matmul_precision(before)
        return answer


class MixedPrecision(Technique):
    """Matrix products in `dtype`, in training and in serving."""

    dtype: ClassVar[torch.dtype]
    family = "precision"
    changes = frozenset({Change.NUMERICS})

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Enter autocast around every forward pass and loss."""
        autocast: Any = partial(torch.autocast, context.device.type, self.dtype)
        return dataclasses.replace(recipe, contexts=(*recipe.contexts, autocast))

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Serve under autocast."""
        return Autocast(predictor, context.device.type, self.dtype)


@technique("bf16")
@dataclass(frozen=True)
class Bf16(MixedPrecision):
    """Mixed precision: matrix products in bfloat16, in training and in serving.

    Source: `torch.autocast`; Micikevicius et al., "Mixed Precision Training", ICLR 2018.
    bfloat16 has float32's range, so the loss needs no scaling. Weights, optimiser state, logits
    and loss stay float32: nothing gets smaller. Expect 1.5× in training and more in large-batch
    inference where the CPU has AMX or AVX512-BF16, and a loss at batch 1, where the weights are
    cast anew at every call. A ranking score keeps 8 significant bits, so near ones tie.
    """

    dtype = torch.bfloat16
    requires = Requires(weights=True)


@technique("fp16")
@dataclass(frozen=True)
class Fp16(MixedPrecision):
    """Mixed precision: matrix products in float16, the loss scaled, in training and in serving.

    Source: `torch.autocast` and `torch.amp.GradScaler`; Micikevicius et al., "Mixed Precision
    Training", ICLR 2018. Three digits more than bfloat16's, in bits, and a range that ends at
    65504 and 6·10⁻⁸: the loss is scaled so that small gradients do not vanish, and a step whose
    gradients overflow is left out, the scale halved. Weights, optimiser state and logits stay
    float32. For CUDA, where tensor cores take either format alike: choose it over `bf16` for
    devices that lack that. On the CPU, PyTorch multiplies float16 slower than float32.
    """

    dtype = torch.float16
    requires = Requires(devices=frozenset({"cuda"}), weights=True)

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Enter autocast, and scale the loss."""
        return dataclasses.replace(super().train(recipe, context), scale_loss=True)


@technique("tf32")
@dataclass(frozen=True)
class Tf32(Technique):
    """Float32 matrix products by tensor cores, inputs rounded to 10 bits, in training and serving.

    Source: NVIDIA's TF32 format, by `torch.set_float32_matmul_precision`. Range and sums are
    float32's, nothing is held otherwise, and no call is cast; a product is off by at most 2⁻¹⁰ of
    itself. Expect gains in large products on Ampere and later, less than those of `bf16`.
    """

    family = "precision"
    requires = Requires(devices=frozenset({"cuda"}), weights=True)
    changes = frozenset({Change.NUMERICS})

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Allow TF32 in every step."""
        return dataclasses.replace(recipe, matmul_precision="high")

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Allow TF32 in every call."""
        return TensorFloat(predictor)


@technique("bf16-optimizer-state")
@dataclass(frozen=True)
class Bf16OptimizerState(Technique):
    """Adam's two moments held in bfloat16 between steps: half the optimiser's memory.

    Source: Rajbhandari et al., "ZeRO", SC 2020, section 3.1, counts what optimiser state takes;
    rounding is stochastic as in Gupta et al., arXiv:1502.02551. Weights, gradients and arithmetic
    stay float32. State is two numbers a weight, so of weights, gradients and state together a
    quarter goes. Sparse tables stay with SparseAdam, which updates its float32 moments in place
    by rows. Expect slower steps, since Adam's fused kernel takes no other type: it pays where
    tables are trained densely and memory is what runs out. What is served is as large as ever.
    """

    family = "precision"
    requires = Requires(weights=True)

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Hold the moments in bfloat16."""
        return dataclasses.replace(recipe, moments="bfloat16")
