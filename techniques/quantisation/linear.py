"""Linear layers whose inputs and weights are multiplied in int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from baselines.errors import LeanRecError
from techniques.base import Change, Context, Requires, Technique, technique
from techniques.quantisation.calibration import input_ranges
from techniques.quantisation.quantised_linear import (
    FakeQuantisedLinear,
    StaticLinear,
    quantise_linear,
)
from techniques.surgery import copy_with, exactly


@dataclass(frozen=True)
class WideLinear(Technique):
    """Linear layers whose inputs and outputs both number `min_width` or more, in fewer bits."""

    min_width: Annotated[int, Field(ge=1)] = 64
    family = "quantisation"
    requires = Requires(devices=frozenset({"cpu"}), modules=(nn.Linear,))
    changes = frozenset({Change.NUMERICS, Change.SIZE})

    def wide(self, model: nn.Module) -> list[nn.Linear]:
        """The layers of `model` that are wide enough, each once."""
        linear = [*exactly(model, nn.Linear), *exactly(model, FakeQuantisedLinear)]
        return [m for m in linear if min(m.in_features, m.out_features) >= self.min_width]

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because no layer is wide enough, or none that is is served."""
        reason = super().reason_against(model, task, device)
        if reason is None and task == "retrieval" and not self.wide(getattr(model, "user", model)):
            return "finds no wide linear layer but in the item tower, which is not served"
        if reason is None and not self.wide(model):
            return f"finds no linear layer at least {self.min_width} wide"
        return reason

    def widths(self, model: nn.Module) -> str:
        """The widths that decide what to expect, in words."""
        widths = sorted({min(m.in_features, m.out_features) for m in self.wide(model)})
        return f"{self.name}: layers {' and '.join(map(str, widths))} wide"


@technique("int8-linear")
@dataclass(frozen=True)
class Int8Linear(WideLinear):
    """Dynamic int8 for linear layers whose inputs and outputs both number `min_width` or more.

    Source: dynamic quantisation of `torch.ao.nn.quantized`. Weights are int8 with a scale for
    each output; inputs are quantised at every call, with one scale for the batch, so an answer
    depends a little on the requests that share its batch; steps of an input are 6·10⁻⁵ at least, so
    inputs that are all smaller are lost. Layers are a quarter the size.
    Expect 3× and more on 1024-wide layers where the CPU has AVX512-VNNI. Layers under about 128
    wide, at few rows under 256 and at batch 1 under about 512, get slower: quantising their inputs
    costs more than it saves. The engine on x86 is FBGEMM, which on such a CPU beats oneDNN at few
    rows, keeps pace in large products (`leanrec speed kernels` shows both) and holds the weights
    once, where oneDNN holds them twice. It makes no use of AMX; where the CPU has it, measure
    `onnxruntime-int8` too.
    """

    def explain(self, model: nn.Module, context: Context) -> str:
        """The widths that decide whether int8 pays."""
        return (
            f"{self.widths(model)}; int8 pays from about 128 at large batches and from about 512 "
            "at batch 1"
        )

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Replace the wide layers; the copy shares all other weights with `model`."""
        return copy_with(model, {layer: quantise_linear(layer) for layer in self.wide(model)})


@technique("qat-int8")
@dataclass(frozen=True)
class QatInt8(Int8Linear):
    """`int8-linear` on a model that was trained to bear it.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-
    Arithmetic-Only Inference", CVPR 2018, section 3. From the first step on, the wide layers
    multiply weights and inputs rounded as int8 rounds them, and gradients pass the rounding
    (Bengio et al., arXiv:1308.3432); the valid metric that picks the best epoch sees it too.
    Served are the very layers of `int8-linear`, at its speed and size. Expect quality nearer the
    control's only where `int8-linear` loses some; each training step costs more.
    """

    def build(self, model: nn.Module, context: Context) -> nn.Module:
        """Round in the wide layers from now on; parameters keep their names."""
        return copy_with(
            model, {layer: FakeQuantisedLinear.of(layer) for layer in self.wide(model)}
        )


@technique("int8-static")
@dataclass(frozen=True)
class Int8Static(WideLinear):
    """Static int8 for linear layers whose inputs and outputs both number `min_width` or more.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-
    Arithmetic-Only Inference", CVPR 2018, section 2, by FBGEMM's kernels of `torch.ao`. Weights
    are int8 with a scale for each output. The range of each layer's inputs is the widest that the
    context's example requests gave it: inputs of the judged split without its labels. So an
    answer does not depend on the requests that share its batch, as `int8-linear`'s does, but
    requests unlike the examples may saturate. Layers are a quarter the size. Expect gains from
    narrower layers and smaller batches on than `int8-linear`'s, since no range is sought at a
    call, and about the same in large products.
    """

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As for every wide layer, or because torch was built without the kernels."""
        if "fbgemm" not in torch.backends.quantized.supported_engines:
            return "needs a torch built with FBGEMM"
        return super().reason_against(model, task, device)

    def explain(self, model: nn.Module, context: Context) -> str:
        """The widths, and how many rows the ranges rest on."""
        rows = sum(len(request[0]) for request in context.examples)
        return f"{self.widths(model)}; the ranges of their inputs are those of {rows} requests"

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        """Replace the wide layers that the examples reach; all other weights are shared.

        Raises LeanRecError where the context has no examples.
        """
        if not context.examples:
            raise LeanRecError(
                "int8-static was given no example requests.",
                "It cannot tell the range of a layer's inputs.",
                "Give the Context some as `examples`.",
            )
        ranges = input_ranges(predictor, context.examples, context.device)
        wide = [layer for layer in self.wide(predictor) if layer in ranges]
        return copy_with(predictor, {layer: StaticLinear(layer, *ranges[layer]) for layer in wide})
