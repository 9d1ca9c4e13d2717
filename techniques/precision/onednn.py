"""Float32 linear layers by oneDNN's matrix product in place of the one that PyTorch chooses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from techniques.base import Context, Requires, Technique, technique
from techniques.surgery import copy_with, exactly

WORK = 2**20  # multiplications from which on the faster product outweighs its dearer call


class OneDNNLinear(nn.Module):
    """Takes the place of an `nn.Linear` at inference on the CPU and shares its weights.

    Sums are float32's, taken in another order. Small products, and those
    that autocast wants in another type, stay with `functional.linear`.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in]. Returns [..., out]."""
        weight, bias = self.weight, self.bias
        if x.numel() * len(weight) < WORK or torch.is_autocast_enabled("cpu"):
            return functional.linear(x, weight, bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product

    def extra_repr(self) -> str:
        """The sizes, as `nn.Linear` prints them."""
        out_features, in_features = self.weight.shape
        return f"in_features={in_features}, out_features={out_features}"


@technique("onednn-fp32")
@dataclass(frozen=True)
class OneDNNFp32(Technique):
    """Linear layers of what is served by oneDNN's float32 product; nothing is rounded.

    Source: oneDNN, as PyTorch's own compiler calls it. In eager mode PyTorch takes float32
    products from MKL, whose fastest code is kept for Intel's processors. Expect about twice the
    speed of the products where they are large (batches of hundreds) and the processor is AMD's
    with AVX512, and nothing on Intel's; products of under a million multiplications are left where
    they are. Answers differ in their last bits. Where this pays, a control in plain eager mode is
    not the processor's fastest float32: a gain of int8 or bfloat16 over it is partly this.
    """

    family = "graph"
    requires = Requires(devices=frozenset({"cpu"}), modules=(nn.Linear,))

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because torch was built without oneDNN."""
        if not torch.backends.mkldnn.is_available():
            return "needs a torch built with oneDNN"
        return super().reason_against(model, task, device)

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Replace the linear layers; all weights are shared with `predictor`."""
        return copy_with(predictor, {m: OneDNNLinear(m) for m in exactly(predictor, nn.Linear)})
