"""Post-training quantisation of linear layers: weights in fewer bits, chosen without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from techniques.base import Change, Context, Requires, Technique, technique
from techniques.quantised_linear import quantise_linear
from techniques.surgery import copy_with, exactly


@technique("int8-linear")
@dataclass(frozen=True)
class Int8Linear(Technique):
    """Dynamic int8 for linear layers whose inputs and outputs both number `min_width` or more.

    Source: dynamic quantisation of `torch.ao.nn.quantized`. Weights are int8 with a scale for
    each output; inputs are quantised at every call, with one scale for the batch, so an answer
    depends a little on the requests that share its batch.
    Expect 3× on 1024-wide layers at batch 512 where the CPU has AVX512-VNNI, and more with AMX.
    Layers under about 256 wide, and at batch 1 under about 512, get slower: quantising their
    inputs costs more than it saves. Quantised layers are half as large, not a quarter: oneDNN
    keeps the weights twice.
    """

    min_width: Annotated[int, Field(ge=1)] = 64
    family = "quantisation"
    requires = Requires(devices=frozenset({"cpu"}), modules=(nn.Linear,))
    changes = frozenset({Change.NUMERICS, Change.SIZE})

    def _wide(self, model: nn.Module) -> list[nn.Linear]:
        linear = exactly(model, nn.Linear)
        return [m for m in linear if min(m.in_features, m.out_features) >= self.min_width]

    def reason_against(self, model: nn.Module, task: str, device: str) -> str | None:
        """As `requires` says, or because no layer is wide enough, or none that is is served."""
        reason = super().reason_against(model, task, device)
        if reason is None and task == "retrieval" and not self._wide(getattr(model, "user", model)):
            return "finds no wide linear layer but in the item tower, which is not served"
        if reason is None and not self._wide(model):
            return f"finds no linear layer at least {self.min_width} wide"
        return reason

    def explain(self, model: nn.Module, context: Context) -> str:
        """The widths that decide whether int8 pays."""
        widths = sorted({min(m.in_features, m.out_features) for m in self._wide(model)})
        return (
            f"int8-linear: layers {' and '.join(map(str, widths))} wide; int8 pays from about 256 "
            "at large batches and from about 512 at batch 1"
        )

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Replace the wide layers; the copy shares all other weights with `model`."""
        return copy_with(model, {layer: quantise_linear(layer) for layer in self._wide(model)})
