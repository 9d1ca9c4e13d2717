"""Linear layers whose weights alone are held in 8 or 4 bits; products are bfloat16's."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from techniques.base import Context, Requires, technique
from techniques.quantisation.linear import WideLinear
from techniques.quantisation.quantised_linear import weight_scale
from techniques.surgery import copy_with

FEW = 16  # rows up to which the kernel that reads int8 beats casting the weights first
BLOCK = 16  # numbers that the kernels read at once; fewer left over are read past the end
GROUP = 32  # weights of an output that share a scale in 4 bits


class NarrowLinear(nn.Module):
    """Takes the place of an `nn.Linear` at inference. Inputs are rounded to bfloat16."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        self.hold(layer.weight.detach())

    @abstractmethod
    def hold(self, weight: Tensor) -> None:
        """Keep `weight`, float32 [out, in], in fewer bits."""

    @abstractmethod
    def product(self, x: Tensor) -> Tensor:
        """x: bfloat16 [N, in]. Returns its product with the weights, [N, out]."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in]. Returns float32 [..., out]."""
        flat = x.reshape(-1, self.in_features).bfloat16().contiguous()
        answer = self.product(flat).float().view(*x.shape[:-1], self.out_features)
        return answer if self.bias is None else answer + self.bias.float()

    def extra_repr(self) -> str:
        """The sizes, as `nn.Linear` prints them."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


class Int8WeightLinear(NarrowLinear):
    """Weights in int8, with a scale in bfloat16 for each output.

    A weight is off by at most half its output's scale, and the greatest by a whole one.
    """

    codes: Tensor
    scale: Tensor

    def hold(self, weight: Tensor) -> None:
        """See the class."""
        scale = weight_scale(weight).bfloat16()
        codes = (weight / scale.float()[:, None]).round().clamp(-128, 127)
        self.register_buffer("codes", codes.to(torch.int8))
        self.register_buffer("scale", scale)

    def product(self, x: Tensor) -> Tensor:
        """As in the base class. For few rows by a kernel that reads int8, where it is sound."""
        if x.is_cpu and 0 < len(x) <= FEW and self.in_features % BLOCK == 0:
            return torch._weight_int8pack_mm(x, self.codes, self.scale)
        return functional.linear(x, self.codes.to(x.dtype)).float() * self.scale


class Int4WeightLinear(NarrowLinear):
    """Weights in 4 bits; each `GROUP` of an output's share a scale and a middle in bfloat16.

    A weight is off by at most half its group's scale, a thirtieth of the group's range, and by
    what rounding scale and middle adds.
    """

    packed: Tensor
    scales: Tensor

    def hold(self, weight: Tensor) -> None:
        """See the class. weight: a multiple of GROUP inputs, of BLOCK outputs."""
        groups = weight.unflatten(1, (-1, GROUP))
        low, high = groups.amin(2), groups.amax(2)
        step = ((high - low) / 15).clamp(min=torch.finfo(torch.float32).tiny).bfloat16()
        middle = (low + 8 * step.float()).bfloat16()  # what code 8 stands for
        codes = ((groups - middle.float()[..., None]) / step.float()[..., None]).round() + 8
        codes = codes.clamp(0, 15).flatten(1).to(torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        self.register_buffer("packed", packed)
        self.register_buffer("scales", torch.stack((step, middle), 2).transpose(0, 1).contiguous())

    def product(self, x: Tensor) -> Tensor:
        """As in the base class."""
        if not len(x):
            return x.new_empty(0, self.out_features)
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x, self.packed, GROUP, self.scales
        )
        return product


@technique("int8-weight-only")
@dataclass(frozen=True)
class Int8WeightOnly(WideLinear):
    """Weights in int8 for linear layers whose inputs and outputs number `min_width` or more.

    Source: the W8A16 scheme of Frantar et al., "GPTQ", arXiv:2210.17323, section 2, with plain
    rounding and a scale for each output, by PyTorch's `_weight_int8pack_mm`. Inputs are rounded
    to bfloat16, not to 8 bits, so it errs less than `int8-linear` and needs no ranges. Layers are
    a quarter the size. A technique for memory and for small batches of wide layers, which wait
    for the weights: expect gains up to about ten rows on a CPU with AVX512. Beyond, the weights
    are cast at every call: a loss unless the product is large, and always against `bf16-weights`.
    """

    requires = Requires(modules=(nn.Linear,))

    def explain(self, model: nn.Module, context: Context) -> str:
        """The widths, and what narrow ones cost."""
        return f"{self.widths(model)}, with weights a quarter as large"

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Replace the wide layers; the copy shares all other weights with `model`."""
        return copy_with(model, {layer: Int8WeightLinear(layer) for layer in self.wide(model)})


@technique("int4-weight-only")
@dataclass(frozen=True)
class Int4WeightOnly(WideLinear):
    """Weights in 4 bits for linear layers whose inputs and outputs number `min_width` or more.

    Source: the W4A16 scheme of Frantar et al., "GPTQ", arXiv:2210.17323, section 2, with plain
    rounding in groups of 32, by PyTorch's `_weight_int4pack_mm_for_cpu`. Layers are 6.4× smaller.
    Inputs are rounded to bfloat16. Layers whose inputs are no multiple of 32, or outputs of 16,
    stay. Expect gains at every batch where the CPU has AVX512, those of bfloat16 at most, and a
    loss of quality that wants measuring. For the CPU alone: CUDA packs the same bits otherwise.
    """

    def wide(self, model: nn.Module) -> list[nn.Linear]:
        """The wide layers that the kernel takes."""
        wide = super().wide(model)
        return [m for m in wide if m.in_features % GROUP == 0 and m.out_features % BLOCK == 0]

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As for every wide layer, or because the kernel takes none."""
        reason = super().reason_against(model, task, device)
        if reason and reason.endswith(" wide"):
            return f"{reason} whose inputs are a multiple of {GROUP} and outputs of {BLOCK}"
        return reason

    def explain(self, model: nn.Module, context: Context) -> str:
        """The widths of the layers that change."""
        return f"{self.widths(model)}, with weights 6.4 times smaller"

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Replace the layers that the kernel takes; the copy shares all other weights."""
        return copy_with(model, {layer: Int4WeightLinear(layer) for layer in self.wide(model)})
