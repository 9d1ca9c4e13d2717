"""Linear layers in float8, by torchao; for CUDA devices that multiply it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from techniques.base import Change, Context, Requires, Technique, technique
from techniques.surgery import copy_with

MULTIPLE = 16  # of inputs and outputs, for the kernels
CAPABILITY = (8, 9)  # the first with tensor cores for float8


@technique("fp8")
@dataclass(frozen=True)
class Fp8(Technique):
    """Linear layers with weights and inputs in float8 (e4m3), each tensor with a scale of its own.

    Source: Micikevicius et al., "FP8 Formats for Deep Learning", arXiv:2209.05433, by torchao's
    `Float8DynamicActivationFloat8WeightConfig`. Each number keeps 4 significant bits. Layers are a
    quarter the size. Expect gains in large products alone: scaling the inputs costs a pass over
    them at every call. Layers whose inputs or outputs are no multiple of 16 stay. Needs a device of
    compute capability 8.9 (Ada, Hopper).
    """

    family = "quantisation"
    requires = Requires(
        devices=frozenset({"cuda"}), packages=frozenset({"torchao"}), modules=(nn.Linear,)
    )
    changes = frozenset({Change.NUMERICS, Change.SIZE})

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because the device or every layer is of the wrong kind."""
        reason = super().reason_against(model, task, device)
        if reason is None and not any(_fits(module) for module in model.modules()):
            return f"finds no linear layer whose inputs and outputs are multiples of {MULTIPLE}"
        if reason is None and torch.cuda.is_available():
            found = torch.cuda.get_device_capability()
            if found < CAPABILITY:
                return f"needs compute capability 8.9, and the device has {found[0]}.{found[1]}"
        return reason

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Replace the weights of layers that fit; all others are shared with `predictor`."""
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, quantize_

        narrow = copy_with(predictor)
        config = Float8DynamicActivationFloat8WeightConfig(set_inductor_config=False)
        quantize_(narrow, config, filter_fn=lambda module, _: _fits(module))
        return narrow


def _fits(module: nn.Module) -> bool:
    if type(module) is not nn.Linear:
        return False
    return module.in_features % MULTIPLE == 0 and module.out_features % MULTIPLE == 0
