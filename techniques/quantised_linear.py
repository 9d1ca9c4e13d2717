"""A linear layer in eight bits, whose inputs are quantised as they come."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import dynamic
from torch.ao.quantization import per_channel_dynamic_qconfig


class QuantisedLinear(dynamic.Linear):
    """`torch.ao.nn.quantized.dynamic.Linear` that also takes bfloat16, as autocast hands it.

    Weights are int8 with a scale for each output; an input is uint8 with a scale for the batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in]. Returns float32 [..., out]."""
        return super().forward(x.float())


def quantise_linear(layer: nn.Linear) -> QuantisedLinear:
    """`layer` in int8 by oneDNN where this build of torch has it, else by torch's own engine.

    oneDNN uses AMX where the CPU has it. It keeps the weights twice, as stored and as its kernel
    reads them, so a layer is half the size that it was, not a quarter.
    """
    observed = copy.copy(layer)
    observed.qconfig = per_channel_dynamic_qconfig  # type: ignore[assignment]
    engine = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
        if "onednn" in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = "onednn"
        try:
            quantised: QuantisedLinear = QuantisedLinear.from_float(observed)
        finally:
            torch.backends.quantized.engine = engine
    return quantised
