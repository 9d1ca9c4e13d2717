"""Linear layers in eight bits: inputs quantised as they come, by a fixed range, or only in play."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import dynamic
from torch.ao.quantization import per_channel_dynamic_qconfig
from torch.nn import functional

LEVELS = 127  # steps of an input's range: 7 bits, of which no CPU's 16-bit sums overflow


class QuantisedLinear(dynamic.Linear):
    """`torch.ao.nn.quantized.dynamic.Linear` that also takes bfloat16, as autocast hands it.

    Weights are int8 with a scale for each output; an input is uint8 with a scale for the batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in]. Returns float32 [..., out]."""
        return super().forward(x.float())


def quantise_linear(layer: nn.Linear, engine: str = "fbgemm") -> QuantisedLinear:
    """`layer` in int8 by `engine` where this build of torch has it, else by the build's own.

    FBGEMM, which x86 builds have, keeps the weights once, as its kernel reads them, so a layer is a
    quarter the size that it was; oneDNN keeps them twice. Both give inputs 7 bits, so that no CPU's
    16-bit sums overflow, and the same answers.
    """
    observed = nn.Linear(layer.in_features, layer.out_features, device="meta")
    observed.weight, observed.bias = layer.weight, layer.bias
    observed.qconfig = per_channel_dynamic_qconfig  # type: ignore[assignment]
    with _packing(engine):
        quantised: QuantisedLinear = QuantisedLinear.from_float(observed)
    return quantised


class StaticLinear(nn.Module):
    """Takes the place of an `nn.Linear` at inference; inputs are quantised by a fixed range.

    Weights are int8 with a scale for each output. Inputs have 127 steps over [low, high] and the
    rest of 8 bits, 128 steps more, above it; what lies beyond counts as the nearer end. A row's
    answer does not depend on its batch. By FBGEMM, so a layer is a quarter the size that it was.
    """

    def __init__(self, layer: nn.Linear, low: float, high: float) -> None:
        """low ≤ 0 ≤ high: the range of an input, low < high."""
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.scale = (high - low) / LEVELS
        self.zero_point = round(-low / self.scale)
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        scales = weight_scale(weight)
        with _packing("fbgemm"):
            codes = torch.quantize_per_channel(
                weight, scales, torch.zeros_like(scales, dtype=torch.int64), 0, torch.qint8
            )
            self.packed = torch.ops.quantized.linear_prepack(codes, bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in]. Returns float32 [..., out]."""
        product: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x.float(), self.scale, self.zero_point, self.packed
        )
        return product

    def extra_repr(self) -> str:
        """The sizes and the range."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"scale={self.scale:.3g}, zero_point={self.zero_point}"
        )


class FakeQuantisedLinear(nn.Linear):
    """An `nn.Linear` for training that multiplies what `QuantisedLinear` would: Jacob et al. 2018.

    Weights and inputs are rounded to the values that int8 holds, by the scales of the moment;
    gradients pass the rounding as if it were not there. Parameters have the layer's own names.
    """

    @classmethod
    def of(cls, layer: nn.Linear) -> FakeQuantisedLinear:
        """A layer with the parameters of `layer`, shared."""
        bias = layer.bias is not None
        made = cls(layer.in_features, layer.out_features, bias, device="meta")
        made.weight, made.bias = layer.weight, layer.bias
        return made

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in]. Returns [..., out]."""
        x, weight = x.float(), self.weight
        scale, zero_point = torch._choose_qparams_per_tensor(x.detach(), reduce_range=True)
        scales = weight_scale(weight.detach())
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        rounded = torch.fake_quantize_per_tensor_affine(x.detach(), scale, zero_point, 0, LEVELS)
        rows = torch.fake_quantize_per_channel_affine(weight.detach(), scales, zeros, 0, -128, 127)
        return functional.linear(_as_if(x, rounded), _as_if(weight, rows), self.bias)


def _as_if(exact: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of `exact`; also that of each row's largest weight, which
    torch's own rounding takes for clipped."""
    return exact + (rounded - exact).detach()


def weight_scale(weight: Tensor) -> Tensor:
    """What a step of int8 stands for in each row of `weight`, float32 [out, in]: [out]."""
    smallest = torch.finfo(torch.float32).eps
    return (weight.abs().amax(1) / 127.5).clamp(min=smallest)


@contextmanager
def _packing(engine: str) -> Iterator[None]:
    """Pack weights for `engine`, where this build of torch has it; silently, and leave no trace."""
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"torch\.quantize_per_")
        if engine in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = engine
        try:
            yield
        finally:
            torch.backends.quantized.engine = before
